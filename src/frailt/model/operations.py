"""What each kind of iteration encoding says in each pass, as numbers: the rules of ``encodings.py`` without torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frailt.errors import InputError
from frailt.model.config import EncodingKind, ModelConfig

INITIAL_STD = 0.02
"""Standard deviation of fresh encodings, that of the token embeddings they are added to."""


def encoding_vectors(
    kind: EncodingKind, table: NDArray[np.float32] | None, passes: int, dim: int
) -> NDArray[np.float32] | None:
    """E(1) to E(passes) of one block, float32 of shape ``(passes, dim)``; ``None`` where passes are not told apart.

    Args:
        kind: of the model.
        table: the block's learned vectors, shape ``(M, dim)``; ``None`` where it has none.
        passes: how many, which may be more than M: a table then repeats its last vector, a formula goes on.
        dim: width of the model.
    """
    m = np.arange(1, passes + 1)
    if kind == "learned":
        return None if table is None else table[np.minimum(m, len(table)) - 1]
    if kind == "sinusoidal":
        return sinusoids(m, dim)
    return None


def sinusoids(m: NDArray[np.int64], dim: int) -> NDArray[np.float32]:
    """``a sin(m / 10000^(2i/dim))`` at 2i and the cosine at 2i + 1, with ``a`` for a root mean square of 0.02."""
    angles = m[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
    waves = np.stack((np.sin(angles), np.cos(angles)), axis=-1).reshape(len(m), -1)
    return (INITIAL_STD * 2**0.5 * waves).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Encode:
    """The iteration encoding of a block is applied to the signal: X <- X + E_l^iter(m)."""

    block: int
    """Counted through all groups, from 0."""
    m: int
    """The pass, from 1."""


@dataclass(frozen=True, slots=True)
class Transform:
    """The signal goes through a block: X <- B_l(X)."""

    block: int
    m: int


Operation = Encode | Transform


def operations(config: ModelConfig, passes: tuple[int, ...]) -> Iterator[Operation]:
    """What happens to the signal between embedding and final norm, in order.

    Whatever computes a model without its torch code (the compiled decoder, exports, a test's reference) walks this
    list, and refuses an operation that it does not know.

    Args:
        config: of the model.
        passes: through each group.
    """
    before = 0
    for group, count in zip(config.groups, passes, strict=True):
        for m in range(1, count + 1):
            for block in range(before, before + group.blocks):
                if group.encoded and config.encoding != "none":
                    yield Encode(block, m)
                yield Transform(block, m)
        before += group.blocks


def unrolled(
    config: ModelConfig, tables: Sequence[NDArray[np.float32] | None], passes: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.float32] | None]]:
    """The operations as blocks that add a vector first: for each step of the depth the block, and its vector if any.

    Args:
        config: of the model.
        tables: of each block, see ``encoding_vectors``.
        passes: through each group.

    Raises:
        InputError: the model does something else too.
    """
    vector = None
    for operation in operations(config, passes):
        match operation:
            case Encode(block, m):
                vectors = encoding_vectors(config.encoding, tables[block], m, config.dim)
                vector = None if vectors is None else vectors[m - 1]
            case Transform(block, _):
                yield block, vector
                vector = None
            case _:
                raise InputError(f"a model with the operation {operation} can be run by torch only")
