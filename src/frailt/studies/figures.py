"""Figures of comparisons."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from frailt.files import replacing
from frailt.studies.comparison import Comparison
from frailt.training.run_folder import RunFolder


def draw_comparison(result: Comparison, runs: dict[str, RunFolder], path: Path) -> None:
    """Two panels as PNG: validation loss against training tokens, and final loss against parameters.

    Args:
        result: the comparison.
        runs: one of each model, for its curve.
        path: where to write.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    curves, sizes = figure.subplots(1, 2)
    for row in result.rows:
        standard = "^" not in row.name
        style = {"linestyle": "--" if standard else "-", "marker": "s" if standard else "o", "markersize": 4}
        points = [(m["tokens"] / 1e6, m["valid_loss"]) for m in runs[row.name].metrics() if "valid_loss" in m]
        (line,) = curves.plot(*zip(*points, strict=True), label=row.name, linewidth=1.2, **style)
        sizes.plot(row.counts.parameters, row.loss, color=line.get_color(), linestyle="", marker=style["marker"])
        sizes.annotate(row.name, (row.counts.parameters, row.loss), xytext=(6, 4), textcoords="offset points")
    curves.set(xlabel="training tokens (millions)", ylabel="validation loss (nats per token)")
    curves.legend(title="shape (dashed: standard)", fontsize=8, title_fontsize=8)
    sizes.set(xscale="log", xlabel="parameters", ylabel="final validation loss (nats per token)")
    sizes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    sizes.xaxis.set_major_formatter(EngFormatter(sep=""))
    sizes.xaxis.set_minor_formatter(NullFormatter())
    sizes.margins(0.15)
    for axes in (curves, sizes):
        axes.grid(alpha=0.3, which="both")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
