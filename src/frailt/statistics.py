"""Means with the interval that another choice of texts could have given."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Mean:
    """A mean and its 95% interval."""

    value: float
    interval: tuple[float, float] | None
    """None where there are fewer than two groups to draw from."""
    count: int

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


def resample(size: int, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float] | None:
    """Percentiles 2.5 and 97.5 of a statistic over draws of ``size`` things with replacement.

    Args:
        size: how many things there are.
        statistic: from weights of shape ``(draws, size)``, how often each thing was drawn, to a value for each draw;
            NaN where a draw has none.

    Returns:
        The interval; None where more than a twentieth of the draws have no value.
    """
    weights = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), RESAMPLES).astype(float)
    found = statistic(weights)
    found = found[~np.isnan(found)]
    if len(found) < 0.95 * RESAMPLES:
        return None
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
