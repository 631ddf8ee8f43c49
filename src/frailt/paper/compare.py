"""Training models side by side, fairly, and saying what came of it.

Every model of a comparison gets the same data in the same order, the same optimizer, schedule and token budget. The
losses are then compared story by story.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from frailt.data.batches import Corpus
from frailt.data.tokenizer import Tokenizer
from frailt.evaluation.loss import Loss, token_losses
from frailt.files import write_json, write_text
from frailt.model.checkpoint import load_model
from frailt.model.counts import count
from frailt.model.shape import Shape
from frailt.paper.comparison import CompareConfig, Comparison, Row, run_name
from frailt.paper.figures import draw_comparison
from frailt.paper.published import published_loss
from frailt.paper.report import as_json, markdown
from frailt.training.config import TrainConfig
from frailt.training.run_folder import provenance
from frailt.training.trainer import Progress, choose_device, measure_speed, train

RESAMPLES = 2000
"""Draws of the bootstrap over validation stories."""


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
    device = choose_device(config.base.device)
    stories = _StoryLosses(corpus, device)
    nats = {key: stories.of(folder) for key, folder in folders.items()}
    speeds = measure_speeds([config.run(name, config.seeds[0]) for name in config.shapes], corpus)
    rows = tuple(_row(config, name, speed, nats, stories) for name, speed in zip(config.shapes, speeds, strict=True))
    result = Comparison(
        config=config,
        rows=rows,
        data={"name": corpus.folder.name, **corpus.manifest},
        provenance=provenance(device),
    )
    write_json(out / "compare.json", as_json(result))
    write_text(out / "table.md", markdown(result))
    draw_comparison(result, {name: folders[name, config.seeds[0]] for name in config.shapes}, out / "compare.png")
    return result


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

    def __init__(self, corpus: Corpus, device: torch.device) -> None:
        self.device = device
        self.tokens = np.asarray(corpus.valid.tokens)
        self.bytes = corpus.valid_bytes
        # Target i is token i + 1. A story's targets are its own tokens; the BOS that follows counts to the next.
        self.story = np.cumsum(self.tokens == Tokenizer.bos)[1:] - 1
        self.counts = np.bincount(self.story)

    def of(self, folder: Path) -> np.ndarray:
        """Nats of each story under the model in ``folder``."""
        return np.bincount(self.story, weights=token_losses(load_model(folder).to(self.device), self.tokens))

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
        gap, interval = gap_closed(means[shallow], means[name], means[deep])
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
    shallow: np.ndarray, own: np.ndarray, deep: np.ndarray
) -> tuple[float | None, tuple[float, float] | None]:
    """Which part of the way from a shallow to a deep standard model a FraiLT model goes, with a 95% interval.

    Args:
        shallow, own, deep: nats of each validation story under each model.

    Returns:
        ``(shallow - own) / (shallow - deep)`` in mean loss, and its percentiles 2.5 and 97.5 when stories are drawn
        anew with replacement, the same for all three models. ``None``s where deep is not better than shallow; the
        interval also where that is so in a draw.
    """
    if deep.sum() >= shallow.sum():
        return None, None
    value = float((shallow.sum() - own.sum()) / (shallow.sum() - deep.sum()))
    random, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        weights = random.multinomial(len(own), np.full(len(own), 1 / len(own)))
        # The three models share their tokens, so the mean loss's denominator cancels.
        draws.append((weights @ (shallow - own), weights @ (shallow - deep)))
    top, bottom = np.array(draws).T
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
