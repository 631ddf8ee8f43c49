"""Optimizer and learning rate."""

import math

import torch
from torch import nn

from frailt.model.encodings import IterationEncoding
from frailt.training.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW in two groups: weight matrices decay; norms and iteration encodings do not.

    An encoding is an offset, like a bias, though it is stored as a matrix.
    """
    encodings = {
        id(p) for m in model.modules() if isinstance(m, IterationEncoding) for p in m.parameters(recurse=False)
    }
    decayed = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in encodings]
    kept = [p for p in model.parameters() if p.ndim < 2 or id(p) in encodings]
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
