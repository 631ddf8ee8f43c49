"""Stories to token files, on several processes."""

import hashlib
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError

_CHUNK = 1 << 20
"""Characters of stories that are encoded at a time."""
_INLINE = 8
"""Chunks that are encoded here before processes are started, which takes longer than these."""
_MOST_WORKERS = 8
"""What one reading process can keep busy."""


def write_tokens(
    stories: Iterator[tuple[str, str]],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    workers: int | None,
    advanced: Callable[[], None],
) -> dict[str, dict[str, Any]]:
    """Encode pairs of a side ("train" or "valid") and a story into ``<side>.bin``, in their order.

    ``advanced`` is called now and then. Returns what each file holds, as the manifest says it.

    Raises:
        InputError: there is no story to train on.
    """
    with ExitStack() as stack:
        files = {side: _TokenFile(folder / f"{side}.bin") for side in ("train", "valid")}
        for file in files.values():
            stack.enter_context(file.file)
        # Closed here, so that an error in this loop ends the worker processes too.
        encoded = stack.enter_context(closing(_encoded(_chunks(stories), tokenizer, workers)))
        for side, chunk, tokens in encoded:
            files[side].add(chunk, tokens)
            advanced()
        if files["train"].stories == 0:
            raise InputError("all stories are validation stories and none is left to train on; give other stories")
        return {side: file.finish() for side, file in files.items()}


class _TokenFile:
    """One side's file while it is written."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.hash = hashlib.sha256()
        self.stories = self.tokens = self.bytes = 0

    def add(self, stories: list[str], tokens: bytes) -> None:
        self.file.write(tokens)
        self.hash.update(tokens)
        self.stories += len(stories)
        self.tokens += len(tokens) // 2
        self.bytes += sum(len(story.encode()) for story in stories)

    def finish(self) -> dict[str, Any]:
        self.file.flush()
        os.fsync(self.file.fileno())
        counts = {"stories": self.stories, "tokens": self.tokens, "bytes": self.bytes}
        return {**counts, "sha256": self.hash.hexdigest()}


def _chunks(stories: Iterator[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Stories of one side, together about ``_CHUNK`` long."""
    waiting: dict[str, list[str]] = {"train": [], "valid": []}
    size = {"train": 0, "valid": 0}
    for side, story in stories:
        waiting[side].append(story)
        size[side] += len(story)
        if size[side] >= _CHUNK:
            yield side, waiting[side]
            waiting[side], size[side] = [], 0
    yield from waiting.items()


def _encoded(
    chunks: Iterator[tuple[str, list[str]]], tokenizer: Tokenizer, workers: int | None
) -> Generator[tuple[str, list[str], bytes]]:
    """The chunks in their order, each with its tokens; only a few are in memory at a time."""
    inline = _INLINE if workers is None else None if workers == 1 else 0
    for side, stories in islice(chunks, inline):
        yield side, stories, _encode(tokenizer, stories)
    first = list(islice(chunks, 1))
    if not first:
        return
    workers = workers or min(os.cpu_count() or 1, _MOST_WORKERS)
    # Forked processes would inherit threads of tokenizers or torch in a state that nobody knows.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _start_worker, (tokenizer,)) as pool:
        pending: deque[tuple[str, list[str], Future[bytes]]] = deque()
        for side, stories in chain(first, chunks):
            pending.append((side, stories, pool.submit(_work, stories)))
            if len(pending) > 2 * workers:
                done = pending.popleft()
                yield done[0], done[1], done[2].result()
        for side, stories, future in pending:
            yield side, stories, future.result()


def _encode(tokenizer: Tokenizer, stories: list[str]) -> bytes:
    tokens: list[int] = []
    for story in stories:
        tokens.append(tokenizer.bos)
        tokens += tokenizer.encode(story)
    return np.array(tokens, dtype="<u2").tobytes()


_worker_tokenizer: Tokenizer
"""The tokenizer of a worker process, set where it starts."""


def _start_worker(tokenizer: Tokenizer) -> None:
    global _worker_tokenizer
    _worker_tokenizer = tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that reads and writes.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # A process for each core is enough.


def _work(stories: list[str]) -> bytes:
    return _encode(_worker_tokenizer, stories)
