"""Runs that differ in chosen settings, and what came of each choice: rates, batches, shapes, in every combination."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

from frailt.data.corpus import Corpus
from frailt.device import choose_device
from frailt.errors import InputError, excerpt
from frailt.figures import new_figure, save_figure
from frailt.files import write_json, write_text
from frailt.reports import Markdown, markdown_table, render
from frailt.studies.cells import (
    CompleteRun,
    Settings,
    StudyData,
    cell_folder,
    record_file,
    settings_of,
    with_settings,
)
from frailt.studies.workers import failure
from frailt.training.config import TrainConfig
from frailt.training.provenance import provenance
from frailt.training.run_folder import INCIDENTAL


def combinations(base: TrainConfig, axes: Mapping[str, Sequence[Any]]) -> list[TrainConfig]:
    """A run for each combination of values, the last axis varying fastest.

    Raises:
        InputError: a combination is refused.
    """
    runs: list[TrainConfig] = []
    for values in product(*axes.values()):
        words = " ".join(f"{name}={value}" for name, value in zip(axes, values, strict=True))
        runs.append(with_settings(base, dict(zip(axes, values, strict=True)), f"run {excerpt(words)!r}"))
    return runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One combination of settings, over its seeds."""

    settings: Settings
    """The values of the axes, seed left out."""
    losses: dict[str, float]
    """Validation loss by seed (as text, as JSON has it), nats per token, of the runs that are complete."""
    bits_per_byte: dict[str, float]
    failed: dict[str, str]
    """Reasons by seed."""

    @property
    def loss(self) -> float | None:
        """The mean over the seeds; ``None`` where no run is complete."""
        return mean(self.losses.values()) if self.losses else None


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepResult:
    """What ``sweep.json`` holds."""

    base: TrainConfig
    """What all runs share. Its values of the axes are not used."""
    axes: dict[str, list[Any]]
    points: list[Point]
    data: StudyData
    provenance: dict[str, Any]

    @property
    def best(self) -> Point | None:
        """The lowest mean loss among the points that have all their seeds."""
        whole = [point for point in self.points if not point.failed and len(point.losses) == self.seeds]
        return min(whole, key=lambda point: point.loss or 0.0, default=None)

    @property
    def seeds(self) -> int:
        """Runs of each point."""
        return len(self.axes.get("seed", [0]))


def read_points(base: TrainConfig, axes: Mapping[str, Sequence[Any]], corpus: Corpus, out: Path) -> list[Point]:
    """What is known of every combination, from the records in ``out/cells``.

    Raises:
        InputError: nothing is.
    """
    points: dict[str, Point] = {}
    for config in combinations(base, axes):
        values = settings_of(config)
        settings = {name: values[name] for name in axes if name != "seed"}
        point = points.setdefault(
            json.dumps(settings), Point(settings=settings, losses={}, bits_per_byte={}, failed={})
        )
        folder, seed = cell_folder(config, corpus, out), str(config.seed)
        if record_file(folder).is_file():  # Before a failure that a later try has made good.
            try:
                loss = CompleteRun.read(record_file(folder)).loss
            except InputError as error:
                point.failed[seed] = str(error)
                continue
            point.losses[seed] = loss.nats_per_token
            point.bits_per_byte[seed] = loss.bits_per_byte
        elif (reason := failure(folder)) is not None:
            point.failed[seed] = reason
    if not any(point.losses or point.failed for point in points.values()):
        raise InputError(f"{out} holds no complete run of this sweep; train some first")
    return list(points.values())


def write_sweep(base: TrainConfig, axes: Mapping[str, Sequence[Any]], corpus: Corpus, out: Path) -> list[Path]:
    """Write ``sweep.json``, ``sweep.md`` and ``sweep.png`` to ``out``; their paths."""
    result = SweepResult(
        base=base,
        axes={name: list(values) for name, values in axes.items()},
        points=read_points(base, axes, corpus, out),
        data=StudyData.of(corpus),
        provenance=provenance(choose_device(base.device)),
    )
    json_file, table = out / "sweep.json", out / "sweep.md"
    (out / "sweep.png").unlink(missing_ok=True)  # Where these axes have no picture, an earlier one would mislead.
    write_json(json_file, dataclasses.asdict(result))
    write_text(table, markdown(result))
    return [table, json_file, *draw_sweep(result, out / "sweep.png")]


def markdown(result: SweepResult) -> Markdown:
    """The table, best first, and what a reader must know beside it."""
    varied = [name for name in result.axes if name != "seed"]
    ranked = sorted(result.points, key=lambda point: (point.loss is None, point.loss))
    table = markdown_table(
        (*varied, "loss", "bits/byte", *(["seeds"] if result.seeds > 1 else [])),
        [
            (
                *(f"{value:g}" if isinstance(value, float) else value for value in point.settings.values()),
                "failed" if point.loss is None and point.failed else "" if point.loss is None else f"{point.loss:.4f}",
                f"{mean(point.bits_per_byte.values()):.4f}" if point.losses else "",
                *([", ".join(f"{loss:.3f}" for loss in point.losses.values())] if result.seeds > 1 else []),
            )
            for point in ranked
        ],
    )
    return render("frailt.studies", "sweep.md", table=table, result=result, base=result.base, fixed=_fixed(result))


def _fixed(result: SweepResult) -> Settings:
    """Settings that are no axis and not at their defaults, for the caption."""
    usual = settings_of(TrainConfig())
    return {
        name: value
        for name, value in settings_of(result.base).items()
        if name not in result.axes and name not in INCIDENTAL and value != usual[name]
    }


def draw_sweep(result: SweepResult, path: Path) -> list[Path]:
    """Loss against the first axis of numbers, a line for each combination of the others; the paths of the picture.

    Without an axis of several numbers nothing is drawn. Bars show the lowest and highest of several seeds.
    """
    numeric = (
        name
        for name, values in result.axes.items()
        if name != "seed" and len(values) > 1 and all(type(value) in (int, float) for value in values)
    )
    axis = next(numeric, None)
    if axis is None:
        return []
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for point in result.points:
        others = ", ".join(f"{name} {value}" for name, value in point.settings.items() if name != axis)
        if point.loss is not None:
            least, most = min(point.losses.values()), max(point.losses.values())
            bar = (point.settings[axis], point.loss, point.loss - least, most - point.loss)
            lines.setdefault(others, []).append(bar)
    figure = new_figure(6.5, 4.2)
    axes = figure.subplots()
    for name, bars in lines.items():
        x, loss, below, above = zip(*bars, strict=True)
        axes.errorbar(x, loss, yerr=(below, above), label=name, marker="o", markersize=4, linewidth=1.2, capsize=3)
    values = result.axes[axis]
    if min(values) > 0 and max(values) >= 4 * min(values):
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    axes.set(xlabel=axis, ylabel="validation loss (nats per token)")
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend(fontsize=8)
    return save_figure(figure, path)
