"""Stories on a plain CPU: the model in compiled code over one packed set of weights, and no torch.

One block that is passed eight times is read from memory once and from the cache of the processor after that, so a
FraiLT model speaks faster than a standard one of its depth. Weights may be kept in bfloat16 or int8. What they meet
stays in float32; beside int8 it is rounded to 14 bits or more, and keys and values to bfloat16.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.inference.cpu.exit_kernels import BEFORE, LEAVE
from frailt.inference.cpu.kernels import read
from frailt.inference.cpu.packing import Packed, pack, padded
from frailt.inference.cpu.products import COLUMNS, LANES
from frailt.inference.cpu.thread_pool import TEAM, Pace, cores, doors
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.generation import Reader, Teller, tokenizer_of
from frailt.model.config import ModelConfig
from frailt.model.operations import unrolled
from frailt.model.shape import Shape
from frailt.model.stored import BFLOAT16, read_model

WORTH_THREADS = 150_000
"""Weights of a block below which several threads are not even tried."""
AT_ONCE = 32
"""Tokens whose scores are computed in one call, where all are asked for."""


class FastStoryteller(Teller):
    """A packed model with its tokenizer.

    Args:
        packed: from ``packing.pack``.
        tokenizer: the one it was trained with.
        threads: exactly this many; unset: as many as there are cores, or one, whatever turns out to be faster.

    Raises:
        InputError: there shall be less than one thread.
    """

    def __init__(self, packed: Packed, tokenizer: Tokenizer, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; it must be at least 1")
        self.config, self.packed, self.tokenizer, self.threads = packed.config, packed, tokenizer, threads

    def reader(
        self, iterations: int | tuple[int, ...] | None = None, early_exit: EarlyExit | None = None
    ) -> "FastReader":
        return FastReader(self.packed, iterations, early_exit, threads=self.threads)


def load_fast(
    path: str | Path, tokenizer: str | Path | None = None, *, weights: str = "auto", threads: int | None = None
) -> FastStoryteller:
    """Read a model to generate with on the CPU.

    Args:
        path: a run folder, a saved model's folder, or a llama2.c ``.bin``.
        tokenizer: where it is not stored beside the model.
        weights: how they are kept in memory: auto (as stored), float32, bfloat16 or int8.
        threads: see ``FastStoryteller``.

    Raises:
        InputError: model or tokenizer is missing or damaged, or their vocabularies differ.
    """
    path = Path(path)
    stored = read_model(path)
    pieces = tokenizer_of(path, stored.config, Path(tokenizer) if tokenizer is not None else None)
    return FastStoryteller(pack(stored, weights), pieces, threads=threads)


class FastReader(Reader):
    """Reads texts token by token, each with keys and values of its own; see ``telling.Reader``.

    Args:
        packed: the model.
        iterations: passes, as for ``FraiLT.forward``.
        early_exit: when a token after those of ``read`` needs no further pass.
        threads: see ``FastStoryteller``.

    Raises:
        InputError: the iterations do not fit the shape, or it has only one pass and cannot be left early.
    """

    def __init__(
        self,
        packed: Packed,
        iterations: int | tuple[int, ...] | None = None,
        early_exit: EarlyExit | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        super().__init__(packed.config.context)
        shape = Shape.parse(packed.config.shape)
        passes = shape.passes(iterations)
        if early_exit is not None:
            early_exit.groups(shape, passes)  # Refused before anything is read.
        self._new = partial(FastText, packed, passes, early_exit, threads or _threads(packed), adapt=threads is None)
        self.texts: list[FastText] = []

    def read(self, rows: list[list[int]]) -> NDArray[np.float32]:
        self.texts += [self._new() for _ in rows[len(self.texts) :]]
        del self.texts[len(rows) :]
        return self.step([0] * len(rows), dict(enumerate(rows)))

    def step(self, tokens: list[int], again: dict[int, list[int]]) -> NDArray[np.float32]:
        scores = []
        for place, (text, token) in enumerate(zip(self.texts, tokens, strict=True)):
            if place in again:
                text.length = 0
                scores.append(text.read(again[place]))
            else:
                scores.append(text.step(token))
        self.passes = np.stack([text.passes for text in self.texts])
        return np.concatenate(scores)

    def select(self, places: list[int]) -> None:
        self.texts = [self.texts[place] for place in places]


class FastText:
    """One text and what the model remembers of it.

    Args:
        packed: the model.
        passes: through each of its groups.
        early_exit: when a token that is read by ``step`` needs no further pass.
        threads: how many read it together.
        adapt: whether one thread may read alone where that is faster.
    """

    def __init__(
        self, packed: Packed, passes: tuple[int, ...], early_exit: EarlyExit | None, threads: int, *, adapt: bool
    ) -> None:
        config = packed.config
        self.config, self._pace, self._adapt = config, Pace(threads), adapt
        self.length = 0
        """Tokens read so far; set it back to forget the last ones."""
        plan, encodings = _plan(packed, passes)
        head = config.dim // config.heads
        cos, sin = _rotary(config.context, head, config.rope_theta)
        rows = padded(config.dim, COLUMNS), padded(config.feed_forward_dim, COLUMNS)
        widest = padded(max(3 * config.dim, 2 * config.feed_forward_dim, config.context), 2 * LANES)
        room = padded(config.context, LANES) * max(padded(head, COLUMNS), padded(head, LANES))
        # Beside int8 weights they would soon be most of what is read; beside others the result stays exact.
        kind = BFLOAT16 if packed.weights.dtype == np.int8 else np.float32
        keys, values = np.zeros((2, len(plan), config.key_value_heads, room), kind)
        self.passes = np.array(passes, np.int64)
        """Passes through each group that the last token did."""
        self._all = passes
        self._order = np.zeros(5, np.int64)
        self._tokens = np.zeros(config.context, np.int64)
        self._logits = np.zeros((AT_ONCE, padded(config.vocab_size, LANES)), np.float32)
        predicts = self._logits.shape[1] if early_exit is not None and early_exit.criterion == "kl" else 0
        self._counter = np.zeros(16, np.int64)
        self._arguments = (
            doors(threads),
            self._order,
            self._tokens,
            (config.heads, config.key_value_heads, config.dim, *rows, config.vocab_size),
            np.float32(config.norm_eps),
            packed.weights,
            packed.scales,
            packed.starts,
            packed.norms,
            encodings,
            plan,
            _exits(config, passes, early_exit),
            np.float32(early_exit.threshold if early_exit is not None else 0),
            cos,
            sin,
            keys,
            values,
            np.zeros((4, widest), np.float32),
            np.zeros((threads, 5, widest), np.float32),
            np.zeros((threads, widest), np.int16),
            self._logits,
            np.zeros((2, predicts), np.float32),
            self.passes,
            self._counter,
        )

    def read(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Read more tokens; scores of what follows the last one, shape ``(1, vocab)``.

        Raises:
            InputError: there is no room for so many, or one is not in the vocabulary.
        """
        return self._read(tokens, 1)

    def step(self, token: int) -> NDArray[np.float32]:
        """As ``read`` for one token, which may leave groups early."""
        return self._read([token], 1, early=True)

    def read_each(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """As ``read``, with the scores after each token, shape ``(tokens, vocab)``."""
        parts = [tokens[at : at + AT_ONCE] for at in range(0, len(tokens), AT_ONCE)]
        return np.concatenate([self._read(part, len(part)) for part in parts])

    def _read(self, tokens: Sequence[int], lines: int, *, early: bool = False) -> NDArray[np.float32]:
        count, vocab = len(tokens), self.config.vocab_size
        if self.length + count > self.config.context:
            raise InputError(f"{self.length + count} tokens are more than the model's context of {self.config.context}")
        if not count or min(tokens) < 0 or max(tokens) >= vocab:
            raise InputError(f"{list(tokens)} are not tokens of a vocabulary of {vocab}")
        self._tokens[:count] = tokens
        self._order[:] = count, self.length, lines, early, self._counter[0]
        self.passes[:] = self._all
        begun = perf_counter()
        TEAM.run(read, self._arguments, self._pace.threads)
        if self._adapt:
            self._pace.record(count, perf_counter() - begun)
        self.length += count
        return self._logits[:lines, :vocab].copy()


def _threads(packed: Packed) -> int:
    """How many threads may pay for a model of this size."""
    return cores() if len(packed.weights) // len(packed.starts) >= WORTH_THREADS else 1


def _plan(packed: Packed, passes: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A line for each step of the depth: block, and row of the encodings (-1: none). And the encodings."""
    plan, encodings = [], []
    for block, vector in unrolled(packed.config, packed.tables, passes):
        plan.append((block, -1 if vector is None else len(encodings)))
        if vector is not None:
            encodings.append(vector)
    return np.array(plan, np.int64), np.array(encodings, np.float32).reshape(-1, packed.config.dim)


def _exits(config: ModelConfig, passes: tuple[int, ...], early_exit: EarlyExit | None) -> NDArray[np.int64]:
    """For each step of the depth what to do after it (0: nothing, ``BEFORE``, ``LEAVE``), the step after the group's
    last, the group's blocks, its number, and the passes done."""
    lines: list[tuple[int, ...]] = []
    shape = Shape.parse(config.shape)
    may_leave = early_exit.groups(shape, passes) if early_exit is not None else [False] * len(passes)
    for n, (group, count) in enumerate(zip(shape.groups, passes, strict=True)):
        after = len(lines) + count * group.blocks
        for m in range(1, count + 1):
            wish = 0
            if early_exit is not None and may_leave[n] and early_exit.least - 1 <= m < count:
                wish = BEFORE if m < early_exit.least else LEAVE
            lines += [(0,) * 5] * (group.blocks - 1) + [(wish, after, group.blocks, n, m)]
    return np.array(lines, np.int64)


def _rotary(context: int, head: int, theta: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine of ``position * theta^(-2i / head)``, as ``attention.rotary_angles`` has them in float32."""
    frequencies = np.float32(theta) ** (-np.arange(0, head, 2, dtype=np.float32) / np.float32(head))
    angles = np.arange(context, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)
