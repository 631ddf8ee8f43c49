"""Training models side by side, fairly, and saying what came of it.

Every model of a comparison gets the same data in the same order, the same optimizer, schedule and token budget. The
losses are then compared story by story.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from frailt.data.batches import Corpus
from frailt.errors import InputError
from frailt.evaluation.loss import Loss, token_losses
from frailt.files import write_json, write_text
from frailt.model.checkpoint import load_model
from frailt.model.counts import Counts, count
from frailt.model.encodings import ENCODINGS
from frailt.model.frailt import ModelConfig
from frailt.model.shape import Shape
from frailt.paper.figures import draw_comparison
from frailt.paper.published import published_loss
from frailt.training.config import TrainConfig
from frailt.training.run_folder import provenance
from frailt.training.trainer import Progress, measure_speed, train

RESAMPLES = 2000
"""Draws of the bootstrap over validation stories."""


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
    losses: tuple[Loss, ...]
    """One for each seed."""
    tokens_per_second: float
    """Training speed, measured in turn with the other rows: only ratios between rows mean something."""
    gap_closed: float | None
    """(shallow - this) / (shallow - deep) in loss; ``None`` where a standard twin is missing or deep is not better."""
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
    rows: tuple[Row, ...]
    data: dict[str, Any]
    provenance: dict[str, Any]


def compare(
    config: CompareConfig,
    corpus: Corpus,
    out: Path,
    *,
    report: Callable[[str, Progress], None] = lambda *_: None,
) -> Comparison:
    """Train every model with every seed, and write ``compare.json``, ``table.md`` and ``compare.png`` to ``out``.

    Runs lie in ``out/runs``; a complete one is not trained again, one that was cut off goes on. So the same command
    may be given again, also with more shapes or seeds.

    Args:
        config: the comparison.
        corpus: prepared data.
        out: folder for results.
        report: called with a run's name while it trains.

    Raises:
        InputError: a run in ``out`` was made with other settings or data.
    """
    out.mkdir(parents=True, exist_ok=True)
    folders = {}
    for name in config.shapes:
        for seed in config.seeds:
            label = run_name(name, seed)
            folders[name, seed] = out / "runs" / label
            train(
                config.run(name, seed),
                corpus,
                folders[name, seed],
                resume=True,
                report=lambda progress, label=label: report(label, progress),
            )
    stories = _StoryLosses(corpus)
    nats = {key: stories.of(folder) for key, folder in folders.items()}
    speeds = measure_speeds([config.run(name, config.seeds[0]) for name in config.shapes], corpus)
    rows = tuple(_row(config, name, speed, nats, stories) for name, speed in zip(config.shapes, speeds, strict=True))
    result = Comparison(
        config=config,
        rows=rows,
        data={"name": corpus.folder.name, **corpus.manifest},
        provenance=provenance(),
    )
    write_json(out / "compare.json", as_json(result))
    write_text(out / "table.md", markdown(result))
    draw_comparison(result, {name: folders[name, config.seeds[0]] for name in config.shapes}, out / "compare.png")
    return result


def run_name(name: str, seed: int) -> str:
    """A folder name for a model and seed that needs no quoting in a shell: ``(2)^4:none`` is ``g2x4-none-s0``."""
    plain = name.replace("(", "g").replace(")", "").replace("^", "x").replace("+", "_").replace(":", "-")
    return f"{plain}-s{seed}"


def measure_speeds(configs: list[TrainConfig], corpus: Corpus, *, rounds: int = 5) -> list[float]:
    """Training tokens per second of each config: one step of each in turn, ``rounds`` times, medians."""
    steppers = [measure_speed(config, corpus) for config in configs]
    times: list[list[float]] = [[] for _ in configs]
    for _ in range(rounds + 1):
        for step, own in zip(steppers, times, strict=True):
            start = time.perf_counter()
            step()
            own.append(time.perf_counter() - start)
    # The first round pays for compilation and first use of memory.
    return [c.tokens_per_step / median(own[1:]) for c, own in zip(configs, times, strict=True)]


class _StoryLosses:
    """Losses of models summed over each validation story."""

    def __init__(self, corpus: Corpus) -> None:
        self.tokens = np.asarray(corpus.valid.tokens)
        self.bytes = corpus.valid_bytes
        # Target i is token i + 1. A story's targets are its own tokens; the BOS that follows counts to the next.
        self.story = np.cumsum(self.tokens == 1)[1:] - 1
        self.counts = np.bincount(self.story)

    def of(self, folder: Path) -> np.ndarray:
        """Nats of each story under the model in ``folder``."""
        return np.bincount(self.story, weights=token_losses(load_model(folder), self.tokens))

    def loss(self, nats: np.ndarray) -> Loss:
        return Loss(nats=float(nats.sum()), tokens=int(self.counts.sum()), bytes=self.bytes)


def _row(
    config: CompareConfig,
    name: str,
    speed: float,
    nats: dict[tuple[str, int], np.ndarray],
    stories: _StoryLosses,
) -> Row:
    model = config.model(name)
    shape = Shape.parse(model.shape)
    shallow, deep = (_find(config, str(depth)) for depth in (shape.blocks, shape.depth))
    gap = interval = paper_gap = None
    if not shape.standard and shallow and deep:
        means = {key: np.stack([nats[key, seed] for seed in config.seeds]).mean(0) for key in (shallow, name, deep)}
        gap, interval = gap_closed(means[shallow], means[name], means[deep], stories.counts)
    if not shape.standard and model.encoding == "learned":
        paper_gap = published_gap(model.dim, shape)
    return Row(
        name=name,
        shape=model.shape,
        counts=count(model),
        losses=tuple(stories.loss(nats[name, seed]) for seed in config.seeds),
        tokens_per_second=speed,
        gap_closed=gap,
        gap_interval=interval,
        paper_gap=paper_gap,
    )


def _find(config: CompareConfig, shape: str) -> str | None:
    return next((name for name in config.shapes if config.model(name).shape == shape), None)


def gap_closed(
    shallow: np.ndarray, own: np.ndarray, deep: np.ndarray, tokens: np.ndarray
) -> tuple[float | None, tuple[float, float] | None]:
    """Which part of the way from a shallow to a deep standard model a FraiLT model goes, with a 95% interval.

    Args:
        shallow, own, deep: nats of each validation story under each model.
        tokens: targets of each story.

    Returns:
        ``(shallow - own) / (shallow - deep)`` in mean loss, and its percentiles 2.5 and 97.5 when stories are drawn
        anew with replacement, the same for all three models. ``None``s where deep is not better than shallow; the
        interval also where that is so in a draw.
    """
    if deep.sum() >= shallow.sum():
        return None, None
    value = float((shallow.sum() - own.sum()) / (shallow.sum() - deep.sum()))
    weights = np.random.default_rng(0).multinomial(len(tokens), np.full(len(tokens), 1 / len(tokens)), RESAMPLES)
    # The three models share their tokens, so the mean loss's denominator cancels.
    top, bottom = weights @ (shallow - own), weights @ (shallow - deep)
    if (bottom <= 0).any():
        return value, None
    low, high = np.percentile(top / bottom, [2.5, 97.5])
    return value, (float(low), float(high))


def published_gap(dim: int, shape: Shape) -> float | None:
    """The gap closed that follows from the paper's tables 2 and 3."""
    shallow, own, deep = (published_loss(dim, s) for s in (str(shape.blocks), str(shape), str(shape.depth)))
    if shallow is None or own is None or deep is None or deep >= shallow:
        return None
    return (shallow - own) / (shallow - deep)


