"""Optimizer and learning rate."""

import math

import torch

from frailt.model.frailt import FraiLT
from frailt.model.weights import weights
from frailt.training.config import OptimizerConfig


def make_optimizer(model: FraiLT, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW in two groups, with weight decay and without; ``model.weights`` says which tensor is which."""
    table = weights(model.config)
    decayed = [p for name, p in model.named_parameters() if table[name].decays]
    kept = [p for name, p in model.named_parameters() if not table[name].decays]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,
    )


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The rate of step ``step`` of ``steps``, from 0: linear warm-up, then half a cosine that ends at 0."""
    warmup = config.warmup * steps
    if step < warmup:
        return config.lr * (step + 1) / (math.ceil(warmup) + 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
