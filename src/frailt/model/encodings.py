"""Iteration encodings: how a block learns which pass it is in.

The paper uses a learned vector for each block and pass, added to the block's input. A kind of encoding is a
class here: given a pass number m from 1, it returns a vector of the model's width, and it states what it does
past the number of passes M that it was built for. Its learned tensors stand in ``config.weight_shapes`` too, and
``encoding_vectors.py`` has the same rules without torch, for the fast decoder and for exports.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from frailt.model.config import EncodingKind
from frailt.model.operations import INITIAL_STD


class IterationEncoding(nn.Module, ABC):
    """E_l^iter of one block: a vector for each pass.

    Args:
        iterations: M, the passes that the block is trained with.
        dim: width of the model.
    """

    def __init__(self, iterations: int, dim: int) -> None:
        super().__init__()
        self.iterations = iterations
        self.dim = dim

    def reset(self) -> None:
        """Draw what is learned afresh, for a model that starts training. Fixed kinds have nothing to draw."""

    @abstractmethod
    def forward(self, m: int) -> Float[Tensor, " dim"]:
        """E(m) for pass ``m``, counted from 1."""


class LearnedEncoding(IterationEncoding):
    """A table of M learned vectors, started at N(0, 0.02), without weight decay. This is the paper's kind.

    Past M: the last vector is repeated, so a block that is passed more often than in training is told that it
    is in its last pass.
    """

    def __init__(self, iterations: int, dim: int) -> None:
        super().__init__(iterations, dim)
        self.table = nn.Parameter(torch.zeros(iterations, dim))

    def reset(self) -> None:
        nn.init.normal_(self.table, std=INITIAL_STD)

    def forward(self, m: int) -> Float[Tensor, " dim"]:
        return self.table[min(m, self.iterations) - 1]


class SinusoidalEncoding(IterationEncoding):
    """Fixed sines and cosines of the pass number, as positions have in "Attention Is All You Need".

    ``E(m)[2i] = a sin(m / 10000^(2i/dim))`` and ``E(m)[2i+1] = a cos(...)``, with ``a`` such that the root mean
    square is 0.02, the size at which a learned encoding starts.

    Past M: the formula goes on.
    """

    def __init__(self, iterations: int, dim: int) -> None:
        super().__init__(iterations, dim)
        frequencies = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, m: int) -> Float[Tensor, " dim"]:
        angles = m * self.get_buffer("frequencies")
        return INITIAL_STD * math.sqrt(2) * torch.stack((angles.sin(), angles.cos()), dim=-1).flatten()


ENCODINGS: dict[EncodingKind, type[IterationEncoding] | None] = {
    "learned": LearnedEncoding,
    "sinusoidal": SinusoidalEncoding,
    "none": None,
}
"""Kinds by the name that configs use. ``none``: passes are not told apart, however many there are."""
