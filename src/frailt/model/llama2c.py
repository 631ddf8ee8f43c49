"""llama2.c's checkpoints as models of this package. Needs no torch."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frailt.errors import InputError
from frailt.model.config import ModelConfig

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
    head_dim = dim // heads
    sizes = {
        "embedding.weight": (config.vocab_size, dim),
        "attention_norm.weight": (layers, dim),
        "attention.wq.weight": (layers, dim, dim),
        "attention.wk.weight": (layers, kv_heads * head_dim, dim),
        "attention.wv.weight": (layers, kv_heads * head_dim, dim),
        "attention.wo.weight": (layers, dim, dim),
        "feed_forward_norm.weight": (layers, dim),
        "feed_forward.w1.weight": (layers, hidden, dim),
        "feed_forward.w2.weight": (layers, dim, hidden),
        "feed_forward.w3.weight": (layers, hidden, dim),
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
        count = math.prod(size)
        if name != "rotary tables":
            array = np.fromfile(path, "<f4", count, offset=offset).reshape(size)
            if name in ("attention.wq.weight", "attention.wk.weight"):
                array = halves_from_neighbours(array, head_dim)
            if name in ("embedding.weight", "norm.weight", "head.weight"):
                tensors[name] = array
            else:
                tensors |= {f"groups.0.blocks.{i}.{name}": array[i] for i in range(layers)}
        offset += 4 * count
    return config, tensors


def halves_from_neighbours(weight: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Reorder the rows of wq or wk from rotary pairs (0,1), (2,3), ... to pairs half a head apart."""
    *layers, rows, dim = weight.shape
    pairs = weight.reshape(*layers, rows // head_dim, head_dim // 2, 2, dim)
    return pairs.swapaxes(-3, -2).reshape(weight.shape)


def neighbours_from_halves(weight: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """The inverse of ``halves_from_neighbours``, for programs that turn neighbours (llama2.c, llama.cpp)."""
    *layers, rows, dim = weight.shape
    pairs = weight.reshape(*layers, rows // head_dim, 2, head_dim // 2, dim)
    return pairs.swapaxes(-3, -2).reshape(weight.shape)
