"""Training models side by side, fairly, and saying what came of it.

Every model of a comparison gets the same data in the same order, the same optimizer, schedule and token budget. The
losses are then compared story by story.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np

from frailt.data.batches import Corpus
from frailt.files import write_json, write_text
from frailt.model.counts import count
from frailt.model.shape import Shape
from frailt.paper.comparison import CompareConfig, Comparison, Row, run_name
from frailt.paper.figures import draw_comparison
from frailt.paper.gap import gap_closed, published_gap, stories_loss, story_nats
from frailt.paper.report import as_json, markdown
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
    nats = {key: story_nats(folder, corpus, device) for key, folder in folders.items()}
    speeds = measure_speeds([config.run(name, config.seeds[0]) for name in config.shapes], corpus)
    rows = tuple(_row(config, name, speed, nats, corpus) for name, speed in zip(config.shapes, speeds, strict=True))
    result = Comparison(
        config=config,
        rows=rows,
        data={"name": corpus.folder.name, **corpus.manifest},
        provenance={**provenance(device), "precision": _precisions(folders.values())},
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


def _row(
    config: CompareConfig,
    name: str,
    speed: float,
    nats: dict[tuple[str, int], np.ndarray],
    corpus: Corpus,
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
        losses=tuple(stories_loss(nats[name, seed], corpus) for seed in config.seeds),
        tokens_per_second=speed,
        gap_closed=gap,
        gap_interval=interval,
        paper_gap=paper_gap,
    )


def _precisions(folders: Iterable[Path]) -> str:
    return " and ".join(sorted({RunFolder(folder).precision for folder in folders}))


def _find(config: CompareConfig, shape: str) -> str | None:
    return next((name for name in config.shapes if config.model(name).shape == shape), None)
