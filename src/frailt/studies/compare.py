"""Training models side by side, fairly: the same data in the same order, the same optimizer, schedule and budget."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from frailt.data.corpus import Corpus
from frailt.device import choose_device
from frailt.errors import InputError
from frailt.files import write_json, write_text
from frailt.model.counts import count
from frailt.model.variant import Variant
from frailt.studies.cells import CompleteRun, StudyData, complete_runs, gap_of, same_run
from frailt.studies.comparison import CompareConfig, Comparison, Row
from frailt.studies.estimate import measure_speeds
from frailt.studies.figures import draw_comparison
from frailt.studies.gap import seed_spread
from frailt.studies.report import markdown
from frailt.training.provenance import provenance
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import Progress, train

Published = Callable[[int, Variant], float | None]
"""From width and model to the gap closed that was published for it, if one was."""


def compare(
    config: CompareConfig,
    corpus: Corpus,
    out: Path,
    *,
    report: Callable[[str, Progress], None] = lambda *_: None,
    published: Published = lambda *_: None,
) -> Comparison:
    """Train every model with every seed, and write ``compare.json``, ``table.md`` and ``compare.png`` to ``out``.

    Runs lie in ``out/runs``; a complete one is not trained again, one that was cut off goes on. So the same command
    may be given again, also with other shapes or seeds: the results are always of all complete runs in ``out``.

    Args:
        config: the comparison.
        corpus: prepared data.
        out: folder for results.
        report: called with a run's name while it trains.
        published: numbers to set beside ours, such as ``paper.published.published_gap``.

    Raises:
        InputError: a run in ``out`` was made with other settings or data.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check(config, corpus, out)
    for variant in config.variants:
        for seed in config.seeds:
            name = run_name(variant, seed)
            train(
                config.run(variant, seed),
                corpus,
                out / "runs" / name,
                resume=True,
                report=lambda progress, name=name: report(name, progress),
            )
    # A sweep or a grid in the same folder may have left records of runs by another protocol.
    complete, damaged = complete_runs(out, corpus, lambda run: same_run(config.run(config.variant(run), run.seed), run))
    runs: dict[Variant, dict[int, CompleteRun]] = {variant: {} for variant in config.variants}
    named = [(config.variant(run.config), run.config.seed, run) for run in complete]
    for variant, seed, run in sorted(named, key=lambda x: (x[0].shape.blocks, x[0].shape.depth, str(x[0]), x[1])):
        runs.setdefault(variant, {})[seed] = run
    machine = provenance(choose_device(config.base.device))
    machine["precision"] = " and ".join(sorted({run.provenance["precision"] for run in complete}))
    speeds = _speeds(config, list(runs), corpus, out, machine)
    spread = seed_spread([run.loss.nats for run in by_seed.values()] for by_seed in runs.values())
    result = Comparison(
        config=config,
        rows=tuple(
            Row(
                name=str(variant),
                shape=str(variant.shape),
                counts=count(config.model(variant)),
                seeds=tuple(by_seed),
                losses=tuple(run.loss for run in by_seed.values()),
                tokens_per_second=speeds[str(variant)],
                gap=gap_of(variant, runs, spread=spread),
                paper_gap=published(config.base.model.dim, variant),
            )
            for variant, by_seed in runs.items()
        ),
        spread=None if spread is None else spread / complete[0].loss.tokens,
        left_out=damaged,
        data=StudyData.of(corpus),
        provenance=machine,
    )
    write_json(out / "compare.json", result.as_json())
    write_text(out / "table.md", markdown(result))
    draw_comparison(
        result, {str(name): by_seed[min(by_seed)].curve for name, by_seed in runs.items()}, out / "compare.png"
    )
    return result


def run_name(variant: Variant, seed: int) -> str:
    """The folder name of a run: ``(2)^4:none`` with seed 0 is ``g2x4-none-s0``."""
    return f"{variant.slug}-s{seed}"


def _check(config: CompareConfig, corpus: Corpus, out: Path) -> None:
    """Whether the readable runs in a folder are of this comparison.

    Raises:
        InputError: one is not.
    """
    for path in sorted((out / "runs").glob("*/run.json")):
        folder = RunFolder(path.parent)
        try:
            run = folder.config()
        except (InputError, OSError):
            continue  # Reported as left out; or refused by ``train``, where it is asked for.
        variant = config.variant(run)
        if {name for name, _ in variant.settings} - {"encoding"} and path.parent.name != run_name(variant, run.seed):
            # Settings that its name does not have are those of another protocol.
            variant = Variant.make(variant.shape, {"encoding": run.model.encoding})
        folder.check(config.run(variant, run.seed), corpus)


def _speeds(
    config: CompareConfig, variants: list[Variant], corpus: Corpus, out: Path, machine: dict[str, Any]
) -> dict[str, float]:
    """Training tokens per second by name: those of the last table, where it has all models and is of this machine."""
    try:
        last = Comparison.read(out / "compare.json")
        if (last.config.base, last.provenance) == (config.base, machine):
            speeds = {row.name: row.tokens_per_second for row in last.rows}
            if speeds.keys() >= set(map(str, variants)):
                return speeds
    except (InputError, OSError):  # There is none, or of another version.
        pass
    measured = measure_speeds([config.run(variant, config.seeds[0]) for variant in variants], corpus)
    return dict(zip(map(str, variants), measured, strict=True))
