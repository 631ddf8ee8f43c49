"""What has been measured of a grid: all complete runs of its protocol in its folder."""

import dataclasses
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import mean
from typing import Any

from frailt.configs import from_json
from frailt.data.corpus import Corpus
from frailt.device import choose_device
from frailt.errors import InputError
from frailt.files import read_json
from frailt.model.variant import Variant
from frailt.paper.claims import CLAIMS, FEW_TOKENS, Losses
from frailt.paper.grid import GridConfig
from frailt.paper.published import LOSSES
from frailt.studies.cells import CompleteRun, StudyData, complete_runs, gap_of
from frailt.studies.gap import Gap, seed_spread
from frailt.training.config import TrainConfig
from frailt.training.provenance import provenance


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRun:
    """A complete run of one model with one seed."""

    dim: int
    model: str
    seed: int
    loss: float
    """Nats per token."""
    bits_per_byte: float
    curve: tuple[tuple[float, ...], ...]
    """Training tokens and validation loss along the run."""
    provenance: dict[str, Any]
    """Versions, commit, machine and precision that trained it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridGap:
    """The gap that a model closes, where its twins were run with one of its seeds."""

    dim: int
    model: str
    gap: Gap


@dataclass(frozen=True, kw_only=True)
class GridResults:
    """The measured cells of a grid: what ``grid.json`` holds."""

    protocol: TrainConfig
    """Width, model and seed stand beside each run."""
    data: StudyData
    runs: tuple[GridRun, ...]
    """By width, model in the order of the grid, and seed."""
    gaps: tuple[GridGap, ...]
    spread: float | None = None
    """The most by which seeds of one model differ, nats per token; ``None`` where no model has several."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Reasons by the names of run folders that are damaged."""
    budgets: dict[str, int] = field(default_factory=dict)
    """Training tokens asked for by width, where they differ."""
    reported_by: dict[str, Any]

    @classmethod
    def of(cls, grid: GridConfig, corpus: Corpus, out: Path) -> "GridResults":
        """All complete runs of a grid's protocol in its folder; its widths, shapes and seeds do not limit them.

        Raises:
            InputError: there is none.
        """
        runs, damaged = complete_runs(out, corpus, lambda config: grid.variant(config) is not None)
        if not runs:
            left_out = "".join(f"; left out: {reason}" for reason in [*damaged.values()][:1])
            raise InputError(f"{out} holds no complete run of this protocol and data; train some first{left_out}")
        place = {name: i for i, name in enumerate(grid.shapes)}

        def order(item: tuple[Variant, CompleteRun]) -> tuple[int, int, str, int]:
            variant, run = item
            return run.config.model.dim, place.get(str(variant), len(place)), str(variant), run.config.seed

        named = [(variant, run) for run in runs if (variant := grid.variant(run.config)) is not None]
        cells: dict[int, dict[Variant, dict[int, CompleteRun]]] = {}
        for variant, run in sorted(named, key=order):
            cells.setdefault(run.config.model.dim, {}).setdefault(variant, {})[run.config.seed] = run
        by_model = [(dim, variant, by_seed) for dim, row in cells.items() for variant, by_seed in row.items()]
        spread = seed_spread([run.loss.nats for run in by_seed.values()] for _, _, by_seed in by_model)
        return cls(
            protocol=grid.base,
            data=StudyData.of(corpus),
            runs=tuple(
                GridRun(
                    dim=dim,
                    model=str(variant),
                    seed=seed,
                    loss=run.loss.nats_per_token,
                    bits_per_byte=run.loss.bits_per_byte,
                    curve=tuple(run.curve),
                    provenance=run.provenance,
                )
                for dim, variant, by_seed in by_model
                for seed, run in by_seed.items()
            ),
            gaps=tuple(
                GridGap(dim=dim, model=str(variant), gap=closed)
                for dim, variant, _ in by_model
                if (closed := gap_of(variant, cells[dim], spread=spread)) is not None
            ),
            spread=None if spread is None else spread / runs[0].loss.tokens,
            left_out=damaged,
            budgets={str(dim): tokens for dim, tokens in grid.budgets.items() if dim in cells},
            reported_by=provenance(choose_device(grid.base.device)),
        )

    @classmethod
    def read(cls, path: Path) -> "GridResults":
        """Read ``grid.json``.

        Raises:
            InputError: the file is missing or damaged.
        """
        stored = {name: value for name, value in read_json(path).items() if name not in DERIVED}
        return from_json(cls, stored, str(path))

    def as_json(self) -> dict[str, Any]:
        """JSON values: everything behind the report."""
        return {**dataclasses.asdict(self), **{name: getattr(self, name) for name in DERIVED}}

    @property
    def tokens(self) -> int:
        """Training tokens of each model; the least, where widths differ."""
        return min(self.tokens_at(dim) for dim in self.widths)

    def tokens_at(self, dim: int) -> int:
        """Training tokens of each model of a width, in whole steps."""
        budget = replace(self.protocol, tokens=self.budgets.get(str(dim), self.protocol.tokens))
        return budget.steps * budget.tokens_per_step

    @cached_property
    def cells(self) -> dict[tuple[int, str], list[GridRun]]:
        """Runs by width and model, in order; in each cell by seed."""
        cells: dict[tuple[int, str], list[GridRun]] = {}
        for run in self.runs:
            cells.setdefault((run.dim, run.model), []).append(run)
        return cells

    @property
    def widths(self) -> list[int]:
        """Widths of which anything was measured."""
        return sorted({dim for dim, _ in self.cells})

    @cached_property
    def losses(self) -> Losses:
        """Means over seeds, in the form of the paper's tables."""
        table: dict[int, dict[str, float]] = {dim: {} for dim in self.widths}
        for (dim, name), runs in self.cells.items():
            table[dim][name] = mean(run.loss for run in runs)
        return Losses(table, chance=self.spread or 0.0)

    @cached_property
    def gap(self) -> dict[tuple[int, str], Gap]:
        """``gaps`` by width and model."""
        return {(gap.dim, gap.model): gap.gap for gap in self.gaps}

    @property
    def claims(self) -> list[dict[str, str]]:
        """The paper's claims, decided by its numbers and by these."""
        warning = "shows little: so few tokens; " if self.tokens < FEW_TOKENS else ""
        ours = [claim.decide(self.losses) for claim in CLAIMS]
        return [
            {
                "section": claim.section,
                "claim": claim.text,
                "paper": str(claim.decide(Losses(LOSSES))),
                "ours": f"{warning if verdict.outcome != 'not measured' else ''}{verdict}",
            }
            for claim, verdict in zip(CLAIMS, ours, strict=True)
        ]


DERIVED = ("tokens", "claims")
"""Properties that ``grid.json`` has too, for its readers."""
