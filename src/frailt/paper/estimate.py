"""What a grid will cost on this machine, before it starts: time from a short measured probe, memory by counting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from frailt.data.batches import Corpus
from frailt.errors import InputError
from frailt.model.counts import activation_bytes, count
from frailt.paper.compare import measure_speeds
from frailt.paper.grid import Cell, GridConfig
from frailt.training.config import TrainConfig
from frailt.training.progress import clock

STATE_BYTES = 16
"""Bytes for each parameter while it trains: weight, gradient and AdamW's two means, in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds of training for a token at one width: a pass costs what a block costs, so two numbers are enough."""

    first: float
    """With one block."""
    block: float
    """For each block or pass more."""

    def seconds(self, config: TrainConfig, valid_tokens: int) -> float:
        """The whole run of a config, validations counted at a third of a training step."""
        some = min(config.eval_tokens, valid_tokens)
        # All validation tokens are read twice at the end: for the run's loss, and story by story.
        validated = (config.evaluations - 1) * some + 2 * valid_tokens
        tokens = config.steps * config.tokens_per_step + validated / 3
        return tokens * (self.first + (config.model.depth - 1) * self.block)


def probe(grid: GridConfig, corpus: Corpus, *, threads: int) -> dict[int, Speed]:
    """Measure one and two plain blocks at each width, for a few steps in turn.

    Args:
        grid: which widths, and the protocol.
        corpus: text to train on.
        threads: threads that a run will have.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        speeds = {}
        for dim in grid.widths:
            models = [replace(grid.base.model, dim=dim, shape=shape) for shape in ("1", "2")]
            one, two = measure_speeds([replace(grid.base, model=model) for model in models], corpus, rounds=2)
            speeds[dim] = Speed(first=1 / one, block=max(1 / two - 1 / one, 0))
        return speeds
    finally:
        torch.set_num_threads(before)


def minutes_to_tokens(grid: GridConfig, speeds: dict[int, Speed], corpus: Corpus, *, minutes: float, jobs: int) -> int:
    """The equal token budget of each cell at which the whole grid takes this long, in whole steps, at least one.

    Raises:
        InputError: not even one step of each model fits.
    """
    step = grid.base.tokens_per_step

    def total(steps: int) -> float:
        sized = replace(grid, base=replace(grid.base, tokens=steps * step))
        return sum(speeds[c.dim].seconds(c.config, len(corpus.valid)) for c in sized.cells()) / jobs / 60

    fixed = total(1)
    each = total(2) - fixed
    steps = int((minutes - fixed) / each) + 1
    if steps < 1:
        raise InputError(
            f"{minutes:g} minutes are too few for this grid: one step of each model and its validation take "
            f"{fixed:.1f}; give more, or fewer widths and shapes"
        )
    return steps * step


def training_bytes(config: TrainConfig) -> int:
    """Memory of a training step: weights, gradients, optimizer and what is kept for the backward pass."""
    part = config.batch // config.accumulate
    return STATE_BYTES * count(config.model).parameters + activation_bytes(config.model, batch=part)


HEADERS = ("model", "depth", "parameters", "MFLOPs", "memory", "time")


def plan_rows(cells: Sequence[Cell], speeds: dict[int, Speed], corpus: Corpus) -> list[tuple[str, ...]]:
    """Each cell of a plan as texts, in the order of ``HEADERS``."""
    rows = []
    for cell in cells:
        counts = count(cell.config.model)
        rows.append(
            (
                cell.label,
                str(cell.config.model.depth),
                f"{counts.parameters:,}",
                f"{counts.flops / 1e6:.2f}",
                f"{training_bytes(cell.config) / 1e6:,.0f} MB",
                clock(speeds[cell.dim].seconds(cell.config, len(corpus.valid))),
            )
        )
    return rows
