"""The power law of section 4.2: grades against validation loss on two logarithmic axes.

    grade = factor x loss ^ exponent

is fitted by least squares in log-log space over models with a loss of at most 1.0, as the paper leaves out those above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frailt.evaluation.judge.grading import METRICS
from frailt.paper.grades import KINDS, GradedModel
from frailt.statistics import resample

MOST_LOSS = 1.0
"""The paper excludes "the region with a validation loss greater than 1.0"."""
LEAST_POINTS = 3
"""Two points lie on any power law."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PowerLaw:
    """A fit."""

    n: int
    """Models that it is fitted to."""
    exponent: float
    factor: float
    """The grade at a loss of 1.0."""
    r2: float
    """Share of the variance of log grade that the fit explains."""
    interval: tuple[float, float] | None
    """95% interval of the exponent, over draws of the models with replacement."""

    def __str__(self) -> str:
        interval = "" if self.interval is None else f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"
        return f"exponent {self.exponent:.2f}{interval}, R2 {self.r2:.2f}, n = {self.n}"


def fit(losses: Sequence[float], grades: Sequence[float]) -> PowerLaw | None:
    """Fit grades over losses; None for fewer than 3 points or where all have the same loss."""
    if len(losses) < LEAST_POINTS or len(set(losses)) < 2:
        return None
    x, y = np.log(losses), np.log(grades)
    exponent = float(slopes(x, y, np.ones((1, len(x))))[0])
    height = y.mean() - exponent * x.mean()
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - height - exponent * x) ** 2).sum())
    return PowerLaw(
        n=len(x),
        exponent=exponent,
        factor=float(np.exp(height)),
        r2=1 - left / spread if spread > 0 else 1.0,
        interval=resample(len(x), lambda weights: slopes(x, y, weights)),
    )


def fitted(models: Sequence[GradedModel]) -> list[GradedModel]:
    """Those that a fit looks at."""
    return [m for m in models if m.loss is not None and m.loss <= MOST_LOSS and m.grades and not m.ablated]


def power_law(models: Sequence[GradedModel], metric: str, kind: str = "all") -> PowerLaw | None:
    """The fit of one metric, or of the average, for all models or those of one kind."""
    ours = [model for model in fitted(models) if kind in ("all", model.kind)]
    return fit([model.loss for model in ours if model.loss is not None], [model.grades[metric].value for model in ours])


def power_laws(models: Sequence[GradedModel]) -> dict[str, dict[str, PowerLaw | None]]:
    """Fits of the average and of each metric; for all models, for the standard ones and for FraiLT."""
    return {
        metric: {kind: power_law(models, metric, kind) for kind in ("all", *KINDS)} for metric in ("average", *METRICS)
    }


def slopes(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Slopes of least-squares lines.

    Args:
        x, y: points, of shape ``(points,)``.
        weights: of the points, a row for each line, ``(lines, points)``.

    Returns:
        ``(lines,)``; NaN where all weight is on one x.
    """
    total = np.maximum(weights.sum(1, keepdims=True), 1e-12)
    from_x, from_y = x - weights @ x[:, None] / total, y - weights @ y[:, None] / total
    spread = (weights * from_x**2).sum(1)
    shared = (weights * from_x * from_y).sum(1)
    return np.divide(shared, spread, out=np.full(len(weights), np.nan), where=spread > 1e-12)
