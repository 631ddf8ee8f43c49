"""Iteration encodings: how a block learns which pass it is in.

The paper adds a learned vector for each block and pass to the block's input. A kind of encoding is a class here: a
function of that input and of the pass number m from 1, which also says whether it amounts to adding a vector (what the
compiled decoder and the exports can do), and what happens past the M passes that it was built for.

A new kind: a class, and its name in ``EncodingKind`` and ``ENCODINGS``. The rules need no torch: they are applied to
torch's tensors in training and to NumPy's arrays elsewhere, by ``xp``, the library of the two that is in use.
"""

import math
from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from frailt.model.shape import GroupShape

EncodingKind = Literal["learned", "sinusoidal", "none"]
"""Kinds by the name that configs use. ``none``: passes are not told apart, however many there are."""

INITIAL_STD = 0.02
"""Root mean square of fresh encodings, that of the token embeddings they are added to."""


class IterationEncoding(ABC):
    """The rule E_l^iter of one block.

    Args:
        iterations: M, the passes that the block is trained with.
        dim: width of the model.
    """

    def __init__(self, iterations: int, dim: int) -> None:
        self.iterations = iterations
        self.dim = dim

    def learned(self) -> dict[str, tuple[tuple[int, ...], float]]:
        """Shape and initial standard deviation of each learned tensor, by name. They have no weight decay."""
        return {}

    def fixed(self, xp: Any) -> dict[str, Any]:
        """Constants by name, as arrays of ``xp``."""
        return {}

    @abstractmethod
    def apply(self, x: Any, m: int, tensors: Any, xp: Any) -> Any:
        """The block's input, told that this is pass ``m``: ``(batch, time, dim)`` from the same.

        ``tensors`` has the learned and the fixed tensors as attributes.
        """

    def vector(self, m: int, tensors: Any, xp: Any) -> Any | None:
        """E(m), shape ``(dim,)``, if ``apply`` does no more than add it. Else ``None``: then torch alone runs it."""
        return None


class AddedVector(IterationEncoding):
    """A kind that adds a vector, as the paper's does."""

    @abstractmethod
    def vector(self, m: int, tensors: Any, xp: Any) -> Any: ...

    def apply(self, x: Any, m: int, tensors: Any, xp: Any) -> Any:
        return x + self.vector(m, tensors, xp)


class LearnedEncoding(AddedVector):
    """A table of M learned vectors, started at N(0, 0.02), without weight decay. This is the paper's kind.

    Past M: the last vector is repeated, so a block that is passed more often than in training is told that it
    is in its last pass.
    """

    def learned(self) -> dict[str, tuple[tuple[int, ...], float]]:
        return {"table": ((self.iterations, self.dim), INITIAL_STD)}

    def vector(self, m: int, tensors: Any, xp: Any) -> Any:
        return tensors.table[min(m, self.iterations) - 1]


class SinusoidalEncoding(AddedVector):
    """Fixed sines and cosines of the pass number, as positions have in "Attention Is All You Need".

    ``E(m)[2i] = a sin(m / 10000^(2i/dim))`` and ``E(m)[2i+1] = a cos(...)``, with ``a`` such that the root mean
    square is 0.02, the size at which a learned encoding starts.

    Past M: the formula goes on.
    """

    def fixed(self, xp: Any) -> dict[str, Any]:
        return {"frequencies": 10000.0 ** (-xp.arange(0, self.dim, 2) / self.dim)}

    def vector(self, m: int, tensors: Any, xp: Any) -> Any:
        angles = m * tensors.frequencies
        return INITIAL_STD * math.sqrt(2) * xp.stack((xp.sin(angles), xp.cos(angles)), -1).reshape(-1)


ENCODINGS: dict[EncodingKind, type[IterationEncoding] | None] = {
    "learned": LearnedEncoding,
    "sinusoidal": SinusoidalEncoding,
    "none": None,
}


def encoding_of(kind: EncodingKind, group: GroupShape, dim: int) -> IterationEncoding | None:
    """The encoding that each block of a group has; ``None`` where passes are not told apart."""
    rule = ENCODINGS[kind] if group.encoded else None
    return rule(group.iterations, dim) if rule is not None else None


def encoding_vector(
    encoding: IterationEncoding, m: int, learned: dict[str, NDArray[np.float32]]
) -> NDArray[np.float32] | None:
    """E(m) in NumPy, shape ``(dim,)`` in float32; ``None`` where the encoding is more than an added vector."""
    vector = encoding.vector(m, SimpleNamespace(**encoding.fixed(np), **learned), np)
    return None if vector is None else np.asarray(vector, np.float32)
