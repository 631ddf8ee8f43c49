"""Stories to token files."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import numpy as np

from frailt.data.manifest import Shard, token_type
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.files import naming

_CHUNK = 1 << 18
"""Characters of stories that are encoded at a time: a token takes some 100 bytes then, and Ctrl-C waits for the end."""


def write_tokens(
    stories: Iterator[tuple[str, str]], tokenizer: Tokenizer, folder: Path, *, advanced: Callable[[], None]
) -> dict[str, Shard]:
    """Encode pairs of a side ("train" or "valid") and a story into ``<side>.bin``, in their order.

    The tokenizer uses all cores; memory holds one chunk of stories. ``advanced`` is called now and then.

    Raises:
        InputError: there is no story to train on.
    """
    with ExitStack() as stack:
        files = {
            side: stack.enter_context(_ShardWriter(folder / f"{side}.bin", tokenizer)) for side in ("train", "valid")
        }
        for side, chunk in chunks(stories):
            files[side].add(chunk)
            advanced()
        if files["train"].stories == 0:
            raise InputError("all stories are validation stories and none is left to train on; give other stories")
        return {side: file.finish() for side, file in files.items()}


class _ShardWriter:
    """A token file while it is written."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self.path, self.tokenizer = path, tokenizer
        self.hash = hashlib.sha256()
        self.stories = self.tokens = self.bytes = 0

    def __enter__(self) -> "_ShardWriter":
        self.file = self.path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, stories: list[str]) -> None:
        tokens = encode(stories, self.tokenizer)
        with naming(self.path):
            self.file.write(tokens.data)
        self.hash.update(tokens.data)
        self.stories += len(stories)
        self.tokens += len(tokens)
        self.bytes += sum(len(story.encode()) for story in stories)

    def finish(self) -> Shard:
        with naming(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
        return Shard(stories=self.stories, tokens=self.tokens, bytes=self.bytes, sha256=self.hash.hexdigest())


def encode(stories: list[str], tokenizer: Tokenizer) -> np.ndarray:
    """The tokens of stories, BOS before each, as they lie in a token file."""
    bos = (tokenizer.bos,)
    encoded = chain.from_iterable((bos, ids) for ids in tokenizer.encode_stories(stories))
    return np.fromiter(chain.from_iterable(encoded), np.dtype(token_type(tokenizer.vocab_size)).newbyteorder("<"))


def chunks(stories: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Pairs of a side and a story as pairs of a side and several of its stories, together about ``_CHUNK`` long."""
    waiting, size = defaultdict[str, list[str]](list), Counter[str]()
    for side, story in stories:
        waiting[side].append(story)
        size[side] += len(story)
        if size[side] >= _CHUNK:
            yield side, waiting.pop(side)
            del size[side]
    yield from waiting.items()
