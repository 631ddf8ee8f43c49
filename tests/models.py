"""Small models for tests, and a text and a tokenizer for them."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from frailt.data.tokenizer import Tokenizer
from frailt.inference.cpu.packing import Weights, as_int8
from frailt.inference.sampling import Sampling
from frailt.inference.torch_decoder import TorchStoryteller
from frailt.model import attention
from frailt.model.attention import attend
from frailt.model.config import ModelConfig
from frailt.model.frailt import FraiLT
from frailt.model.stored import StoredModel

TEXT = """Lily and Ben went to the park. They saw a big red ball, and they played with it all day.
Then the sun went down, and they went home. One day Tim had a big toy. He was so happy. The end."""
TOKENIZER = Tokenizer.train([TEXT], vocab_size=300)
PROMPTS = ["Lily and", "", "They saw a big red ball, and they", "One day", "é"]
GREEDY = Sampling(temperature=0, max_tokens=12)


def tiny(shape: str = "1^2", *, seed: int = 0, double: bool = False, **options: Any) -> FraiLT:
    """A model of width 16 with two heads, a vocabulary of 40 and a context of 32, unless ``options`` say otherwise.

    Its weights are larger than a fresh model's, and its norms and encodings are not trivial, so that a mistake
    anywhere moves the logits. ``double``: in float64.
    """
    config = ModelConfig(**{"shape": shape, "dim": 16, "heads": 2, "vocab_size": 40, "context": 32, **options})
    model = FraiLT(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * noise if parameter.ndim == 1 else 0.25 * noise)
    return (model.double() if double else model).eval()


def random_tokens(*shape: int, seed: int = 0, vocab_size: int = 40) -> torch.Tensor:
    """Token ids below ``vocab_size``."""
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def stored(model: FraiLT) -> StoredModel:
    """A model as its files would have it."""
    return StoredModel(model.config, {name: p.detach().numpy() for name, p in model.named_parameters()})


def round_as(model: FraiLT, kind: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a model in torch round what the decoder rounds: matrices, not encodings, and with int8 keys and values."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ".encoding." not in name:
            parameter.data = torch.from_numpy(rounded(parameter.detach().numpy(), kind))
    if kind == "int8":
        monkeypatch.setattr(
            attention, "attend", lambda q, k, v, mask: attend(q, k.bfloat16().to(q), v.bfloat16().to(q), mask)
        )


def rounded(matrix: NDArray[np.float32], kind: Weights) -> NDArray[np.float32]:
    """A matrix as weights of this kind keep it."""
    if kind == "int8":
        whole, scales = as_int8(matrix)
        return whole * scales[:, None]
    return torch.from_numpy(matrix).bfloat16().float().numpy() if kind == "bfloat16" else matrix


def teller(shape: str = "1^2", *, context: int = 64, **options: Any) -> TorchStoryteller:
    """A small model in float64 with the tokenizer."""
    model = tiny(shape, vocab_size=TOKENIZER.vocab_size, context=context, double=True, **options)
    return TorchStoryteller(model, TOKENIZER)
