"""Models on disk as NumPy sees them: safetensors beside a ``config.json``, and llama2.c's checkpoints. Needs no torch.

What holds tensors of torch is in ``checkpoint.py``.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from frailt.configs import from_json
from frailt.errors import InputError
from frailt.files import read_json
from frailt.model.config import ModelConfig, weight_shapes

FORMAT = "frailt-1"
BFLOAT16 = np.dtype(np.uint16)
"""NumPy has no bfloat16: its 16 bits, the upper half of a float32, are read as an integer."""
_TYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16}


class StoredModel(NamedTuple):
    """A model as its files have it."""

    config: ModelConfig
    weights: dict[str, NDArray[Any]]
    """By the names and sizes of ``weight_shapes``; floats, or bfloat16 as ``BFLOAT16``."""


def read_model(path: Path) -> StoredModel:
    """Read a saved model, a run folder, or a llama2.c ``.bin`` checkpoint. Nothing is unpickled.

    Raises:
        InputError: there is no model at ``path``, or it is damaged.
    """
    if path.is_file() and path.suffix == ".bin":
        return read_llama2c(path)
    file = path / "model.safetensors"
    if not file.is_file():
        raise InputError(f"{path} holds no model; give a run folder, a saved model's folder or a llama2.c .bin file")
    stored = read_json(path / "config.json")
    if stored.pop("format", None) != FORMAT:
        raise InputError(f"{path / 'config.json'} is not of format {FORMAT}; was it written by another program?")
    config = from_json(ModelConfig, stored, str(path / "config.json"))
    try:
        tensors = deserialize(file.read_bytes())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    weights = {}
    for name, tensor in tensors:
        if tensor["dtype"] not in _TYPES:
            raise InputError(f"{file}: {name} is of type {tensor['dtype']}; weights must be floating point numbers")
        weights[name] = np.frombuffer(tensor["data"], _TYPES[tensor["dtype"]]).reshape(tensor["shape"])
    check_shapes(weight_shapes(config), {name: array.shape for name, array in weights.items()}, str(file))
    return StoredModel(config, weights)


def check_shapes(own: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Hold the tensors of a file against those of a model.

    Raises:
        InputError: a name or a size does not fit.
    """
    if wrong := sorted(own.keys() ^ given.keys()):
        raise InputError(f"{source} does not fit its config: {wrong[0]} is on one side only")
    for name, shape in own.items():
        if tuple(shape) != tuple(given[name]):
            raise InputError(f"{source} does not fit its config: {name} is {list(given[name])}, not {list(shape)}")


def read_llama2c(path: Path) -> StoredModel:
    """Import a llama2.c checkpoint (its first format, float32) as a standard model.

    The file is seven int32 (dim, hidden_dim, layers, heads, kv_heads, vocabulary, negative where the head is not
    tied, and context) and then every tensor, all layers of one kind together.

    Raises:
        InputError: the file is no such checkpoint or has another length than its header says.
    """
    data = path.read_bytes()
    header = struct.unpack("<7i", data[:28]) if len(data) >= 28 else (0,) * 7
    dim, hidden, layers, heads, kv_heads, vocab, context = header
    if min(dim, hidden, layers, heads, kv_heads, abs(vocab), context) < 1 or dim % heads or layers > 1024:
        raise InputError(f"{path} is not a llama2.c checkpoint (its header reads {header})")
    head_dim, kv_dim, vocab_size = dim // heads, dim // heads * kv_heads, abs(vocab)
    sizes: dict[str, tuple[int, ...]] = {
        "embedding.weight": (vocab_size, dim),
        "attention_norm.weight": (layers, dim),
        "attention.wq.weight": (layers, dim, dim),
        "attention.wk.weight": (layers, kv_dim, dim),
        "attention.wv.weight": (layers, kv_dim, dim),
        "attention.wo.weight": (layers, dim, dim),
        "feed_forward_norm.weight": (layers, dim),
        "feed_forward.w1.weight": (layers, hidden, dim),
        "feed_forward.w2.weight": (layers, dim, hidden),
        "feed_forward.w3.weight": (layers, hidden, dim),
        "norm.weight": (dim,),
        "rotary tables": (2, context, head_dim // 2),
    }
    if vocab < 0:
        sizes["head.weight"] = (vocab_size, dim)
    expected = 28 + 4 * sum(int(np.prod(size)) for size in sizes.values())
    if len(data) != expected:
        raise InputError(f"{path} has {len(data)} bytes where its header asks for {expected}; fetch it again")
    config = ModelConfig(
        shape=str(layers),
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        hidden_dim=hidden,
        vocab_size=vocab_size,
        context=context,
        tied=vocab > 0,
    )
    weights: dict[str, NDArray[Any]] = {}
    offset = 28
    for name, size in sizes.items():
        count = int(np.prod(size))
        array = np.frombuffer(data, "<f4", count, offset).reshape(size)
        offset += 4 * count
        if name in ("attention.wq.weight", "attention.wk.weight"):
            array = halves_from_neighbours(array, head_dim)
        if name == "rotary tables":
            continue
        if name in ("embedding.weight", "norm.weight", "head.weight"):
            weights[name] = array
        else:
            weights |= {f"groups.0.blocks.{i}.{name}": array[i] for i in range(layers)}
    return StoredModel(config, weights)


def halves_from_neighbours(weight: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Reorder the rows of wq or wk from rotary pairs (0,1), (2,3), ... to pairs half a head apart."""
    *layers, rows, dim = weight.shape
    pairs = weight.reshape(*layers, rows // head_dim, head_dim // 2, 2, dim)
    return pairs.swapaxes(-3, -2).reshape(weight.shape)


def neighbours_from_halves(weight: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """The inverse of ``halves_from_neighbours``."""
    *layers, rows, dim = weight.shape
    pairs = weight.reshape(*layers, rows // head_dim, 2, head_dim // 2, dim)
    return pairs.swapaxes(-3, -2).reshape(weight.shape)


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Weights of any stored type in float32; bfloat16 and float16 lose nothing."""
    if array.dtype == BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)
