"""The loss curve of a run."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from frailt.files import replacing


def draw_losses(metrics: list[dict[str, Any]], path: Path, *, title: str) -> None:
    """Training and validation loss against tokens, both axes logarithmic, as PNG."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("valid_loss", "validation", "o-")):
        points = [(m["tokens"], m[key]) for m in metrics if key in m]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="loss (nats per token)", title=title)
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.yaxis.set_minor_formatter("{x:.1f}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
