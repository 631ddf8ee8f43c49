"""Means with the interval that another choice of texts could have given."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
"""Draws of each bootstrap."""
WEIGHTS = 1 << 22
"""Weights that are in memory at once: 32 MiB of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A mean and its 95% interval."""

    value: float
    interval: tuple[float, float] | None
    """None where there are fewer than two groups to draw from."""
    count: int | None
    """Values that it is the mean of; None where that is not known."""

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"


def mean(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Mean | None:
    """The mean of values, and its percentiles 2.5 and 97.5 when groups are drawn anew with replacement.

    Args:
        values: what is averaged; None comes back where there are none.
        groups: what each value belongs to, such as its beginning: values of one group are not independent. Unset:
            each value is a group of its own.
    """
    if not len(values):
        return None
    numbers = np.asarray(values, float)
    if groups is None:
        inverse = np.arange(len(numbers))
    else:
        places = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        inverse = np.array([places[group] for group in groups])
    sums, counts = np.bincount(inverse, numbers), np.bincount(inverse)
    draws = resample(len(sums), lambda weights: (weights @ sums) / (weights @ counts))
    return Mean(value=float(numbers.mean()), interval=draws if len(sums) > 1 else None, count=len(numbers))


def resample(
    sizes: int | tuple[int, ...], statistic: Callable[..., np.ndarray], *, missing: float = 0.05
) -> tuple[float, float] | None:
    """Percentiles 2.5 and 97.5 of a statistic over draws of things with replacement: a bootstrap.

    Args:
        sizes: how many things there are; several numbers where things of several kinds are drawn independently, such
            as stories and seeds.
        statistic: from weights of shape ``(draws, size)`` for each kind, how often each thing was drawn, to a value
            for each draw; NaN where a draw has none.
        missing: share of the draws that may have no value.

    Returns:
        The interval; None where more than that have none.
    """
    random = np.random.default_rng(0)
    kinds = (sizes,) if isinstance(sizes, int) else sizes
    block = max(1, WEIGHTS // max(kinds))
    values = []
    for start in range(0, RESAMPLES, block):
        draws = min(block, RESAMPLES - start)
        weights = [random.multinomial(size, np.full(size, 1 / size), draws).astype(float) for size in kinds]
        values.append(statistic(*weights))
    drawn = np.concatenate(values)
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < (1 - missing) * RESAMPLES:
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
