"""Figures 6 and 7: grades against validation loss, the paper's and ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from frailt.evaluation.judge.grading import METRICS
from frailt.figures import new_figure, save_figure
from frailt.paper.grades import KINDS, GradedModel
from frailt.paper.power_law import MOST_LOSS, PowerLaw, fitted, power_law

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MARKERS: dict[str, str] = dict(zip(KINDS, "so", strict=True))
_PAPER, _OURS = "tab:gray", "tab:blue"


def draw_figure_6(ours: Sequence[GradedModel], paper: Sequence[GradedModel], path: Path) -> None:
    """Average grade against loss, both axes logarithmic, as PNG."""
    figure = new_figure(6.4, 4.6)
    axes = figure.subplots()
    _panel(axes, ours, paper, "average")
    axes.set(xlabel="validation loss (nats per token)", ylabel="average grade (1 to 10)")
    axes.legend(handles=_legend(ours), fontsize=8, loc="lower left")
    save_figure(figure, path)


def draw_figure_7(ours: Sequence[GradedModel], paper: Sequence[GradedModel], path: Path) -> None:
    """The same for each metric."""
    figure = new_figure(9, 7)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, metric in zip(panels.flat, METRICS, strict=True):
        _panel(axes, ours, paper, metric)
        axes.set_title(metric)
    for axes in panels[1]:
        axes.set_xlabel("validation loss (nats per token)")
    for axes in panels[:, 0]:
        axes.set_ylabel("grade (1 to 10)")
    figure.legend(handles=_legend(ours), fontsize=8, loc="outside upper center", ncols=5)
    save_figure(figure, path)


def _panel(axes: "Axes", ours: Sequence[GradedModel], paper: Sequence[GradedModel], metric: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set(xscale="log", yscale="log")
    for models, colour, alpha in ((paper, _PAPER, 0.6), (ours, _OURS, 1.0)):
        _points(axes, models, metric, colour, alpha)
        law = power_law(models, metric)
        if law is not None:
            _law(axes, law, models, colour)
    shown = [model.loss for model in (*ours, *paper) if model.loss is not None and model.grades]
    axes.set_xlim(min(shown) * 0.93, max(shown) * 1.07)
    axes.set_ylim(0.9, 10.5)
    axes.axvline(MOST_LOSS, color="black", linewidth=0.8, linestyle=":")
    axes.xaxis.set_major_locator(FixedLocator([0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0]))
    axes.yaxis.set_major_locator(FixedLocator(range(1, 11)))
    for axis, text in ((axes.xaxis, "{x:g}"), (axes.yaxis, "{x:.0f}")):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(text)
    axes.grid(alpha=0.3)


def _points(axes: "Axes", models: Sequence[GradedModel], metric: str, colour: str, alpha: float) -> None:
    graded = [(model.kind, model.loss, model.grades[metric]) for model in models if model.loss and model.grades]
    for kind, marker in _MARKERS.items():
        for is_fitted in (True, False):
            points = [(x, grade.value) for k, x, grade in graded if (k, x <= MOST_LOSS) == (kind, is_fitted)]
            colours = {"markeredgecolor": colour, "markerfacecolor": colour if is_fitted else "none", "alpha": alpha}
            if points:
                axes.plot(*zip(*points, strict=True), linestyle="", marker=marker, markersize=5, **colours)
    for _, loss, grade in graded:
        if grade.interval is not None:
            axes.vlines(loss, *grade.interval, color=colour, linewidth=0.8, alpha=0.5)


def _law(axes: "Axes", law: PowerLaw, models: Sequence[GradedModel], colour: str) -> None:
    ends = np.array([min(model.loss or MOST_LOSS for model in fitted(models)), MOST_LOSS])
    axes.plot(ends, law.factor * ends**law.exponent, color=colour, linewidth=1.2)
    axes.annotate(
        rf"{law.factor:.2f} $\cdot$ loss$^{{{law.exponent:.2f}}}$" + f"\nR² {law.r2:.2f}, n = {law.n}",
        xy=(0.97, 0.97 if colour == _PAPER else 0.83),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=8,
        color=colour,
    )


def _legend(ours: Sequence[GradedModel]) -> "list[Line2D]":
    from matplotlib.lines import Line2D

    sides = [("the paper", _PAPER), *([("ours", _OURS)] if ours else [])]
    handles = [
        Line2D([], [], linestyle="", marker=_MARKERS[kind], color=colour, label=f"{kind}, {whose}")
        for whose, colour in sides
        for kind in KINDS
    ]
    hollow = Line2D([], [], linestyle="", marker="o", color="black", markerfacecolor="none")
    hollow.set_label("hollow: loss above 1.0, not fitted")
    return [*handles, hollow]
