"""The analytic counts against the real model, torch's FLOP counter, autograd and the cache."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from models import random_tokens
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from frailt.model.cache import Cache
from frailt.model.config import ModelConfig
from frailt.model.counts import activation_bytes, count
from frailt.model.frailt import FraiLT

configs = pytest.mark.parametrize(
    "config",
    [
        ModelConfig(**{"dim": 32, "heads": 4, "vocab_size": 48, "context": 24, **options})
        for options in (
            {"shape": "1"},
            {"shape": "3"},
            {"shape": "1^1"},
            {"shape": "1^4", "kv_heads": 2},
            {"shape": "2^3", "dim": 64, "heads": 2, "tied": False},
            {"shape": "(2)^3", "dim": 64, "heads": 2, "kv_heads": 1, "encoding": "none"},
            {"shape": "1+(2)^2+1^3", "encoding": "sinusoidal", "hidden_dim": 20},
            {"shape": "1+(2)^2+1^3", "tied": False, "multiple_of": 16, "vocab_size": 31, "context": 17},
        )
    ],
    ids=lambda config: config.shape,
)


@configs
def test_parameters(config: ModelConfig) -> None:
    counts, model = count(config), FraiLT(config)
    assert counts.parameters == sum(p.numel() for p in model.parameters())
    assert counts.weight_bytes == sum(p.nbytes for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        # stories260K, and the model of about its size that the paper's idea gives.
        ({"shape": "5", "dim": 64, "kv_heads": 4}, 260_032),
        ({"shape": "1^8", "dim": 128, "kv_heads": 4}, 248_192),
    ],
)
def test_parameters_of_known_models(options: dict[str, Any], parameters: int) -> None:
    assert count(ModelConfig(**options)).parameters == parameters


def flops(config: ModelConfig, iterations: tuple[int, ...] | None = None) -> int:
    with torch.device("meta"):
        model = FraiLT(config)
        tokens = torch.zeros(2, config.context, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(tokens, iterations=iterations)
    return counter.get_total_flops()


@configs
def test_flops(config: ModelConfig) -> None:
    assert count(config).flops * 2 * config.context == flops(config)


def test_counts_with_other_passes() -> None:
    config = ModelConfig(shape="1+(2)^2+1^3", dim=32, heads=4, vocab_size=48, context=24)
    own, other = count(config), count(config, iterations=(1, 5, 1))
    assert other.parameters == own.parameters
    assert other.flops * 2 * config.context == flops(config, (1, 5, 1))
    assert other.cache_bytes * config.depth == own.cache_bytes * (1 + 2 * 5 + 1)
    assert count(config, iterations=(1, 2, 3)) == own


@configs
def test_cache_bytes(config: ModelConfig) -> None:
    model, cache = FraiLT(config), Cache(config.context)
    model(random_tokens(1, config.context, vocab_size=config.vocab_size), cache)
    assert count(config).cache_bytes == cache.bytes()


def kept_bytes(model: FraiLT, loss: Callable[[], Tensor]) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass of ``loss``, parameters aside."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        result = loss()
    assert result.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("time", [None, 9])
@configs
def test_activation_bytes(config: ModelConfig, time: int | None) -> None:
    model = FraiLT(config)
    tokens = random_tokens(3, time or config.context, vocab_size=config.vocab_size)

    def loss() -> Tensor:
        # Targets in the memory of the tokens, so that they are counted once.
        return F.cross_entropy(model(tokens).logits.flatten(0, 1), tokens.flatten())

    assert activation_bytes(config, batch=3, time=time) == kept_bytes(model, loss)
