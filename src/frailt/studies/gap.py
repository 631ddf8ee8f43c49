"""Gap closed: how much of the way from a shallow to a deep standard model a FraiLT model goes, and how sure that is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from frailt.statistics import resample

CLOSE = 0.02
"""Losses that differ by less than this share count as equal: the paper says "catch up" of 1.6% and 1.7%."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """A gap closed."""

    value: float | None
    """(shallow - this) / (shallow - deep) in mean loss over ``seeds``; ``None`` where deep is not better."""
    interval: tuple[float, ...] | None
    """95% interval over validation stories and, where there are several, over seeds; ``None`` where deep is no better
    than shallow in some draw."""
    seeds: tuple[int, ...]
    """Those that all three models were run with."""
    chance: bool
    """Whether deep and shallow differ by no more than chance makes of one model: then ``value`` means nothing."""

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.chance:
            return "chance"
        interval = "" if self.interval is None else f" [{', '.join(f'{100 * end:.0f}' for end in self.interval)}]"
        return f"{self.value:.0%}{interval}{', 1 seed' if len(self.seeds) == 1 else ''}"


def gap_closed(
    shallow: Mapping[int, np.ndarray],
    model: Mapping[int, np.ndarray],
    deep: Mapping[int, np.ndarray],
    *,
    spread: float | None,
) -> Gap | None:
    """The gap that a model closes between its standard twins; ``None`` where the three have no seed in common.

    Args:
        shallow, model, deep: nats of each validation story by seed.
        spread: nats over all stories by which seeds of one model differ (``seed_spread``). Unset where that was not
            measured: then ``CLOSE`` of the loss stands for it.
    """
    seeds = tuple(sorted(shallow.keys() & model.keys() & deep.keys()))
    if not seeds:
        return None
    low, loss, high = (np.stack([runs[seed] for seed in seeds]) for runs in (shallow, model, deep))
    closed, whole = low - loss, low - high
    if whole.sum() <= 0:
        return Gap(value=None, interval=None, seeds=seeds, chance=True)

    def ratios(stories: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        # The models share their tokens, so the mean loss's denominator cancels.
        top, bottom = (np.einsum("ws,ws->w", drawn, stories @ part.T) for part in (closed, whole))
        return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0)

    interval = resample((low.shape[1], len(seeds)), ratios, missing=0)
    least = CLOSE * low.sum() / len(seeds) if spread is None else spread
    chance = interval is None or whole.sum() / len(seeds) <= least
    return Gap(value=float(closed.sum() / whole.sum()), interval=interval, seeds=seeds, chance=bool(chance))


def seed_spread(models: Iterable[Iterable[float]]) -> float | None:
    """The most by which runs of one model with different seeds differ; ``None`` where no model has several.

    Args:
        models: for each model, its losses, one for each seed.
    """
    ranges = [max(losses) - min(losses) for losses in map(list, models) if len(losses) > 1]
    return max(ranges, default=None)


CHANCE = (
    "A cell says chance where the deep model is better than the shallow one by no more than seeds of one model differ "
    f"(by less than {CLOSE:.0%}, where every model was run with one seed), since a share of so small a difference says "
    "nothing. It says 1 seed where another seed may give another share. A dash: the deep model is not better."
)
"""The rule, for captions."""
