"""The paper's Figures 4 and 5, redrawn for the models that were run: its losses beside ours."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from frailt.files import replacing
from frailt.model.shape import Shape
from frailt.paper.grid_results import GridResults
from frailt.paper.published import LOSSES

FIGURES = {"figure-4": ("1", "1^2", "1^8", "2", "2^4"), "figure-5": ("4", "4^2", "8")}
"""The models of each figure: one and two blocks, four and eight."""
COLOURS = {"1": "#0072b2", "2": "#d55e00", "4": "#009e73", "8": "#555555"}
"""By the number of stored blocks: colours that people with any colour vision can tell apart."""
MARKERS = {1: "s", 2: "v", 4: "o", 8: "D"}
"""By passes."""
ENDINGS = ("png", "pdf")


def shown(losses: Mapping[int, Mapping[str, float]]) -> dict[str, tuple[str, ...]]:
    """The figures that have something to show, each with those of its models that were run."""
    ran = {name for row in losses.values() for name in row}
    own = {figure: tuple(name for name in models if name in ran) for figure, models in FIGURES.items()}
    return {figure: models for figure, models in own.items() if models}


def draw_figures(results: GridResults, out: Path, *, caption: str) -> list[Path]:
    """Write what there is of Figures 4 and 5 as PNG and PDF, and remove those of an earlier report that is outdated."""
    paths, losses = [], results.losses()
    for name in FIGURES.keys() - shown(losses):
        for ending in ENDINGS:
            (out / f"{name}.{ending}").unlink(missing_ok=True)
    for name, models in shown(losses).items():
        figure = Figure(figsize=(9, 4), layout="constrained")
        left, right = figure.subplots(1, 2, sharex=True)
        _draw(left, LOSSES, models, title="the paper")
        _draw(right, losses, models, title="here")
        right.legend(title="blocks ^ passes", fontsize=8, title_fontsize=8)
        figure.supxlabel(f"embedding dimension\n{caption}", fontsize=9)
        for ending in ENDINGS:
            path = out / f"{name}.{ending}"
            with replacing(path) as temporary:
                figure.savefig(temporary, format=ending, dpi=150)
            paths.append(path)
    return paths


def _draw(axes: Axes, losses: Mapping[int, Mapping[str, float]], models: tuple[str, ...], *, title: str) -> None:
    for model in models:
        shape = Shape.parse(model)
        points = [(dim, row[model]) for dim, row in sorted(losses.items()) if model in row]
        axes.plot(
            [dim for dim, _ in points],
            [loss for _, loss in points],
            label=model if shape.standard else f"{model} (FraiLT)",
            color=COLOURS[str(shape.blocks)],
            linestyle="--" if shape.standard else "-",
            marker=MARKERS[shape.groups[0].iterations],
            markersize=5,
            linewidth=1.3,
        )
    axes.set(xscale="log", ylabel="validation loss (nats per token)", title=title)
    axes.xaxis.set_major_locator(FixedLocator(sorted(LOSSES.keys() | losses.keys())))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.grid(alpha=0.3)
