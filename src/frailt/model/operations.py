"""What a model does as data: one list of operations, walked by whatever computes a model without its torch code.

The compiled decoder, the exports and a reference in the tests walk it. Each refuses an operation or a tensor that it
does not know, since leaving it out would give another model without a word. Needs no torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frailt.errors import InputError, excerpt
from frailt.model.config import ModelConfig
from frailt.model.encodings import encoding_of, encoding_vector
from frailt.model.stored import as_float32
from frailt.model.weights import llama_block


@dataclass(frozen=True, slots=True)
class Encode:
    """The signal is told its pass by a block's iteration encoding: X <- X + E_l^iter(m)."""

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
    """What happens to the signal between the embedding and the final norm, in order.

    Args:
        config: of the model.
        passes: through each group, see ``ModelConfig.passes``.
    """
    start = 0
    for group, count in zip(config.groups, passes, strict=True):
        encoded = encoding_of(config.encoding, group, config.dim) is not None
        for m in range(1, count + 1):
            for block in range(start, start + group.blocks):
                if encoded:
                    yield Encode(block, m)
                yield Transform(block, m)
        start += group.blocks


def llama_blocks(
    config: ModelConfig, tensors: Mapping[str, NDArray[Any]], reader: str
) -> tuple[list[dict[str, NDArray[Any]]], list[dict[str, NDArray[np.float32]]]]:
    """The blocks of a model in order, for a program that can compute Llama's blocks and nothing else.

    Args:
        config: of the model.
        tensors: of the whole model.
        reader: the program, for messages.

    Returns:
        Of each block the tensors of ``weights.llama_block``, and those that its iteration encoding has learned.

    Raises:
        InputError: the model has other tensors too; without them ``reader`` would compute something else.
    """
    rest = dict(tensors)
    for name in ("embedding.weight", "norm.weight", "head.weight"):
        rest.pop(name, None)
    blocks, encodings = [], []
    for n, group in enumerate(config.groups):
        for l in range(group.blocks):  # noqa: E741 (the paper's l)
            prefix = f"groups.{n}.blocks.{l}."
            blocks.append({name: rest.pop(prefix + name) for name in llama_block(config)})
            learned = [name for name in rest if name.startswith(f"{prefix}encoding.")]
            encodings.append({name.removeprefix(f"{prefix}encoding."): as_float32(rest.pop(name)) for name in learned})
    for name in rest:
        raise InputError(f"{reader} cannot use the tensor {excerpt(name)}; run this model in torch")
    return blocks, encodings


def unrolled(
    config: ModelConfig, learned: Sequence[dict[str, NDArray[np.float32]]], passes: tuple[int, ...], reader: str
) -> Iterator[tuple[int, NDArray[np.float32] | None]]:
    """The operations for a program that can add a vector before each block: the block, and its vector if any.

    Args:
        config: of the model.
        learned: the encodings' tensors, from ``llama_blocks``.
        passes: through each group.
        reader: the program, for messages.

    Raises:
        InputError: the model does something else too.
    """
    rules = [encoding_of(config.encoding, group, config.dim) for group in config.groups for _ in range(group.blocks)]
    added = None
    for operation in operations(config, passes):
        match operation:
            case Encode(block, m):
                rule = rules[block]
                added = None if rule is None else encoding_vector(rule, m, learned[block])
                if added is None:
                    raise InputError(
                        f"{reader} can add vectors, and {config.encoding} encodings do more; run this model in torch"
                    )
            case Transform(block):
                yield block, added
                added = None
            case _:
                raise InputError(f"{reader} does not know the operation {operation}; run this model in torch")
