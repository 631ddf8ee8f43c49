"""How many passes a training step makes through each group.

A new schedule (a curriculum) is a value of ``TrainConfig.passes`` and a branch here: what a step does follows from
config and step alone, so every rank makes the same passes and a resumed run goes on with them.
"""

import math

import numpy as np

from frailt.training.config import TrainConfig

MOST = 3
"""The cap of the Poisson number, in units of M: each pass keeps its activations, so that without a cap a long run would
meet a step that does not fit into memory."""


def passes_at(config: TrainConfig, step: int) -> tuple[int, ...] | None:
    """Passes through each group in a step, counted from 0; ``None``: as many as the shape says.

    Random passes are 1 + min(Poisson(M - 1), 3 M) for a group of M > 1 passes: from 1 to 3 M + 1. Their mean is M (the
    cap takes away less than a thousandth), so the shape's effective depth is also what a step costs on average.

    Late passes cost a shallow model's time for most of the run, and lose little (arXiv 2511.07384).
    """
    if config.passes == "fixed":
        return None
    if config.passes == "late":
        return (1,) * len(config.model.groups) if step < math.ceil(config.late * config.steps) else None
    random = np.random.default_rng([config.seed, step])
    return tuple(
        1 + min(int(random.poisson(group.iterations - 1)), MOST * group.iterations) if group.iterations > 1 else 1
        for group in config.model.groups
    )


def mean_depth(config: TrainConfig, first: int, end: int) -> float:
    """Mean effective depth of the steps from ``first`` up to, not including, ``end``: what they cost beside others."""
    shallow = min(end, math.ceil(config.late * config.steps)) - first if config.passes == "late" else 0
    share = max(shallow, 0) / (end - first)
    return share * sum(group.blocks for group in config.model.groups) + (1 - share) * config.model.depth