def as_json(result: Comparison) -> dict[str, Any]:
    """A comparison as JSON values, derived figures included."""
    rows = []
    for row in result.rows:
        rows.append(
            {
                **dataclasses.asdict(row),
                "loss": row.loss,
                "bits_per_byte": row.bits_per_byte,
                "loss_by_seed": [loss.nats_per_token for loss in row.losses],
            }
        )
    return {
        "config": dataclasses.asdict(result.config),
        "rows": rows,
        "data": result.data,
        "provenance": result.provenance,
    }


HEADERS = ("shape", "parameters", "MFLOPs", "loss", "bits/byte", "gap closed", "paper", "tokens/s")


def cells(result: Comparison) -> list[tuple[str, ...]]:
    """The rows of the table as texts, in the order of ``HEADERS``."""
    table = []
    for row in result.rows:
        gap = "" if row.gap_closed is None else f"{row.gap_closed:.0%}"
        if row.gap_interval is not None:
            gap += f" ({100 * row.gap_interval[0]:.0f} to {100 * row.gap_interval[1]:.0f})"
        table.append(
            (
                row.name,
                f"{row.counts.parameters:,}",
                f"{row.counts.flops / 1e6:.2f}",
                f"{row.loss:.3f}",
                f"{row.bits_per_byte:.3f}",
                gap,
                "" if row.paper_gap is None else f"{row.paper_gap:.0%}",
                f"{row.tokens_per_second:,.0f}",
            )
        )
    return table


def caption(result: Comparison) -> str:
    """What a reader must know beside the table."""
    base, data = result.config.base, result.data
    tokens = base.steps * base.tokens_per_step
    seeds = ", ".join(map(str, result.config.seeds))
    by_seed = "; ".join(
        f"{row.name} {', '.join(f'{loss.nats_per_token:.3f}' for loss in row.losses)}" for row in result.rows
    )
    means = f", the mean over seeds ({by_seed})" if len(result.config.seeds) > 1 else ""
    return (
        f"Width {base.model.dim}, context {base.model.context}, vocabulary {base.model.vocab_size}. "
        f"Each model: {tokens:,} training tokens in {base.steps:,} steps of {base.tokens_per_step:,}, peak rate "
        f"{base.optimizer.lr:g}, {base.precision}, seed {seeds}. MFLOPs: of a forward pass, "
        f"per token. Loss in nats per token{means}, over "
        f"{result.rows[0].losses[0].tokens:,} tokens of {data['valid']['stories']:,} held-out stories. Gap closed: "
        "(loss of the shallow standard model - loss) / (loss of the shallow - loss of the deep one), with its 95% "
        "interval over stories; paper: the same from its tables 2 and 3. "
        "Tokens/s: training, measured in turn; only their ratios count."
    )


def markdown(result: Comparison) -> str:
    """Table and caption as Markdown."""
    lines = ["| " + " | ".join(HEADERS) + " |", "| --- |" + " ---: |" * (len(HEADERS) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in cells(result)]
    machine = result.provenance
    return "\n".join(lines) + (
        f"\n\n{caption(result)}\n\nfrailt {machine['frailt']} ({machine['commit']}), torch {machine['torch']}, "
        f"{machine['machine']}.\n"
    )
