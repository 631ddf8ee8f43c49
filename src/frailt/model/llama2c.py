"""llama2.c's checkpoints as models of this package. Needs no torch."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frailt.errors import InputError
from frailt.model.config import ModelConfig
from frailt.model.weights import llama_block

HEADER = struct.Struct("<7i")


def read_llama2c(path: Path) -> tuple[ModelConfig, dict[str, NDArray[Any]]]:
    """Read a llama2.c checkpoint (its first format, float32) as a standard model.

    The file is seven int32 (dim, hidden_dim, layers, heads, kv_heads, vocabulary, negative where the head is not
    tied, and context) and then every tensor, all layers of one kind together.

    Raises:
        InputError: the file is no such checkpoint or has another length than its header says.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(HEADER.size)
    if len(start) < HEADER.size:
        raise InputError(f"{path} is too short to be a llama2.c checkpoint; fetch it again")
    dim, hidden, layers, heads, kv_heads, vocab, context = header = HEADER.unpack(start)
    try:
        config = ModelConfig(
            shape=str(layers),
            dim=dim,
            heads=heads,
            kv_heads=kv_heads,
            hidden_dim=hidden,
            vocab_size=abs(vocab),
            context=context,
            tied=vocab > 0,
        )
    except InputError as error:
        raise InputError(f"{path} is not a llama2.c checkpoint: its header reads {header}, and {error}") from None
    head_dim, block = dim // heads, llama_block(config)
    sizes = {
        "embedding.weight": (config.vocab_size, dim),
        **{name: (layers, *weight.shape) for name, weight in block.items()},
        "norm.weight": (dim,),
        "rotary tables": (2, context, head_dim // 2),
        **({} if config.tied else {"head.weight": (config.vocab_size, dim)}),
    }
    expected = HEADER.size + 4 * sum(map(math.prod, sizes.values()))
    if (length := path.stat().st_size) != expected:
        raise InputError(f"{path} has {length} bytes where its header asks for {expected}; fetch it again")
    tensors: dict[str, NDArray[Any]] = {}
    offset = HEADER.size
    for name, size in sizes.items():
        array = np.fromfile(path, "<f4", math.prod(size), offset=offset).reshape(size)
        offset += array.nbytes
        if name in ("attention.wq.weight", "attention.wk.weight"):
            array = halves_from_neighbours(array, head_dim)
        if name in block:
            tensors |= {f"groups.0.blocks.{i}.{name}": array[i] for i in range(layers)}
        else:
            tensors[name] = array
    del tensors["rotary tables"]
    return config, tensors


def halves_from_neighbours(weight: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Reorder the rows of wq or wk from rotary pairs (0,1), (2,3), ... to pairs half a head apart."""
    pairs = weight.reshape(-1, head_dim // 2, 2, weight.shape[-1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def neighbours_from_halves(weight: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """The inverse of ``halves_from_neighbours``, for programs that turn neighbours (llama2.c, llama.cpp)."""
    pairs = weight.reshape(-1, 2, head_dim // 2, weight.shape[-1])
    return pairs.swapaxes(1, 2).reshape(weight.shape)
