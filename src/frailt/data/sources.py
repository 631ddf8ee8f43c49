"""Where the stories of a prepared folder come from, and which of them are held out."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

from frailt.data.manifest import Source
from frailt.data.storyworld import stories
from frailt.data.text import StoryReader
from frailt.errors import InputError
from frailt.files import sha256


class _Source(Protocol):
    """Stories, and how far a pass over them got."""

    done: int
    total: int

    def __iter__(self) -> Iterator[str]: ...


class _World:
    """The story world as a source."""

    def __init__(self, count: int, seed: int) -> None:
        self.total, self.seed, self.done = count, seed, 0

    def __iter__(self) -> Iterator[str]:
        self.done = 0
        for story in stories(self.total, seed=self.seed):
            self.done += 1
            yield story.text.strip()


class Sources:
    """Where stories come from, and the side of each: training or validation."""

    def __init__(
        self, text: Sequence[Path], valid: Sequence[Path], *, world: tuple[int, int] | None, valid_fraction: float
    ) -> None:
        """Name the sources.

        Args:
            text: files with stories, or none.
            valid: files with validation stories, or none.
            world: number and seed of made-up stories, instead of ``text``.
            valid_fraction: share of the stories that is held out where ``valid`` is empty.

        Raises:
            InputError: a file does not exist or cannot be read twice.
        """
        self.paths = tuple(text)
        self.text: _Source = _World(*world) if world else StoryReader(text)
        self.valid = StoryReader(valid) if valid else None
        for path in (*text, *valid):
            if not path.is_file():
                raise InputError(f"{path} is a pipe, and stories are read twice; write them to a file")
        self.valid_fraction = valid_fraction
        self.dropped = 0
        self._held_out = set[bytes]()

    def assign(self) -> Iterator[tuple[Literal["train", "valid"], str]]:
        """Each story with its side: validation files first, then the text."""
        if self.valid is None:
            for story in self.text:
                yield ("valid" if _number(story) < self.limit else "train"), story
            return
        for story in self.valid:
            self._held_out.add(_digest(story))
            yield "valid", story
        self.dropped = 0
        for story in self.text:
            if _digest(story) in self._held_out:
                self.dropped += 1
            else:
                yield "train", story

    def describe(self) -> tuple[Source, ...]:
        """What the manifest says of them. Every file is read once for its hash."""
        files = [("text", path) for path in self.paths]
        files += [("valid", path) for path in (self.valid.paths if self.valid else ())]
        sources = [
            Source(use=use, name=path.name, sha256=sha256(path), bytes=path.stat().st_size) for use, path in files
        ]
        if isinstance(self.text, _World):
            # The first stories stand for all: enough to notice that the world has changed.
            opening = "\n".join(islice(_World(self.text.total, self.text.seed), 100))
            digest = hashlib.sha256(opening.encode()).hexdigest()
            world = Source(use="text", name="story world", stories=self.text.total, seed=self.text.seed, sha256=digest)
            sources = [world, *sources]
        return tuple(sources)

    def sample(self, size: int) -> list[str]:
        """The training stories at the start of the text, together ``size`` bytes long or a little more."""
        sample: list[str] = []
        for side, story in self.assign():
            if side == "train":
                sample.append(story)
                size -= len(story.encode())
                if size <= 0:
                    break
        return sample

    @cached_property
    def limit(self) -> int:
        """Stories with a number below it are held out.

        It follows from the fraction, unless one side would have no story: then the story with the least number is held
        out, or the one with the greatest is kept. Read for it are a few stories, and all only where they are few.

        Raises:
            InputError: the text has no two different stories.
        """
        limit = int(self.valid_fraction * 2**64)
        least, greatest = 2**64, -1
        for story in self.text:
            least, greatest = min(least, _number(story)), max(greatest, _number(story))
            if least < limit <= greatest:
                return limit
        if least == greatest:
            if not self.paths:
                raise InputError(f"world is {self.text.total}; give at least 2, to train on one and hold one out")
            raise InputError(
                f"{', '.join(map(str, self.paths))}: this is a single story, and none is left to hold out; put a "
                "line <|endoftext|> after each story, or give validation files"
            )
        return min(max(limit, least + 1), greatest)


def _digest(story: str) -> bytes:
    return hashlib.sha256(story.encode()).digest()[:16]


def _number(story: str) -> int:
    """From 0 to 2^64 - 1, evenly spread over stories."""
    return int.from_bytes(_digest(story)[:8], "big")
