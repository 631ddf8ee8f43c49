"""What a comparison is: which models are trained, and what was measured of each."""

from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

from frailt.errors import InputError
from frailt.evaluation.loss import Loss
from frailt.model.config import ModelConfig
from frailt.model.counts import Counts
from frailt.model.encodings import ENCODINGS
from frailt.model.shape import Shape
from frailt.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """A comparison."""

    shapes: tuple[str, ...] = ("1", "1^8", "8")
    """Models in shape notation. An encoding may follow a colon: 1^8:none, 1^8:sinusoidal."""
    seeds: tuple[int, ...] = (0,)
    """Each model is trained once with each seed; losses are means over them."""
    base: TrainConfig = field(default_factory=TrainConfig)
    """Everything else, the same for all. Its shape, encoding and seed are not used."""

    def __post_init__(self) -> None:
        if not self.shapes or not self.seeds:
            raise InputError("a comparison needs at least one shape and one seed")
        models = [self.model(name) for name in self.shapes]
        if len(set(models)) < len(models) or len(set(self.seeds)) < len(self.seeds):
            raise InputError("a shape or a seed is listed twice; list each once")
        for seed in self.seeds:  # Refused here, and not after the runs before it.
            replace(self.base, seed=seed)

    def model(self, name: str) -> ModelConfig:
        """The model that an entry of ``shapes`` stands for."""
        shape, _, encoding = name.partition(":")
        if Shape.parse(shape).standard and encoding:
            raise InputError(f"shape {name!r} is a standard model and has no encodings; leave out :{encoding}")
        if encoding and encoding not in ENCODINGS:
            raise InputError(f"shape {name!r} has an unknown encoding; after the colon, write {', '.join(ENCODINGS)}")
        return replace(self.base.model, shape=shape, encoding=encoding or "learned")

    def run(self, name: str, seed: int) -> TrainConfig:
        """The run of one model with one seed."""
        return replace(self.base, model=self.model(name), seed=seed)


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
    twins: bool
    """Whether there are its standard twins, shallow and deep, with a seed that all three were run with."""
    gap_closed: float | None
    """(shallow - this) / (shallow - deep) in loss over those seeds; ``None`` without twins, or where deep is hardly
    better (``gap.py``)."""
    gap_interval: tuple[float, float] | None
    """Its 95% interval over validation stories (paired bootstrap)."""
    paper_gap: float | None
    """The same from the paper's tables 2 and 3, where it has the three cells."""

    @property
    def loss(self) -> float:
        """Mean over seeds, nats per token."""
        return mean(loss.nats_per_token for loss in self.losses)

    @property
    def bits_per_byte(self) -> float:
        """Mean over seeds."""
        return mean(loss.bits_per_byte for loss in self.losses)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What ``compare`` gives, and what ``compare.json`` holds."""

    config: CompareConfig
    """What was asked for."""
    rows: tuple[Row, ...]
    """That, and then the other complete runs of the folder."""
    data: dict[str, Any]
    provenance: dict[str, Any]


def alike(base: TrainConfig, run: TrainConfig) -> TrainConfig:
    """``base`` with the shape, encoding and seed of another run: equal to it if nothing else tells them apart."""
    return replace(base, model=replace(base.model, shape=run.model.shape, encoding=run.model.encoding), seed=run.seed)


def run_name(name: str, seed: int) -> str:
    """A folder name for a model and seed that needs no quoting in a shell: ``(2)^4:none`` is ``g2x4-none-s0``."""
    shape, _, encoding = name.partition(":")
    return "-".join(filter(None, (Shape.parse(shape).slug, encoding, f"s{seed}")))


def model_name(config: ModelConfig) -> str:
    """How a model is called in tables: its shape, and its encoding behind a colon where it is not the paper's."""
    papers = Shape.parse(config.shape).standard or config.encoding == "learned"
    return config.shape if papers else f"{config.shape}:{config.encoding}"
