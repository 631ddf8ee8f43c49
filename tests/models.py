"""Small models for tests."""

from typing import Any

import torch

from frailt.model.config import ModelConfig
from frailt.model.frailt import FraiLT
from frailt.model.stored import StoredModel


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
