"""Models on disk and torch's models: saving, loading, copying weights. The files themselves: ``stored.py``."""

from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from frailt.files import write_bytes, write_json
from frailt.model.frailt import FraiLT
from frailt.model.stored import BFLOAT16, FORMAT, check_shapes, read_model


def save_model(model: FraiLT, folder: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write ``model.safetensors`` and ``config.json``, each atomically. A tied head is stored once.

    ``weights`` are given where ``model`` does not hold them whole: then it is spread over several processes.
    """
    write_json(folder / "config.json", {"format": FORMAT, **asdict(model.config)})
    weights = stored_weights(model) if weights is None else weights
    # Through memory: safetensors reports a full disk as another kind of error.
    write_bytes(folder / "model.safetensors", safetensors.torch.save(weights))


def load_model(path: Path) -> FraiLT:
    """Read a saved model, a run folder, or a llama2.c ``.bin`` checkpoint. Nothing is unpickled.

    Raises:
        InputError: there is no model at ``path``, or it is damaged.
    """
    config, arrays = read_model(path)
    model = FraiLT(config)
    weights = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(array.copy())
        weights[name] = tensor.view(torch.bfloat16) if array.dtype == BFLOAT16 else tensor
    put_weights(model, weights, str(path))
    return model.eval()


def stored_weights(model: FraiLT) -> dict[str, Tensor]:
    """The parameters by name, each once."""
    return {name: p.detach().contiguous() for name, p in model.named_parameters()}


def put_weights(model: FraiLT, weights: dict[str, Tensor], source: str) -> None:
    """Copy weights into a model.

    Raises:
        InputError: a name or a size does not fit.
    """
    own = dict(model.named_parameters())
    check_shapes({n: tuple(p.shape) for n, p in own.items()}, {n: tuple(t.shape) for n, t in weights.items()}, source)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
