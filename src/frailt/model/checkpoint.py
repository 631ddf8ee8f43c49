"""Models on disk: safetensors beside a ``config.json``, and llama2.c's checkpoints."""

import struct
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from frailt.configs import from_json
from frailt.errors import InputError
from frailt.files import read_json, write_bytes, write_json
from frailt.model.frailt import FraiLT, ModelConfig

FORMAT = "frailt-1"


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
    if path.is_file() and path.suffix == ".bin":
        return load_llama2c(path)
    if not (path / "model.safetensors").is_file():
        raise InputError(f"{path} holds no model; give a run folder, a saved model's folder or a llama2.c .bin file")
    stored = read_json(path / "config.json")
    if stored.pop("format", None) != FORMAT:
        raise InputError(f"{path / 'config.json'} is not of format {FORMAT}; was it written by another program?")
    model = FraiLT(from_json(ModelConfig, stored, str(path / "config.json")))
    try:
        weights = safetensors.torch.load_file(path / "model.safetensors")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path / 'model.safetensors'} cannot be read: {error}") from None
    put_weights(model, weights, str(path / "model.safetensors"))
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
    if wrong := sorted(own.keys() ^ weights.keys()):
        raise InputError(f"{source} does not fit its config: {wrong[0]} is on one side only")
    for name, parameter in own.items():
        if parameter.shape != weights[name].shape:
            raise InputError(
                f"{source} does not fit its config: {name} is {list(weights[name].shape)}, not {list(parameter.shape)}"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])


def load_llama2c(path: Path) -> FraiLT:
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
    weights: dict[str, Tensor] = {}
    offset = 28
    for name, size in sizes.items():
        count = int(np.prod(size))
        tensor = torch.from_numpy(np.frombuffer(data, "<f4", count, offset).reshape(size).copy())
        offset += 4 * count
        if name in ("attention.wq.weight", "attention.wk.weight"):
            tensor = halves_from_neighbours(tensor, head_dim)
        if name == "rotary tables":
            continue
        if name in ("embedding.weight", "norm.weight", "head.weight"):
            weights[name] = tensor
        else:
            weights |= {f"groups.0.blocks.{i}.{name}": tensor[i] for i in range(layers)}
    model = FraiLT(
        ModelConfig(
            shape=str(layers),
            dim=dim,
            heads=heads,
            kv_heads=kv_heads,
            hidden_dim=hidden,
            vocab_size=vocab_size,
            context=context,
            tied=vocab > 0,
        )
    )
    put_weights(model, weights, str(path))
    return model.eval()


def halves_from_neighbours(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows of wq or wk from rotary pairs (0,1), (2,3), ... to pairs half a head apart."""
    *layers, rows, dim = weight.shape
    pairs = weight.reshape(*layers, rows // head_dim, head_dim // 2, 2, dim)
    return pairs.transpose(-3, -2).reshape(weight.shape)
