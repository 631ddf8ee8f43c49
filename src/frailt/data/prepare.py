"""Stories to a folder of tokens: what ``frailt prepare`` does.

The folder holds ``train.bin`` and ``valid.bin`` (16-bit little-endian tokens; each story is BOS and
its tokens, without an end token), ``tokenizer.json``, and ``manifest.json``, which says where they
came from and how much they hold.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from frailt.data.bpe import FIXED, LARGEST
from frailt.data.manifest import Manifest, Settings, Source, token_type
from frailt.data.shards import write_tokens
from frailt.data.storyworld import stories
from frailt.data.text import StoryReader
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError, excerpt
from frailt.files import sha256, user_cache

EMBEDDED = 20_000
"""Stories of the embedded story world where nothing else is asked for."""
SAMPLE = 32 << 20
"""A new tokenizer is trained on the training stories of the first 32 MiB of text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Where stories come from and where their tokens go. Give one of ``text``, ``hub`` and ``world``."""

    out: Path
    """Folder to make."""
    text: tuple[Path, ...] = ()
    """Text files with stories, each closed by a line <|endoftext|>; plain, .xz, .gz, .zst or .bz2."""
    valid: tuple[Path, ...] = ()
    """Files with validation stories; by default some of the stories are held out."""
    hub: Literal["v1", "v2"] | None = None
    """Download TinyStories, or its GPT-4 version v2, with its validation stories."""
    world: int | None = None
    """Number of stories to make up without any file or network."""
    seed: int = 0
    """Seed of the made-up stories."""
    tokenizer: Path | None = None
    """Tokenizer to use (tokenizer.json, *.model, *.bin or a folder); by default one is trained."""
    vocab_size: int = 512
    """Pieces of a trained tokenizer."""
    valid_fraction: float = 0.01
    """Share of the stories that is held out where no validation files are given: at least one story."""

    def __post_init__(self) -> None:
        # From Python, paths may be strings.
        object.__setattr__(self, "out", Path(self.out))
        object.__setattr__(self, "tokenizer", self.tokenizer and Path(self.tokenizer))
        for name in ("text", "valid"):
            object.__setattr__(self, name, tuple(map(Path, getattr(self, name))))
        if [bool(self.text), self.hub is not None, self.world is not None].count(True) != 1:
            raise InputError("give exactly one source of stories: text files, hub, or world")
        if self.valid and self.hub is not None:
            raise InputError("hub brings its own validation stories; leave valid out")
        if self.world is not None and self.world < 1:
            raise InputError(f"world is {self.world}; give the number of stories to make, at least 1")
        if not 0 < self.valid_fraction < 1:
            raise InputError(f"valid_fraction is {self.valid_fraction}; choose one between 0 and 1")
        if not len(FIXED) < self.vocab_size <= LARGEST:
            limits = f"{len(FIXED) + 1} to {LARGEST}"
            raise InputError(f"vocab_size is {self.vocab_size}; choose one from {limits}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A complete folder."""

    folder: Path
    manifest: Manifest
    fresh: bool
    """False if the folder was there already, made from the same sources with the same settings."""


