"""What a comparison is: which models are trained, and what was measured of each."""

import dataclasses
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from frailt.configs import from_json
from frailt.errors import InputError, excerpt
from frailt.evaluation.loss import Loss
from frailt.files import read_json
from frailt.model.config import ModelConfig
from frailt.model.counts import Counts
from frailt.model.shape import Shape
from frailt.model.variant import Variant
from frailt.studies.cells import StudyData, settings_of, with_settings
from frailt.studies.gap import Gap
from frailt.training.config import TrainConfig
from frailt.training.run_folder import INCIDENTAL

SHARED = INCIDENTAL | {"model", "optimizer", "seed", "tokens", "batch", "evaluations", "eval_tokens"}
"""Fields of the training that no variant sets, since a comparison has one protocol."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """A comparison."""

    shapes: tuple[str, ...] = ("1", "1^8", "8")
    """Names of models (``model/variant.py``): shapes, and settings behind a colon, like 1^8:none."""
    seeds: tuple[int, ...] = (0,)
    """Each model is trained once with each seed; losses are means over them."""
    base: TrainConfig = field(default_factory=TrainConfig)
    """Everything else, the same for all. Its shape, encoding and seed are not used."""

    def __post_init__(self) -> None:
        if not self.shapes or not self.seeds:
            raise InputError("a comparison needs at least one shape and one seed")
        # One name a model, since runs are found by it: a setting at its default is left out.
        variants = [self.variant(self.run(Variant.parse(name), self.seeds[0])) for name in self.shapes]
        if len(set(variants)) < len(variants) or len(set(self.seeds)) < len(self.seeds):
            raise InputError("a shape or a seed is listed twice; list each once")
        object.__setattr__(self, "shapes", tuple(map(str, variants)))
        for variant in variants:  # Refused here, and not after the runs before it.
            for seed in self.seeds:
                self.run(variant, seed)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """``shapes``, taken apart."""
        return tuple(map(Variant.parse, self.shapes))

    def model(self, variant: Variant) -> ModelConfig:
        """The model that a variant stands for."""
        return variant.model(self.base.model)

    def run(self, variant: Variant, seed: int) -> TrainConfig:
        """The run of one model with one seed.

        Raises:
            InputError: a setting is not one of a model or its training, or is the same for all models.
        """
        settings = variant.training
        if barred := SHARED & settings.keys():
            raise InputError(f"{min(barred)} is the same for all models; leave it out of {excerpt(str(variant))!r}")
        base = replace(self.base, model=self.model(variant), seed=seed)
        return with_settings(base, settings, f"model {excerpt(str(variant))!r}")

    def variant(self, run: TrainConfig) -> Variant:
        """The name of a run's model in this comparison."""
        settings = dict(Variant.of(run.model, self.base.model).settings)
        usual, others = settings_of(self.base), SHARED | dataclasses.asdict(run.model).keys()
        settings |= {name: v for name, v in settings_of(run).items() if name not in others and v != usual[name]}
        return Variant.make(Shape.parse(run.model.shape), settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A model of a comparison, as measured."""

    name: str
    shape: str
    counts: Counts
    seeds: tuple[int, ...]
    """Those that it was run with."""
    losses: tuple[Loss, ...]
    """One for each seed."""
    tokens_per_second: float
    """Training speed, measured in turn with the other rows: only ratios between rows mean something."""
    gap: Gap | None
    """``None`` for standard models, and where a standard twin was not run with one of the seeds."""
    paper_gap: float | None
    """The gap closed that was published for this cell."""

    def __post_init__(self) -> None:
        if not self.losses or len(self.losses) != len(self.seeds):
            raise InputError(f"row {excerpt(self.name)!r} has {len(self.losses)} losses of {len(self.seeds)} seeds")

    @property
    def loss(self) -> float:
        """Mean over seeds, nats per token."""
        return mean(loss.nats_per_token for loss in self.losses)

    @property
    def bits_per_byte(self) -> float:
        """Mean over seeds."""
        return mean(loss.bits_per_byte for loss in self.losses)

    @property
    def loss_by_seed(self) -> list[float]:
        """Nats per token, in the order of ``seeds``."""
        return [loss.nats_per_token for loss in self.losses]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What ``compare`` gives, and what ``compare.json`` holds."""

    config: CompareConfig
    """What was asked for."""
    rows: tuple[Row, ...]
    """That, and then the other complete runs of the folder."""
    spread: float | None = None
    """The most by which seeds of one model differ, nats per token; ``None`` where no model has several."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Reasons by the names of run folders that are damaged."""
    data: StudyData
    provenance: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """JSON values, with the means over seeds beside what they are made of."""
        rows = [{**dataclasses.asdict(row), **{name: getattr(row, name) for name in DERIVED}} for row in self.rows]
        return {**dataclasses.asdict(self), "rows": rows}

    @classmethod
    def read(cls, path: Path) -> "Comparison":
        """Read ``compare.json``.

        Raises:
            InputError: the file is missing or damaged.
        """
        stored = read_json(path)
        if isinstance(rows := stored.get("rows"), list):
            for row in rows:
                if isinstance(row, dict):
                    for name in DERIVED:
                        row.pop(name, None)
        return from_json(cls, stored, str(path))


DERIVED = ("loss", "bits_per_byte", "loss_by_seed")
"""Properties of a row that ``compare.json`` has too, for its readers."""
