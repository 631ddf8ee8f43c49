"""What each kind of iteration encoding says in each pass, as numbers: the rules of ``encodings.py`` without torch."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

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


def unrolled(
    config: ModelConfig, tables: Sequence[NDArray[np.float32] | None], passes: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.float32] | None]]:
    """The signal's way through the model: for each step of the depth the block, and the encoding that it adds first.

    Args:
        config: of the model; blocks are counted through all groups.
        tables: of each block, see ``encoding_vectors``.
        passes: through each group.
    """
    before = 0
    for group, count in zip(config.groups, passes, strict=True):
        own = range(before, before + group.blocks)
        vectors = {
            block: encoding_vectors(config.encoding, tables[block], count, config.dim) if group.encoded else None
            for block in own
        }
        for m in range(count):
            for block in own:
                vector = vectors[block]
                yield block, None if vector is None else vector[m]
        before += group.blocks