def prepare(config: PrepareConfig, *, progress: bool = False) -> Prepared:
    """Make the folder ``config.out``, or return it if it was made before in the same way.

    It appears complete, in one step, or not at all: interrupt it and run it again at will. A story
    is never on both sides: without validation files the hash of its text decides the side, and with
    them training stories that equal a validation story are dropped. Memory does not grow with
    the text, but for a hash of each validation story.

    Raises:
        InputError: the sources or the tokenizer cannot be used, or ``out`` holds something else.
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    out = config.out.resolve()
    if out.exists() and not (out / "manifest.json").is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{config.out} exists and is not a prepared folder; choose another")
    split = _Split(config)
    tokenizer = Tokenizer.load(config.tokenizer) if config.tokenizer else None
    settings = Settings(
        vocab_size=tokenizer.vocab_size if tokenizer else config.vocab_size,
        tokenizer=tokenizer.digest if tokenizer else None,
        valid_fraction=None if split.valid else config.valid_fraction,
    )
    if (out / "manifest.json").is_file():
        return Prepared(folder=config.out, manifest=_existing(config.out, split.sources, settings), fresh=False)

    with _folder(out) as folder, _bar(progress) as bar:
        if tokenizer is None:
            task = bar.add_task("training the tokenizer", total=None)
            tokenizer = Tokenizer.train(_sample(split), vocab_size=config.vocab_size)
            bar.remove_task(task)
        tokenizer.save(folder / "tokenizer.json")
        task = bar.add_task("encoding", total=split.text.total)
        shards = write_tokens(
            split.assign(),
            tokenizer,
            folder,
            advanced=lambda: bar.update(task, completed=split.text.done),
        )
        manifest = Manifest(
            sources=tuple(split.sources),
            settings=settings,
            tokenizer=tokenizer.digest,
            vocab_size=tokenizer.vocab_size,
            dtype=token_type(tokenizer.vocab_size),
            bos=tokenizer.bos,
            ends=tokenizer.ends,
            train=shards["train"],
            valid=shards["valid"],
            dropped=split.dropped,
        )
        manifest.write(folder)
    return Prepared(folder=config.out, manifest=manifest, fresh=True)


def embedded(*, progress: bool = False) -> Path:
    """The folder of the embedded story world, made at first use in the user's cache."""
    config = PrepareConfig(out=user_cache() / f"story-world-{EMBEDDED}", world=EMBEDDED)
    # Processes that are started together, as by torchrun, wait for the first to make it.
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with (config.out.parent / f".{config.out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return prepare(config, progress=progress).folder


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


class _Split:
    """The sources, and the side of each story."""

    def __init__(self, config: PrepareConfig) -> None:
        text, valid = config.text, config.valid
        if config.hub is not None:
            from frailt.data.hub import fetch  # Its import takes longer than a small preparation.

            train_file, valid_file = fetch(config.hub)
            text, valid = (train_file,), (valid_file,)
        self.text: _Source = StoryReader(text)
        self.sources = [_entry("text", path) for path in text]
        if config.world is not None:
            self.text = _World(config.world, config.seed)
            # The first stories stand for all: enough to notice that the world has changed.
            first = "\n".join(islice(_World(config.world, config.seed), 100))
            digest = hashlib.sha256(first.encode()).hexdigest()
            world = Source(use="text", name="story world", stories=config.world, seed=config.seed, sha256=digest)
            self.sources = [world]
        self.valid = StoryReader(valid) if valid else None
        self.sources += [_entry("valid", path) for path in valid]
        self.config = config
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

    @cached_property
    def limit(self) -> int:
        """Stories with a number below it are held out.

        It follows from the fraction, unless one side would have no story: then the story with the least number is held
        out, or the one with the greatest is kept. Read for it are a few stories, and all only where they are few.

        Raises:
            InputError: the text has no two different stories.
        """
        limit = int(self.config.valid_fraction * 2**64)
        least, greatest = 2**64, -1
        for story in self.text:
            least, greatest = min(least, _number(story)), max(greatest, _number(story))
            if least < limit <= greatest:
                return limit
        if least == greatest:
            if self.config.world is not None:
                raise InputError(f"world is {self.config.world}; give at least 2, to train on one and hold one out")
            raise InputError(
                f"{', '.join(map(str, self.config.text))}: this is a single story, and none is left to hold out; put a "
                "line <|endoftext|> after each story, or give validation files"
            )
        return min(max(limit, least + 1), greatest)


def _entry(use: str, path: Path) -> Source:
    return Source(use=use, name=path.name, sha256=sha256(path), bytes=path.stat().st_size)


def _contents(sources: Iterable[Source]) -> list[Source]:
    """Sources without their names: a file may be renamed."""
    return [replace(source, name="") for source in sources]


def _digest(story: str) -> bytes:
    return hashlib.sha256(story.encode()).digest()[:16]


def _number(story: str) -> int:
    """From 0 to 2^64 - 1, evenly spread over stories."""
    return int.from_bytes(_digest(story)[:8], "big")


def _sample(split: _Split) -> list[str]:
    """The training stories of the first ``SAMPLE`` bytes."""
    sample: list[str] = []
    size = 0
    for side, story in split.assign():
        if side == "train":
            sample.append(story)
            size += len(story.encode())
            if size >= SAMPLE:
                break
    return sample


def _existing(out: Path, sources: Iterable[Source], settings: Settings) -> Manifest:
    """The manifest of a folder that is already there, if it is what is wanted now."""
    manifest = Manifest.read(out)
    changed = ["sources"] if _contents(manifest.sources) != _contents(sources) else []
    for field in fields(settings):
        before, now = getattr(manifest.settings, field.name, None), getattr(settings, field.name)
        if before != now:
            changed.append(f"{field.name} {excerpt(before)}, now {now}")
    if changed:
        difference = "; ".join(changed)
        raise InputError(f"{out} was prepared otherwise ({difference}); choose another folder or delete it")
    for side in ("train", "valid"):
        file = out / f"{side}.bin"
        size = np.dtype(manifest.dtype).itemsize * getattr(manifest, side).tokens
        if not file.is_file() or file.stat().st_size != size:
            raise InputError(f"{file} is missing or damaged; delete {out} and prepare it again")
    if not (out / "tokenizer.json").is_file():
        raise InputError(f"{out} has lost its tokenizer.json; delete it and prepare it again")
    return manifest


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` on success and is removed otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        yield folder
        mask = os.umask(0)
        os.umask(mask)
        folder.chmod(0o777 & ~mask)  # mkdtemp's is private.
        if out.exists():
            out.rmdir()  # Empty, or this fails.
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _bar(show: bool) -> Iterator[Progress]:
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not show) as bar:
        yield bar
