"""Models on disk as NumPy sees them: ``config.json`` beside ``model.safetensors``. Needs no torch.

What holds tensors of torch is in ``checkpoint.py``; llama2.c's files are read in ``llama2c.py``.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from frailt.configs import from_json
from frailt.errors import InputError, excerpt
from frailt.files import naming, read_json
from frailt.model.config import ModelConfig
from frailt.model.llama2c import read_llama2c
from frailt.model.weights import check_shapes

FORMAT = "frailt-1"
BFLOAT16 = np.dtype(np.uint16)
"""NumPy has no bfloat16: its 16 bits, the upper half of a float32, are read as an integer."""
_TYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": BFLOAT16}


class StoredModel(NamedTuple):
    """A model as its files have it."""

    config: ModelConfig
    weights: dict[str, NDArray[Any]]
    """By the names and shapes of ``weights.weights``; floats, or bfloat16 as ``BFLOAT16``."""


def read_model(path: Path) -> StoredModel:
    """Read a saved model, a run folder, or a llama2.c ``.bin`` checkpoint. Nothing is unpickled.

    Raises:
        InputError: there is no model at ``path``, or it is damaged.
        OSError: a file cannot be read.
    """
    if path.is_file() and path.suffix == ".bin":
        return StoredModel(*read_llama2c(path))
    file = path / "model.safetensors"
    if not file.is_file():
        raise InputError(f"{path} holds no model; give a run folder, a saved model's folder or a llama2.c .bin file")
    config = read_config(path)
    return StoredModel(config, _read_safetensors(file, config))


def read_config(folder: Path) -> ModelConfig:
    """Read the ``config.json`` of a saved model.

    Raises:
        InputError: it is missing or damaged, or of another program.
        OSError: it cannot be read.
    """
    path = folder / "config.json"
    stored = read_json(path)
    if stored.pop("format", None) != FORMAT:
        raise InputError(f"{path} is not of format {FORMAT}; was it written by another program?")
    return from_json(ModelConfig, stored, str(path))


def _read_safetensors(path: Path, config: ModelConfig) -> dict[str, NDArray[Any]]:
    """The tensors of a file, each read once, straight into its array, after all of them have been checked."""
    with naming(path), path.open("rb") as file:
        if file.read(24) == b"version https://git-lfs.":
            raise InputError(f"{path} is a Git LFS pointer, not the weights themselves; fetch them with: git lfs pull")
    try:
        with naming(path), safe_open(path, "numpy") as tensors:  # Checks types, offsets, and the file's length.
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (it is no dictionary)
            types = {name: part.get_dtype() for name, part in slices.items()}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read: {excerpt(str(error))}; restore it or save it again") from None
    check_shapes(config, shapes, str(path))
    for name, kind in types.items():
        if kind not in _TYPES:
            raise InputError(f"{path}: {name} is of type {kind}; weights must be floating point numbers")
    # safe_open itself gives no bfloat16 to NumPy.
    with naming(path), path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        arrays = {}
        for name, shape in shapes.items():
            offset = 8 + length + header[name]["data_offsets"][0]
            arrays[name] = np.fromfile(path, _TYPES[types[name]], math.prod(shape), offset=offset).reshape(shape)
    return arrays


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Weights of any stored type in float32; bfloat16 and float16 lose nothing."""
    if array.dtype == BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)
