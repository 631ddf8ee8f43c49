"""Models on disk and torch's models: saving, loading, copying weights. The files themselves: ``stored.py``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from frailt.files import write_bytes, write_json
from frailt.model.frailt import Encoding, FraiLT
from frailt.model.stored import FORMAT, as_float32, read_model
from frailt.model.weights import check_shapes


def save_model(model: FraiLT, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write ``model.safetensors`` and ``config.json``, each atomically. A tied head is stored once.

    ``weights`` are given where ``model`` does not hold them whole: then it is sharded over several processes.
    """
    write_json(folder / "config.json", {"format": FORMAT, **asdict(model.config)})
    weights = stored_weights(model) if weights is None else weights
    # Through memory: safetensors reports a full disk as another kind of error.
    write_bytes(folder / "model.safetensors", safetensors.torch.save(weights))


def load_model(path: Path) -> FraiLT:
    """Read a saved model, a run folder, or a llama2.c ``.bin`` checkpoint. Nothing is unpickled.

    Raises:
        InputError: there is no model at ``path``, or it is damaged.
        OSError: a file cannot be read.
    """
    config, arrays = read_model(path)
    with torch.device("meta"), _Undrawn():  # No memory, and no random numbers, for what the file replaces.
        model = FraiLT(config)
    for name, array in arrays.items():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.Parameter(torch.from_numpy(as_float32(array))))
    if config.tied:
        model.head.weight = model.embedding.weight
    for module in model.modules():
        if isinstance(module, Encoding):
            module.make_constants()
    return model.eval()


class _Undrawn(TorchFunctionMode):
    """A context in which ``torch.nn.init`` does nothing. On the meta device it would import torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def stored_weights(model: FraiLT) -> dict[str, Tensor]:
    """The parameters by name, each once."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters()}


def put_weights(model: FraiLT, weights: dict[str, Tensor], source: str) -> None:
    """Copy weights into a model.

    Raises:
        InputError: a name or a shape does not fit.
    """
    check_shapes(model.config, {name: tuple(tensor.shape) for name, tensor in weights.items()}, source)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
