"""Figures: how all of them are made and saved. What a figure shows stands in the room whose numbers it shows."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from frailt.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty matplotlib ``Figure`` of so many inches, for files alone.

    Figures are drawn without pyplot, so no backend is needed. MPLBACKEND, which notebooks hand on to the programs that
    they start, may name one that is not installed, and then matplotlib could not even be imported.
    """
    imported = "matplotlib" in sys.modules
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        from matplotlib import rcParams
        from matplotlib.figure import Figure
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None and not imported:  # What the user's own plots would have had.
        with suppress(ValueError):
            rcParams["backend"] = backend
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: "Figure", path: Path, *, formats: tuple[str, ...] = ("png",)) -> list[Path]:
    """Write a figure as ``path`` with the ending of each format, atomically; the paths, in this order."""
    paths = [path.with_suffix(f".{ending}") for ending in formats]
    for target in paths:
        with replacing(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=150)
    return paths
