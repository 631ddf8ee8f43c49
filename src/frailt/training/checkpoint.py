"""``resume.pt``: what a run needs to go on, bit for bit. And the model that a run may begin from.

What the saved file says is believed only as far as this run's own model and optimizer can check it: names, shapes,
types and the number of steps.
"""

import errno
import io
import pickle
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from frailt.errors import InputError
from frailt.files import sha256, write_bytes
from frailt.model.checkpoint import load_model, stored_weights
from frailt.model.config import ModelConfig
from frailt.model.weights import weights
from frailt.training.device import is_out_of_memory
from frailt.training.optimizers import STATE


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A run between two steps. If a model will carry something from one step to the next, its place is here."""

    step: int
    """Steps done."""
    model: dict[str, Tensor]
    """Parameters by name, each once."""
    optimizer: dict[str, dict[str, Tensor]]
    """By the parameters' names: what its optimizer keeps of each (``optimizers.STATE``)."""
    losses: Tensor
    """Training losses of the steps since the last metrics line, float32."""


def write_state(path: Path, state: State) -> None:
    """Store a state, atomically."""
    # Through memory: torch reports a full disk as another kind of error.
    data = io.BytesIO()
    torch.save({name: getattr(state, name) for name in State.__slots__}, data)
    write_bytes(path, data.getbuffer())


def read_state(path: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int) -> State:
    """Read a state of a run of ``steps`` steps, and hold it against the model and optimizers that it is meant for.

    Raises:
        InputError: it cannot be read, or does not belong to them.
    """
    parameters = dict(model.named_parameters())
    with _readable(path):
        stored = _load(path)
        step = _step(stored, steps)
        weights = _mapping(stored["model"], parameters.keys())
        moments = stored["optimizer"]
        if moments.keys() == {"state", "param_groups"}:
            numbered = dict(enumerate(parameter_order(model, optimizers[0])))  # As the first versions stored it.
            moments = {numbered[n]: of for n, of in _mapping(moments["state"], numbered).items()}
        moments = _mapping(moments, parameters.keys())
        for name, parameter in parameters.items():
            _check(weights[name], parameter.shape, parameter.dtype)
        for optimizer in optimizers:
            for name in parameter_order(model, optimizer):
                for key, value in _mapping(moments[name], STATE[type(optimizer)]).items():
                    _check(value, () if key == "step" else parameters[name].shape, torch.float32)
                    if key == "step" and value.item() != step:
                        raise ValueError("steps of the optimizer")
                    if key == "exp_avg_sq" and bool((value < 0).any()):
                        raise ValueError("a negative square")
        losses: Tensor = stored.get("losses", torch.empty(0))
        _check(losses, (len(losses),), torch.float32)
        if len(losses) > step:
            raise ValueError("more losses than steps")
    return State(step=step, model=weights, optimizer=moments, losses=losses)


def saved_step(path: Path, steps: int) -> int:
    """The step of a stored state, of a run of ``steps``; 0 where there is none.

    Raises:
        InputError: it cannot be read.
    """
    if not path.is_file():
        return 0
    with _readable(path):  # Mapped: the weights stay on the disk.
        return _step(_load(path, mmap=True), steps)


def _load(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise zipfile.BadZipFile("packed")  # It could be much larger than its file; torch.save packs nothing.
        if not mmap and (damaged := archive.testzip()):  # torch does not look at the checksums.
            raise zipfile.BadZipFile(damaged)
    stored = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    if not isinstance(stored, dict) or not {"step", "model", "optimizer"} <= stored.keys() <= set(State.__slots__):
        raise ValueError("keys")
    return stored


def _step(stored: dict[str, Any], steps: int) -> int:
    step = stored["step"]
    if type(step) is not int or not 0 < step <= steps:
        raise ValueError("step")
    return step


def _mapping(value: Any, names: Collection[Any]) -> dict[Any, Any]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError("names")
    return value


def _check(tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    # A sparse tensor or one without memory has a shape, too.
    if type(tensor) is not Tensor or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError("kind of tensor")
    if tensor.shape != shape or tensor.dtype != dtype or not bool(tensor.isfinite().all()):
        raise ValueError("shape, type or numbers of a tensor")


def parameter_order(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """The parameters' names in the order of the optimizer's groups, in which torch numbers their state."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of reading the saved state ``path`` into one InputError: torch's unpickler raises many kinds."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        struct.error,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        ArithmeticError,
        EOFError,
        OSError,
    ) as error:
        # A damaged archive sends its reader to places before the file's start, which the system calls invalid.
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno != errno.EINVAL):
            raise
        raise InputError(
            f"{path} is damaged ({type(error).__name__}); delete it to train this run from its start"
        ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The saved model that a run began from."""

    path: str
    """Where it was."""
    sha256: str
    """Hash of the file with its weights."""

    @classmethod
    def of(cls, path: Path) -> "Start":
        """The model at ``path``, a folder or a file.

        Raises:
            InputError: there is none.
        """
        file = path / "model.safetensors" if path.is_dir() else path
        if not file.is_file():
            raise InputError(f"{path} holds no model to begin from; say with --start where it is")
        return cls(path=str(path), sha256=sha256(file))


def read_start(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Read the model at ``path`` as the first weights of a model of ``config``.

    Raises:
        InputError: there is no model, or its tensors are not those of ``config`` by name and shape.
    """
    model = load_model(path)
    ours, theirs = ({name: weight.shape for name, weight in weights(c).items()} for c in (config, model.config))
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{path} does not fit this run's model: {name} is {_size(theirs, name)} there and {_size(ours, name)} "
                "here; give its shape and sizes (`frailt info` shows them)"
            )
    return stored_weights(model)


def _size(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return " x ".join(map(str, shapes[name])) if name in shapes else "missing"
