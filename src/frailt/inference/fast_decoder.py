"""Stories on a plain CPU: the model in compiled code over one packed set of weights, and no torch.

One block that is passed eight times is read from memory once and from the cache of the processor after that, so a
FraiLT model speaks faster than a standard one of its depth. Weights may be kept in bfloat16 or int8; the numbers
that they meet stay in float32, or in 14 bits for int8.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.inference.kernels import read
from frailt.inference.packing import Packed, Weights, pack, padded
from frailt.inference.products import COLUMNS, LANES
from frailt.inference.team import TEAM, cores
from frailt.inference.telling import Reader, Teller, tokenizer_of
from frailt.model.encoding_vectors import encoding_vectors
from frailt.model.shape import Shape
from frailt.model.stored import read_model

WORTH_THREADS = 150_000
"""Weights of a block below which one thread is as fast as several (bench/decode.py)."""


class FastStoryteller(Teller):
    """A packed model with its tokenizer.

    Args:
        packed: from ``packing.pack``.
        tokenizer: the one it was trained with.
        threads: at most this many; unset: as many as there are cores, or one where the model is too small for more.
    """

    def __init__(self, packed: Packed, tokenizer: Tokenizer, *, threads: int | None = None) -> None:
        self.packed, self.tokenizer, self.threads = packed, tokenizer, threads

    def reader(self, iterations: int | tuple[int, ...] | None) -> "FastReader":
        return FastReader(self.packed, iterations, threads=self.threads)


def load_fast(
    path: str | Path, tokenizer: str | Path | None = None, *, weights: Weights = "auto", threads: int | None = None
) -> FastStoryteller:
    """Read a model to generate with on the CPU.

    Args:
        path: a run folder, a saved model's folder, or a llama2.c ``.bin``.
        tokenizer: where it is not stored beside the model.
        weights: how they are kept in memory.
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
        threads: see ``FastStoryteller``.

    Raises:
        InputError: the iterations do not fit the shape.
    """

    def __init__(
        self, packed: Packed, iterations: int | tuple[int, ...] | None = None, *, threads: int | None = None
    ) -> None:
        config = packed.config
        super().__init__(config.context)
        self.packed = packed
        self.threads = _threads(packed, threads)
        self.plan, self.encodings = _plan(packed, Shape.parse(config.shape).passes(iterations))
        head = config.dim // config.heads
        self.cos, self.sin = _rotary(config.context, head, config.rope_theta)
        rows = padded(config.dim, COLUMNS), padded(config.feed_forward_dim, COLUMNS)
        self.sizes = (config.heads, config.key_value_heads, config.dim, *rows)
        widest = padded(max(3 * config.dim, 2 * config.feed_forward_dim, config.context), 2 * LANES)
        self.shared = np.zeros((4, widest), np.float32)
        self.private = np.zeros((self.threads, 4, widest), np.float32)
        self.whole = np.zeros((self.threads, widest), np.int16)
        self.counter = np.zeros(8, np.int64)
        room = padded(config.context, LANES) * max(padded(head, COLUMNS), padded(head, LANES))
        self.memory = (2, len(self.plan), config.key_value_heads, room)
        self.texts: list[tuple[NDArray[np.float32], int]] = []

    @property
    def length(self) -> int:
        return max((length for _, length in self.texts), default=0)

    def read(self, rows: list[list[int]]) -> NDArray[np.float32]:
        spare = [memory for memory, _ in self.texts[: len(rows)]]
        spare += [np.zeros(self.memory, np.float32) for _ in rows[len(spare) :]]
        self.texts = [(memory, 0) for memory in spare]
        return np.concatenate([self.scores(row, place)[-1:] for place, row in enumerate(rows)])

    def step(self, tokens: list[int]) -> NDArray[np.float32]:
        return np.concatenate([self.scores([token], place) for place, token in enumerate(tokens)])

    def select(self, places: list[int]) -> None:
        self.texts = [self.texts[place] for place in places]

    def scores(self, tokens: list[int], place: int = 0, *, every: bool = False) -> NDArray[np.float32]:
        """Read more tokens of the text at ``place``.

        Returns:
            Scores of what follows the last token, shape ``(1, vocab)``, or with ``every`` of what follows each.

        Raises:
            InputError: there is no room for so many, or a token is not in the vocabulary.
        """
        memory, start = self.texts[place]
        given, vocab = np.array(tokens, np.int64), self.packed.config.vocab_size
        if start + len(given) > self.context:
            raise InputError(f"{start + len(given)} tokens are more than the model's context of {self.context}")
        if not len(given) or given.min() < 0 or given.max() >= vocab:
            raise InputError(f"{tokens} are not tokens of a vocabulary of {vocab}")
        logits = np.empty((len(given) if every else 1, padded(vocab, LANES)), np.float32)
        p = self.packed
        arguments = (
            given,
            start,
            self.sizes,
            np.float32(p.config.norm_eps),
            p.weights,
            p.scales,
            p.starts,
            p.norms,
            self.encodings,
            self.plan,
            self.cos,
            self.sin,
            memory[0],
            memory[1],
            self.shared,
            self.private,
            self.whole,
            logits,
            self.counter,
            int(self.counter[0]),
        )
        TEAM.run(read, arguments, self.threads)
        self.texts[place] = memory, start + len(given)
        return logits[:, :vocab]


def _threads(packed: Packed, most: int | None) -> int:
    """How many threads pay for a model of this size."""
    if most is not None and most < 1:
        raise InputError(f"threads is {most}; it must be at least 1")
    config = packed.config
    block = len(packed.weights) // len(packed.starts)
    return min(most or cores(), config.dim) if block >= WORTH_THREADS else 1


def _plan(packed: Packed, passes: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The way of the signal, a line for each step of the depth: block, and row of the encodings (-1: none)."""
    config = packed.config
    plan, encodings = [], []
    before = 0
    for group, count in zip(config.groups, passes, strict=True):
        tables = packed.tables[before : before + group.blocks]
        vectors = [
            encoding_vectors(config.encoding, table, count, config.dim) if group.encoded else None for table in tables
        ]
        for m in range(count):
            for l, own in enumerate(vectors):  # noqa: E741 (the paper's l)
                plan.append((before + l, -1 if own is None else len(encodings)))
                if own is not None:
                    encodings.append(own[m])
        before += group.blocks
    return np.array(plan, np.int64), np.array(encodings, np.float32).reshape(-1, config.dim)


def _rotary(context: int, head: int, theta: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine and sine of ``position * theta^(-2i / head)``, as ``attention.rotary_angles`` has them in float32."""
    frequencies = np.float32(theta) ** (-np.arange(0, head, 2, dtype=np.float32) / np.float32(head))
    angles = np.arange(context, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)
