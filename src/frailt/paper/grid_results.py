"""What has been measured of a grid: the complete runs of its protocol, whatever command trained them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.evaluation.loss import Loss
from frailt.model.counts import Counts, count
from frailt.model.shape import Shape
from frailt.paper.grid import GridConfig
from frailt.studies.comparison import model_name
from frailt.studies.gap import gap_closed, stories_loss
from frailt.studies.workers import is_complete
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRun:
    """A complete run of one model with one seed."""

    config: TrainConfig
    loss: Loss
    stories: np.ndarray
    """Nats of each validation story."""
    curve: list[tuple[int, float]]
    """Training tokens and validation loss along the run."""
    provenance: dict[str, Any]
    """Versions, commit and machine that trained it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """How far a model goes from the shallow to the deep standard model."""

    value: float | None
    """``None`` where the deep model is not clearly better than the shallow one."""
    interval: tuple[float, float] | None
    """95%, over validation stories."""


class GridResults:
    """The measured cells of a grid.

    Args:
        grid: the protocol; its widths, shapes and seeds do not limit what is found.
        corpus: the data; runs on other data are not counted.
        out: the grid's folder.
    """

    def __init__(self, grid: GridConfig, corpus: Corpus, out: Path) -> None:
        self.grid = grid
        self.data: dict[str, Any] = {"name": corpus.folder.name, **corpus.manifest.as_json()}
        self.cells: dict[tuple[int, str], dict[int, CellRun]] = {}
        """Runs by width and model, then by seed."""
        for run in _complete(grid, corpus, out):
            model = run.config.model
            self.cells.setdefault((model.dim, model_name(model)), {})[run.config.seed] = run
        if not self.cells:
            raise InputError(f"{out} holds no complete run of this protocol and data; train some first")

    @property
    def tokens(self) -> int:
        """Training tokens of each model."""
        return self.grid.base.steps * self.grid.base.tokens_per_step

    @property
    def widths(self) -> list[int]:
        """Widths of which anything was measured."""
        return sorted({dim for dim, _ in self.cells})

    def losses(self) -> dict[int, dict[str, float]]:
        """Nats per token by width and model, means over seeds: the form of the paper's tables."""
        table: dict[int, dict[str, float]] = {dim: {} for dim in self.widths}
        for (dim, name), runs in self.cells.items():
            table[dim][name] = mean(run.loss.nats_per_token for run in runs.values())
        return table

    def seeds(self, dim: int, name: str) -> dict[int, CellRun]:
        """The runs of a cell by seed, in order; empty where it was not run."""
        return dict(sorted(self.cells.get((dim, name), {}).items()))

    def counts(self, dim: int, name: str) -> Counts:
        """What a measured model costs."""
        return count(next(iter(self.cells[dim, name].values())).config.model)

    def gap(self, dim: int, name: str) -> Gap | None:
        """Gap closed over the seeds that the three models have in common.

        ``None`` for standard models, and where a twin was not run.
        """
        shape = Shape.parse(name.partition(":")[0])
        three = [self.seeds(dim, model) for model in (str(shape.blocks), name, str(shape.depth))]
        common = set.intersection(*(set(runs) for runs in three))
        if shape.standard or not common:
            return None
        shallow, own, deep = (np.mean([runs[seed].stories for seed in common], axis=0) for runs in three)
        value, interval = gap_closed(shallow, own, deep)
        return Gap(value=value, interval=interval)

    def all_runs(self) -> Iterator[tuple[str, CellRun]]:
        """Every run with its model's name, by width, model in the order of the grid, and seed."""
        order = {name: place for place, name in enumerate(self.grid.shapes)}
        for dim, name in sorted(self.cells, key=lambda key: (key[0], order.get(key[1], len(order)), key[1])):
            for run in self.seeds(dim, name).values():
                yield name, run


def _complete(grid: GridConfig, corpus: Corpus, out: Path) -> Iterator[CellRun]:
    for path in sorted((out / "runs").glob("*/run.json")):
        folder = RunFolder(path.parent)
        record = folder.record()
        if not (all(record["data"].get(side) == digest for side, digest in corpus.digest.items())):
            continue
        config = folder.config()
        if not (grid.owns(config) and is_complete(folder.path)):
            continue
        stories = np.load(folder.path / "story_nats.npy", allow_pickle=False)
        yield CellRun(
            config=config,
            loss=stories_loss(stories, corpus),
            stories=stories,
            curve=[(m["tokens"], m["valid_loss"]) for m in folder.metrics() if "valid_loss" in m],
            provenance={
                "precision": folder.precision,
                **{key: value for key, value in record.items() if key not in ("config", "data")},
            },
        )
