"""Optimizers and the learning rate's schedule."""

import math
from collections import defaultdict

import torch
from torch import nn

from frailt.model.frailt import FraiLT
from frailt.model.weights import weights
from frailt.training.config import OptimizerConfig

STATE: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.Muon: ("momentum_buffer",),
}
"""What an optimizer keeps of each parameter: a scalar count of steps, and tensors of the parameter's shape."""


def make_optimizers(model: FraiLT, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """One optimizer, or two: Muon for the matrices inside blocks, AdamW for all else.

    Which tensors decay is said by ``model.weights``. Muon moves a matrix by a step of equal size in every direction
    (its momentum, orthogonalised), so the rows and columns of one matrix must not be split: embedding, head, norms and
    encodings are tables of vectors, and stay with AdamW.
    """
    table, looped = weights(model.config), [group.iterations > 1 for group in model.config.groups]
    # First what decays, then the rest, also where neither does: the first versions numbered their saved state so.
    parts: dict[bool, dict[tuple[bool, float], list[nn.Parameter]]] = {
        muon: defaultdict(list) for muon in (False, True)
    }
    for name, parameter in model.named_parameters():
        where = name.split(".")
        matrix = where[0] == "groups" and table[name].decays
        decay = config.weight_decay if table[name].decays else 0.0
        if matrix and looped[int(where[1])]:
            decay *= config.looped_decay
        parts[matrix and config.optimizer == "muon"][table[name].decays, decay].append(parameter)
    adamw, muon = ([{"params": p, "weight_decay": decay} for (_, decay), p in part.items()] for part in parts.values())
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)
    ]
    if muon:
        optimizers.append(torch.optim.Muon(muon, lr=config.muon_lr, momentum=config.momentum))
    return optimizers


def set_rates(optimizers: list[torch.optim.Optimizer], step: int, steps: int, config: OptimizerConfig) -> None:
    """Give every optimizer its rate for ``step`` of ``steps``: one schedule, two peaks."""
    for optimizer in optimizers:
        peak = config.muon_lr if isinstance(optimizer, torch.optim.Muon) else config.lr
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, config, peak)


def learning_rate(step: int, steps: int, config: OptimizerConfig, peak: float) -> float:
    """The rate of step ``step`` of ``steps``, from 0: linear warm-up to ``peak``, then the schedule's way to 0."""
    warmup = config.warmup * steps
    if step < warmup:
        return peak * (step + 1) / (math.ceil(warmup) + 1)
    if config.schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
    falling = steps - warmup if config.schedule == "linear" else config.cooldown * steps
    return peak * min(1.0, (steps - step) / falling)
