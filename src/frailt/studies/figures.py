"""Figures of comparisons."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from frailt.figures import new_figure, save_figure
from frailt.model.shape import Shape
from frailt.studies.comparison import Comparison


def draw_comparison(result: Comparison, curves: Mapping[str, Sequence[tuple[float, ...]]], path: Path) -> None:
    """Two panels as PNG: validation loss against training tokens, and final loss against parameters.

    Args:
        result: the comparison.
        curves: training tokens and validation loss along a run of each model, by the name of its row.
        path: where to write.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    figure = new_figure(10, 4.2)
    left, sizes = figure.subplots(1, 2)
    for row in result.rows:
        standard = Shape.parse(row.shape).standard
        style = {"linestyle": "--" if standard else "-", "marker": "s" if standard else "o", "markersize": 4}
        tokens, losses = zip(*curves[row.name], strict=True)
        (line,) = left.plot([count / 1e6 for count in tokens], losses, label=row.name, linewidth=1.2, **style)
        sizes.plot(row.counts.parameters, row.loss, color=line.get_color(), linestyle="", marker=style["marker"])
        sizes.annotate(row.name, (row.counts.parameters, row.loss), xytext=(6, 4), textcoords="offset points")
    left.set(xlabel="training tokens (millions)", ylabel="validation loss (nats per token)")
    left.legend(title="shape (dashed: standard)", fontsize=8, title_fontsize=8)
    sizes.set(xscale="log", xlabel="parameters", ylabel="final validation loss (nats per token)")
    sizes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    sizes.xaxis.set_major_formatter(EngFormatter(sep=""))
    sizes.xaxis.set_minor_formatter(NullFormatter())
    sizes.margins(0.15)
    for axes in (left, sizes):
        axes.grid(alpha=0.3, which="both")
    save_figure(figure, path)
