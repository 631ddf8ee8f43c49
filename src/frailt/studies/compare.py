"""Training models side by side, fairly, and saying what came of it.

Every model of a comparison gets the same data in the same order, the same optimizer, schedule and token budget. The
losses are then compared story by story.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from frailt.data.corpus import Corpus
from frailt.files import write_json, write_text
from frailt.model.counts import count
from frailt.model.shape import Shape
from frailt.studies.comparison import CompareConfig, Comparison, Row, alike, model_name, run_name
from frailt.studies.figures import draw_comparison
from frailt.studies.gap import gap_closed, published_gap, stories_loss, story_nats
from frailt.studies.report import as_json, markdown
from frailt.training.config import TrainConfig
from frailt.training.device import choose_device
from frailt.training.run_folder import RunFolder, provenance
from frailt.training.trainer import Progress, measure_speed, train


def compare(
    config: CompareConfig,
    corpus: Corpus,
    out: Path,
    *,
    report: Callable[[str, Progress], None] = lambda *_: None,
) -> Comparison:
    """Train every model with every seed, and write ``compare.json``, ``table.md`` and ``compare.png`` to ``out``.

    Runs lie in ``out/runs``; a complete one is not trained again, one that was cut off goes on. So the same command
    may be given again, also with other shapes or seeds: the results are always of all complete runs in ``out``.

    Args:
        config: the comparison.
        corpus: prepared data.
        out: folder for results.
        report: called with a run's name while it trains.

    Raises:
        InputError: a run in ``out`` was made with other settings or data.
    """
    out.mkdir(parents=True, exist_ok=True)
    for run in _runs(out):
        run.check(alike(config.base, run.config()), corpus)
    for name in config.shapes:
        for seed in config.seeds:
            label = run_name(name, seed)
            train(
                config.run(name, seed),
                corpus,
                out / "runs" / label,
                resume=True,
                report=lambda progress, label=label: report(label, progress),
            )
    complete = _complete(config, out)
    device = choose_device(config.base.device)
    nats = {
        name: {seed: story_nats(run.path, corpus, device) for seed, run in sorted(runs.items())}
        for name, runs in complete.items()
    }
    speeds = measure_speeds([config.run(name, config.seeds[0]) for name in nats], corpus)
    precisions = {run.precision for runs in complete.values() for run in runs.values()}
    rows = tuple(_row(config, name, speed, nats, corpus) for name, speed in zip(nats, speeds, strict=True))
    result = Comparison(
        config=config,
        rows=rows,
        data={"name": corpus.folder.name, **corpus.manifest.as_json()},
        provenance={**provenance(device), "precision": " and ".join(sorted(precisions))},
    )
    write_json(out / "compare.json", as_json(result))
    write_text(out / "table.md", markdown(result))
    draw_comparison(result, {name: runs[min(runs)] for name, runs in complete.items()}, out / "compare.png")
    return result


def _runs(out: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in sorted((out / "runs").glob("*/run.json"))]


def _complete(config: CompareConfig, out: Path) -> dict[str, dict[int, RunFolder]]:
    """The complete runs by model and seed: models that were asked for, then others by blocks and depth."""
    found: dict[str, dict[int, RunFolder]] = {name: {} for name in config.shapes}
    names = {config.model(name): name for name in config.shapes}
    others: dict[str, dict[int, RunFolder]] = {}
    for run in _runs(out):
        if run.result is not None:
            own = run.config()
            name = names.get(own.model)
            runs = found[name] if name else others.setdefault(model_name(own.model), {})
            runs[own.seed] = run

    def size(name: str) -> tuple[int, int, str]:
        shape = Shape.parse(config.model(name).shape)
        return shape.blocks, shape.depth, name

    return found | {name: others[name] for name in sorted(others, key=size)}


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


def _row(
    config: CompareConfig,
    name: str,
    speed: float,
    nats: dict[str, dict[int, np.ndarray]],
    corpus: Corpus,
) -> Row:
    model = config.model(name)
    shape = Shape.parse(model.shape)
    by_shape = {config.model(other).shape: runs for other, runs in nats.items()}
    three = [by_shape.get(str(shape.blocks), {}), nats[name], by_shape.get(str(shape.depth), {})]
    common = set.intersection(*map(set, three))
    twins = not shape.standard and bool(common)
    gap = interval = paper_gap = None
    if twins:
        gap, interval = gap_closed(*(np.mean([runs[seed] for seed in common], axis=0) for runs in three))
    if not shape.standard and model.encoding == "learned":
        paper_gap = published_gap(model.dim, shape)
    return Row(
        name=name,
        shape=model.shape,
        counts=count(model),
        seeds=tuple(nats[name]),
        losses=tuple(stories_loss(own, corpus) for own in nats[name].values()),
        tokens_per_second=speed,
        twins=twins,
        gap_closed=gap,
        gap_interval=interval,
        paper_gap=paper_gap,
    )
