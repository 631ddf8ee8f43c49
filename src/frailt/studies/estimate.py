"""What a grid will cost on this machine, before it starts: time from a short measured probe, memory by counting."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.files import read_json, write_json
from frailt.model.counts import activation_bytes, count
from frailt.paper.grid import Cell, GridConfig
from frailt.studies.compare import measure_speeds
from frailt.studies.workers import threads_at
from frailt.training.config import TrainConfig
from frailt.training.trainer import VALIDATION

STATE_BYTES = 16
"""Bytes for each parameter while it trains: weight, gradient and AdamW's two means, in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds of training for a token at one width: a pass costs what a block costs, so two numbers are enough."""

    first: float
    """With one block."""
    block: float
    """For each block or pass more."""

    def seconds(self, config: TrainConfig, valid_tokens: int, *, done: int = 0) -> float:
        """What is left of a run after ``done`` steps, validations counted as ``trainer.VALIDATION`` says."""
        some = min(config.eval_tokens, valid_tokens)
        # All validation tokens are read twice at the end: for the run's loss, and story by story.
        validated = (config.evaluations - 1) * some * (1 - done / config.steps) + 2 * valid_tokens
        tokens = (config.steps - done) * config.tokens_per_step + validated * VALIDATION
        return tokens * (self.first + (config.model.depth - 1) * self.block)


def probe(grid: GridConfig, widths: Sequence[int], corpus: Corpus, *, jobs: Mapping[int, int]) -> dict[int, Speed]:
    """Measure one and two plain blocks at each width, for a few steps in turn, and say so on stderr.

    Args:
        grid: the protocol.
        widths: those to measure.
        corpus: text to train on.
        jobs: runs at once at each width, which share this machine's threads.
    """
    if widths:
        print("measuring how fast this machine trains (some seconds)", file=sys.stderr, flush=True)
    before = torch.get_num_threads()
    speeds = {}
    try:
        for dim in widths:
            torch.set_num_threads(threads_at(jobs[dim]))
            models = [replace(grid.base.model, dim=dim, shape=shape) for shape in ("1", "2")]
            one, two = measure_speeds([replace(grid.base, model=model) for model in models], corpus, rounds=2)
            speeds[dim] = Speed(first=1 / one, block=max(1 / two - 1 / one, 0))
    finally:
        torch.set_num_threads(before)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return speeds


def plan_seconds(
    cells: Mapping[Cell, int], speeds: Mapping[int, Speed], corpus: Corpus, *, jobs: Mapping[int, int]
) -> float:
    """Time for cells of which several run at once, width by width: at least that of the longest.

    Args:
        cells: what is to be trained, each with the steps that are done.
        speeds: by width.
        corpus: the data.
        jobs: cells at once, by width.
    """
    total = 0.0
    for dim in {cell.dim for cell in cells}:
        each = [
            speeds[dim].seconds(cell.config, len(corpus.valid), done=done)
            for cell, done in cells.items()
            if cell.dim == dim
        ]
        total += max(max(each), sum(each) / min(jobs[dim], len(each)))
    return total


def budget_of_minutes(
    grid: GridConfig, corpus: Corpus, out: Path, *, minutes: float, jobs: Mapping[int, int], keep: bool
) -> GridConfig:
    """The grid with the equal token budget at which all of it takes about this long, in whole steps.

    A budget is kept in ``out/budgets.json`` and taken from there when the same grid is asked for again: another probe
    would give another number, and train everything anew.

    Args:
        grid: the cells; the budget of its protocol is not used.
        corpus: text to train on.
        out: folder of the grid.
        minutes: for all cells together.
        jobs: runs at once at each width.
        keep: whether to write the budget down, since training is to follow.

    Raises:
        InputError: not even one step of each model fits.
    """
    labels = [cell.label for cell in grid.cells()]
    asked = json.dumps([minutes, labels, asdict(grid.base), corpus.digest], sort_keys=True)
    key = hashlib.sha256(asked.encode()).hexdigest()[:16]
    path = out / "budgets.json"
    kept = read_json(path) if path.is_file() else {}
    if key in kept:
        return _with_steps(grid, kept[key]["steps"])
    speeds = probe(grid, grid.widths, corpus, jobs=jobs)

    def seconds(steps: int) -> float:
        return plan_seconds(dict.fromkeys(_with_steps(grid, steps).cells(), 0), speeds, corpus, jobs=jobs)

    one = seconds(1)
    if 60 * minutes < one:
        raise InputError(
            f"{minutes:g} minutes are too few for this grid: one step of each model and its validation take "
            f"{one / 60:.1f}; give more, or fewer widths and shapes"
        )
    steps = 1 + int((60 * minutes - one) / (seconds(2) - one))
    if keep:
        write_json(path, {**kept, key: {"minutes": minutes, "models": labels, "steps": steps}})
    return _with_steps(grid, steps)


def _with_steps(grid: GridConfig, steps: int) -> GridConfig:
    return replace(grid, base=replace(grid.base, tokens=steps * grid.base.tokens_per_step))


def training_bytes(config: TrainConfig) -> int:
    """Memory of a training step: weights, gradients, optimizer and what is kept for the backward pass."""
    part = config.batch // config.accumulate
    return STATE_BYTES * count(config.model).parameters + activation_bytes(config.model, batch=part)


HEADERS = ("model", "depth", "parameters", "MFLOPs", "memory", "time")


def plan_rows(
    cells: Sequence[Cell], missing: Mapping[Cell, int], speeds: Mapping[int, Speed], corpus: Corpus
) -> list[tuple[str, ...]]:
    """Each cell of a plan as texts, in the order of ``HEADERS``; those that are not missing are complete.

    ``missing`` has the steps that are done of each: the time is that of the rest.
    """
    rows = []
    for cell in cells:
        counts = count(cell.config.model)
        time = "complete"
        if cell in missing:
            time = clock(speeds[cell.dim].seconds(cell.config, len(corpus.valid), done=missing[cell]))
            if missing[cell]:
                time += f" from step {missing[cell]:,} of {cell.config.steps:,}"
        rows.append(
            (
                cell.label,
                str(cell.config.model.depth),
                f"{counts.parameters:,}",
                f"{counts.flops / 1e6:.2f}",
                f"{training_bytes(cell.config) / 1e6:,.0f} MB",
                time,
            )
        )
    return rows
