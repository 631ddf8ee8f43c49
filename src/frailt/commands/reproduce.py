"""Train the paper's grid, and report it beside the published numbers."""

import re
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from frailt.configs import require
from frailt.errors import InputError, excerpt
from frailt.options import corpus_in, numbers, parse, table, token_count


def run(args: list[str]) -> None:
    from frailt.commands.protocol import Protocol
    from frailt.compiling import announce_compiling
    from frailt.device import choose_device
    from frailt.model.variant import split_names
    from frailt.paper.grid import SHAPES, WIDTHS, GridConfig
    from frailt.paper.grid_report import write_report
    from frailt.studies.cells import cell_folder, steps_done
    from frailt.studies.estimate import steps_in_minutes
    from frailt.studies.sweep import check_folder
    from frailt.studies.workers import jobs_at
    from frailt.training.run_folder import RunFolder

    @dataclass(frozen=True, kw_only=True)
    class Command:
        widths: str = ",".join(map(str, WIDTHS))
        """Embedding dimensions, joined by commas."""
        shapes: str = ",".join(SHAPES)
        """Models, joined by commas. Settings may follow a colon: 1^8:none is without encodings."""
        budget: str = "4M"
        """Training: tokens of every model, like 4M, or minutes of the whole grid, like 90min."""
        out: Path = Path("runs/grid")
        """Folder for runs and report."""
        plan: bool = False
        """Only show what would be trained, and what it would take."""
        report: bool = False
        """Only write the report, of what is complete."""
        minutes: float | None = None
        """Stop after this time with everything saved; the same command goes on."""
        jobs: int | None = None
        """Models trained at once; unset: what fills the machine."""
        on: Literal["local", "ray"] = "local"
        """This machine, or the Ray cluster that it belongs to."""
        protocol: Protocol = field(default_factory=Protocol)

        def __post_init__(self) -> None:
            require(self, "jobs minutes", 0, above=True)
            if self.on == "ray" and find_spec("ray") is None:
                raise InputError("ray is not installed; pip install 'frailt[ray]', or leave out --on")

    started = time.monotonic()
    command = parse(Command, "reproduce", args, __doc__)
    announce_compiling()
    budget = _budget(command.budget)
    check_folder(command.out)
    corpus = corpus_in(command.protocol.data)
    widths = numbers("widths", command.widths)
    tokens = budget if isinstance(budget, int) else 1
    model = {"dim": widths[0], "vocab_size": corpus.vocab_size}
    base = command.protocol.base(model, tokens=tokens, eval_tokens=EVAL_TOKENS)
    shapes, seeds = split_names(command.shapes), numbers("seeds", command.protocol.seeds)
    grid = GridConfig(widths=widths, shapes=shapes, seeds=seeds, base=base)
    # A cluster may have what this machine, which only looks on, has not.
    device = choose_device(command.protocol.device if command.on == "local" else "auto")
    jobs = {dim: command.jobs or jobs_at(dim, device) for dim in grid.widths}
    trains = not (command.plan or command.report)
    if isinstance(budget, float):
        of_grid = grid
        steps = steps_in_minutes(
            lambda steps: of_grid.with_steps(steps).cells(), corpus, command.out, minutes=budget, jobs=jobs, keep=trains
        )
        grid = grid.with_steps(steps)
    cells = grid.cells()
    folders = {cell: cell_folder(cell, corpus, command.out) for cell in cells}
    left = {cell: steps_done(cell, path) for cell, path in folders.items() if not RunFolder(path).is_complete}
    if command.plan or (trains and command.minutes is None):  # A slice of time is not spent on a probe.
        _print_plan(cells, left, corpus, jobs)
    failed: dict[str, str] = {}
    if left and trains:
        failed = _train(command, cells, corpus, started)
    if not command.plan and (command.report or any(RunFolder(path).is_complete for path in folders.values())):
        files = write_report(grid, corpus, command.out)
        print(f"Report: {', '.join(map(str, files))}")
    if failed:
        name, reason = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(cells)} models failed; {name}: {reason}")


def _print_plan(cells: Any, left: dict[Any, int], corpus: Any, jobs: dict[int, int]) -> None:
    """What will be trained, and how long it will take."""
    from frailt.console import clock
    from frailt.studies.estimate import HEADERS, plan_rows, plan_seconds, probe

    speeds = probe(cells[0], sorted({cell.model.dim for cell in left}), corpus, jobs=jobs)
    print(table(HEADERS, plan_rows(cells, left, speeds, corpus)))
    time_left = clock(plan_seconds(left, speeds, corpus, jobs=jobs))
    tokens = cells[0].steps * cells[0].tokens_per_step
    print(
        f"{len(left)} of {len(cells)} models to train, each with {tokens:,} tokens; "
        f"up to {max(jobs.values())} at once take about {time_left} on this machine, by a short probe"
        if left
        else f"all {len(cells)} models are complete"
    )


def _train(command: Any, cells: Any, corpus: Any, started: float) -> dict[str, str]:
    """Train what is missing; reasons by the names of models that failed."""
    from frailt.console import ProgressLine
    from frailt.studies.sweep import sweep

    with ProgressLine() as line:
        outcome = sweep(
            cells,
            corpus,
            command.out,
            on=command.on,
            jobs=command.jobs,
            deadline=None if command.minutes is None else started + 60 * command.minutes,
            report=lambda p: line.show("grid", p.share, 1.0, p.describe()),
        )
    if outcome.complete < outcome.runs and not outcome.failed:
        print(f"{outcome.complete} of {outcome.runs} models are complete; the same command goes on from here")
    return outcome.failed


def _budget(text: str) -> int | float:
    """Tokens of each model as an int, or minutes of the whole grid as a float."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?min", text)
    budget = float(match[1]) if match else token_count(text)
    if budget is None:
        raise InputError(f"budget {excerpt(text)!r} is not understood; write tokens like 4M, or minutes like 90min")
    if budget <= 0:
        raise InputError(f"budget is {text}; it must be above 0")
    return budget


EVAL_TOKENS = 32_768
"""Validation tokens for a curve's points before its end: less than a run's own default, since a grid has many runs."""
