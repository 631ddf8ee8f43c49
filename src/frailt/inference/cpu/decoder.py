"""Stories on a plain CPU: the model in compiled code over one packed set of weights, and no torch.

One block that is passed eight times is read from memory once and from the cache of the processor after that, so a
FraiLT model decodes faster than a standard one of its depth. Weights may be kept in bfloat16 or int8. Activations stay
in float32; beside int8 weights they are rounded to 14 bits or more, and keys and values to bfloat16.
"""

from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.inference.cpu.exit_kernels import BEFORE, LEAVE
from frailt.inference.cpu.kernels import READ, SCORE, STEP, Job, read
from frailt.inference.cpu.packing import READER, Packed, padded
from frailt.inference.cpu.products import COLUMNS, LANES
from frailt.inference.cpu.thread_pool import POOL, ThreadCount, cores, new_doors
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.generation import Decoder
from frailt.inference.storyteller import Storyteller
from frailt.model.config import ModelConfig
from frailt.model.operations import unrolled
from frailt.model.shape import Iterations, Shape
from frailt.model.stored import BFLOAT16

WORTH_THREADS = 150_000
"""Weights of a block below which several threads are not even tried."""
AT_ONCE = 32
"""Tokens that are read in one call; Ctrl-C is heard between calls."""


class CompiledStoryteller(Storyteller):
    """A packed model with the tokenizer that it was trained with.

    Raises:
        InputError: ``threads``, as for ``storyteller.load``, is less than one.
    """

    def __init__(self, packed: Packed, tokenizer: Tokenizer, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; it must be at least 1")
        self.config, self.packed, self.tokenizer, self.threads = packed.config, packed, tokenizer, threads

    def decoder(self, iterations: Iterations = None, early_exit: EarlyExit | None = None) -> "CompiledDecoder":
        return CompiledDecoder(self.packed, iterations, early_exit, threads=self.threads)


class Row(NamedTuple):
    """A text of the batch."""

    slot: int
    """Which of the decoder's keys and values are its own."""
    length: int
    """Tokens read so far."""
    passes: tuple[int, ...]
    """Through each group, of the last token."""


class CompiledDecoder(Decoder):
    """Reads texts token by token; see ``generation.Decoder``.

    Args:
        packed: the model.
        iterations: passes, as for ``FraiLT.forward``.
        early_exit: when a token of ``step`` needs no further pass.
        threads: as for ``storyteller.load``.

    Raises:
        InputError: the iterations do not fit the shape, or it has only one pass and cannot be left early.
    """

    def __init__(
        self,
        packed: Packed,
        iterations: Iterations = None,
        early_exit: EarlyExit | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        super().__init__(packed.config.context)
        self._all = packed.config.passes(iterations)
        self._vocab, self._early, self._rows = packed.config.vocab_size, early_exit is not None, list[Row]()
        worth = len(packed.weights) // len(packed.starts) >= WORTH_THREADS
        self._threads = threads or (cores() if worth else 1)
        self._trial = None if threads else ThreadCount(self._threads)
        self._use(_job(packed, self._all, early_exit, self._threads))

    @property
    def passes(self) -> list[tuple[int, ...]]:
        return [row.passes for row in self._rows]

    def add(self, texts: list[list[int]]) -> NDArray[np.float32]:
        taken = {row.slot for row in self._rows}
        free = [slot for slot in range(len(taken) + len(texts)) if slot not in taken]
        rows = [Row(slot, len(text), self._all) for slot, text in zip(free, texts, strict=False)]
        self._make_room(max((row.slot for row in rows), default=0) + 1)
        scores, _ = self._read(
            [
                (row.slot, position, token, SCORE if position == row.length - 1 else READ)
                for row, text in zip(rows, texts, strict=True)
                for position, token in enumerate(text)
            ]
        )
        self._rows = self._rows + rows  # Only now: whoever is interrupted before has read nothing.
        return scores

    def step(self, tokens: list[int]) -> NDArray[np.float32]:
        rows = self._rows
        if len(tokens) != len(rows):
            raise InputError(f"{len(tokens)} tokens are given for {len(rows)} rows; give one for each")
        entries = [(row.slot, row.length, token, STEP) for row, token in zip(rows, tokens, strict=True)]
        scores, passes = self._read(entries)
        self._rows = [Row(row.slot, row.length + 1, new) for row, new in zip(rows, passes, strict=True)]
        return scores

    def select(self, rows: list[int]) -> None:
        self._rows = [self._rows[row] for row in rows]

    def _make_room(self, slots: int) -> None:
        job = self._job
        if slots > len(job.keys):
            wider = [np.zeros((max(slots, 2 * len(old)), *old.shape[1:]), old.dtype) for old in (job.keys, job.values)]
            for old, new in zip((job.keys, job.values), wider, strict=True):
                new[: len(old)] = old
            # A helper may still wait for another order on the arrays from before.
            self._use(job._replace(doors=new_doors(len(job.doors)), keys=wider[0], values=wider[1]))

    def _use(self, job: Job) -> None:
        self._job, self._fields = job, tuple(job)

    def _read(self, entries: list[tuple[int, int, int, int]]) -> tuple[NDArray[np.float32], list[tuple[int, ...]]]:
        """Scores and passes for the entries that ask for them.

        Raises:
            InputError: a text gets longer than the context, or a token is not in the vocabulary.
        """
        for _, position, token, _ in entries:
            if position >= self.context:
                raise InputError(f"{position + 1} tokens are more than the model's context of {self.context}")
            if not 0 <= token < self._vocab:
                raise InputError(f"{token} is no token of a vocabulary of {self._vocab}")
        if len(entries) <= AT_ONCE:
            return self._call(entries)
        parts = [self._call(entries[at : at + AT_ONCE]) for at in range(0, len(entries), AT_ONCE)]
        return np.concatenate([scores for scores, _ in parts]), [one for _, passes in parts for one in passes]

    def _call(self, entries: list[tuple[int, int, int, int]]) -> tuple[NDArray[np.float32], list[tuple[int, ...]]]:
        job, count, trial = self._job, len(entries), self._trial
        job.order[0] = count
        if entries:
            job.entries[:count] = entries
        if self._early:
            job.passes[:] = self._all
        begun = perf_counter()
        threads = POOL.run(read, self._fields, job.doors, trial.threads if trial is not None else self._threads)
        if trial is not None:
            trial.record(threads, count, perf_counter() - begun)
        lines = sum([entry[3] >= SCORE for entry in entries])
        passes = [*map(tuple, job.passes[:lines].tolist())] if self._early else [self._all] * lines
        return job.logits[:lines, : self._vocab].copy(), passes


def _job(packed: Packed, passes: tuple[int, ...], early_exit: EarlyExit | None, threads: int) -> Job:
    """With room for one text."""
    config = packed.config
    plan, encodings = _plan(packed, passes)
    head = config.dim // config.heads
    cos, sin = _rotary(config.context, head, config.rope_theta)
    dim_row, hidden_row = padded(config.dim, COLUMNS), padded(config.feed_forward_dim, COLUMNS)
    widest = padded(max(3 * config.dim, 2 * config.feed_forward_dim, config.context), 2 * LANES)
    room = padded(config.context, LANES) * max(padded(head, COLUMNS), padded(head, LANES))
    # Beside int8 weights they would soon be most of what is read; beside others the result stays exact.
    kind = BFLOAT16 if packed.weights.dtype == np.int8 else np.float32
    keys, values = (np.zeros((1, len(plan), config.key_value_heads, room), kind) for _ in range(2))
    vocab = padded(config.vocab_size, LANES)
    return Job(
        doors=new_doors(threads),
        order=np.zeros(3, np.int64),
        entries=np.zeros((AT_ONCE, 4), np.int64),
        counter=np.zeros(16, np.int64),
        sizes=(config.heads, config.key_value_heads, config.dim, dim_row, hidden_row, config.vocab_size),
        epsilon=np.float32(config.norm_eps),
        weights=packed.weights,
        scales=packed.scales,
        starts=packed.starts,
        norms=packed.norms,
        encodings=encodings,
        plan=plan,
        exits=_exits(config, passes, early_exit),
        limit=np.float32(early_exit.threshold if early_exit is not None else 0),
        cos=cos,
        sin=sin,
        keys=keys,
        values=values,
        shared=np.zeros((4, widest), np.float32),
        private=np.zeros((threads, 5, widest), np.float32),
        whole=np.zeros((threads, widest), np.int16),
        logits=np.zeros((AT_ONCE, vocab), np.float32),
        guesses=np.zeros((2, vocab if early_exit is not None and early_exit.criterion == "kl" else 0), np.float32),
        passes=np.zeros((AT_ONCE, len(passes)), np.int64),
    )


def _plan(packed: Packed, passes: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A line for each step of the depth: block, and row of the encodings (-1: none). And the encodings."""
    plan, encodings = [], []
    for block, vector in unrolled(packed.config, packed.encodings, passes, READER):
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
