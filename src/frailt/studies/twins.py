"""Twins: which plain models a FraiLT model is to be measured against."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import gcd

from frailt.errors import InputError
from frailt.model.config import ModelConfig
from frailt.model.counts import Counts, count
from frailt.model.shape import Shape

TOLERANCE = 0.01
"""How far a twin's cost may be from the model's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """A model of a plan."""

    rule: str
    """Why it is there."""
    config: ModelConfig
    counts: Counts


def plan(config: ModelConfig) -> list[Twin]:
    """A FraiLT model and its standard twins.

    ==================  ==============================================================================
    shallow             as many blocks as are stored: what the passes start from
    equal depth         as many blocks as the signal meets, same width: the paper's rule. A pass costs
                        what a block costs, so this is equal in FLOPs too
    equal parameters    as deep as that, but narrower, until the parameters are the same
    equal FLOPs         as shallow as the stored blocks, but wider, until the FLOPs are the same
    ==================  ==============================================================================

    Raises:
        InputError: ``config`` is itself a standard model, or no width fits.
    """
    shape = Shape.parse(config.shape)
    if shape.standard:
        raise InputError(f"shape {shape} is a standard model and has no twins; give one with passes, like 1^8")
    counts = count(config)
    deep, shallow = (replace(config, shape=str(blocks)) for blocks in (shape.depth, shape.blocks))
    narrow = _fit(deep, lambda c: count(c).parameters, counts.parameters)
    wide = _fit(shallow, lambda c: count(c).flops, counts.flops)
    rules = ("the model", "shallow", "equal depth", "equal parameters", "equal FLOPs")
    twins = (config, shallow, deep, narrow, wide)
    return [Twin(rule=rule, config=twin, counts=count(twin)) for rule, twin in zip(rules, twins, strict=True)]


def _fit(config: ModelConfig, cost: Callable[[ModelConfig], int], target: int) -> ModelConfig:
    """Choose the width, then the feed-forward width, so that ``cost`` comes within 1% of ``target``.

    The width moves in steps of an even head width, which alone would miss by several per cent; the feed-forward
    width makes up the rest while staying within a factor of two of its usual 8/3. Where steps of all heads are too
    coarse, as in small models, there are fewer heads.
    """
    most = 64 * config.dim
    for heads in (h for h in range(config.heads, 0, -1) if config.heads % h == 0):
        sizes = range(2 * heads, most, 2 * heads)
        sized = {"heads": heads, "kv_heads": gcd(config.key_value_heads, heads), "hidden_dim": None}
        # Costs grow with the width: only the widths on either side of the target can hold the best fit.
        above = bisect_left(sizes, target, key=lambda d: cost(replace(config, dim=d, **sized)))
        fits: list[ModelConfig] = []
        for dim in sizes[max(above - 1, 0) : above + 1]:
            base = replace(config, dim=dim, **sized)
            usual = base.feed_forward_dim
            per_unit = cost(replace(base, hidden_dim=usual + 1)) - cost(base)
            hidden = usual + round((target - cost(base)) / per_unit)
            fits.append(replace(base, hidden_dim=min(max(hidden, usual // 2), 2 * usual)))
        best = min(fits, key=lambda c: (abs(cost(c) - target), abs(c.feed_forward_dim - 8 * c.dim / 3)))
        if abs(cost(best) - target) <= TOLERANCE * target:
            return best
    raise InputError(
        f"no width from 2 to {most} brings shape {config.shape} within {TOLERANCE:.0%} of the model; "
        "give a wider model or one with fewer passes"
    )
