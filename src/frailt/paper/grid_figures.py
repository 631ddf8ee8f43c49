"""The paper's Figures 4 and 5, redrawn for the models that were run: its losses beside ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from frailt.figures import new_figure, save_figure
from frailt.model.shape import Shape
from frailt.paper.published import LOSSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES = {"figure-4": ("1", "1^2", "1^8", "2", "2^4"), "figure-5": ("4", "4^2", "8")}
"""The models of each figure: one and two blocks, four and eight."""
COLOURS = {1: "#0072b2", 2: "#d55e00", 4: "#009e73", 8: "#555555"}
"""By the number of stored blocks: colours that people with any colour vision can tell apart."""
MARKERS = {1: "s", 2: "v", 4: "o", 8: "D"}
"""By passes."""
ENDINGS = ("png", "pdf")

Table = Mapping[int, Mapping[str, float]]
"""Losses by width and model."""


def shown(losses: Table) -> dict[str, tuple[str, ...]]:
    """The figures that have something to show, each with those of its models that were run."""
    ran = {name for row in losses.values() for name in row}
    drawn = {figure: tuple(name for name in models if name in ran) for figure, models in FIGURES.items()}
    return {figure: models for figure, models in drawn.items() if models}


def draw_figures(losses: Table, out: Path, *, caption: str) -> list[Path]:
    """Write what there is of Figures 4 and 5 as PNG and PDF, and remove those of an earlier report that is outdated."""
    paths: list[Path] = []
    for name in FIGURES.keys() - shown(losses):
        for ending in ENDINGS:
            (out / f"{name}.{ending}").unlink(missing_ok=True)
    for name, models in shown(losses).items():
        figure = new_figure(9, 4)
        left, right = figure.subplots(1, 2)  # Each has the widths of its own points.
        _draw(left, LOSSES, models, title="the paper")
        _draw(right, losses, models, title="here")
        right.legend(title="blocks ^ passes", fontsize=8, title_fontsize=8)
        figure.supxlabel(f"embedding dimension\n{caption}", fontsize=9)
        paths += save_figure(figure, out / name, formats=ENDINGS)
    return paths


def _draw(axes: "Axes", losses: Table, models: tuple[str, ...], *, title: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    for model in models:
        shape = Shape.parse(model)
        points = {dim: row[model] for dim, row in sorted(losses.items()) if model in row}
        axes.plot(
            list(points),
            list(points.values()),
            label=model if shape.standard else f"{model} (FraiLT)",
            color=COLOURS[shape.blocks],
            linestyle="--" if shape.standard else "-",
            marker=MARKERS[shape.groups[0].iterations],
            markersize=5,
            linewidth=1.3,
        )
    axes.set(xscale="log", ylabel="validation loss (nats per token)", title=title)
    axes.xaxis.set_major_locator(FixedLocator(sorted(losses)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.grid(alpha=0.3)
