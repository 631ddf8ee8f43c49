"""Train the paper's grid, and report it beside the published numbers."""

import re
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from frailt.errors import InputError
from frailt.options import corpus_in, numbers, parse, table, token_count


def run(args: list[str]) -> None:
    from frailt.compiling import announce_compiling
    from frailt.console import ProgressLine, clock
    from frailt.model.frailt import ModelConfig
    from frailt.paper.grid import SHAPES, WIDTHS, GridConfig
    from frailt.paper.grid_report import write_report
    from frailt.paper.reproduce import check_folder, describe, reproduce
    from frailt.studies.estimate import HEADERS, budget_of_minutes, plan_rows, plan_seconds, probe
    from frailt.studies.workers import is_complete, jobs_at, steps_done
    from frailt.training.config import OptimizerConfig, TrainConfig
    from frailt.training.device import Device, Precision, choose_device

    @dataclass(frozen=True, kw_only=True)
    class Command:
        widths: str = ",".join(map(str, WIDTHS))
        """Embedding dimensions, joined by commas."""
        shapes: str = ",".join(SHAPES)
        """Models, joined by commas. An encoding may follow a colon: 1^8:none."""
        seeds: str = "0"
        """Seeds, joined by commas; every model is trained with each."""
        budget: str = "4M"
        """Training: tokens of every model, like 4M, or minutes of the whole grid, like 90min."""
        data: Path | None = None
        """Folder made by `frailt prepare`; unset: the embedded story world."""
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
        lr: float = OptimizerConfig().lr
        """Peak learning rate."""
        batch: int = TrainConfig().batch
        """Sequences in one step."""
        context: int = 512
        """Longest sequence, in tokens."""
        heads: int = 8
        """Attention heads."""
        precision: Precision = "auto"
        """Of matrix products; auto: bfloat16 where the device is fast at it."""
        compile: bool = False
        """Compile the block with torch.compile."""
        device: Device = "auto"
        """Where to compute."""

        def __post_init__(self) -> None:
            for name in ("jobs", "minutes"):
                if getattr(self, name) is not None and getattr(self, name) <= 0:
                    raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")
            if self.on == "ray" and find_spec("ray") is None:
                raise InputError("ray is not installed; pip install 'frailt[ray]', or leave out --on")

    started = time.monotonic()
    command = parse(Command, "reproduce", args, __doc__)
    announce_compiling()
    budget = _budget(command.budget)
    check_folder(command.out)
    corpus = corpus_in(command.data)
    widths = numbers("widths", command.widths)
    base = TrainConfig(
        model=ModelConfig(dim=widths[0], heads=command.heads, context=command.context, vocab_size=corpus.vocab_size),
        optimizer=OptimizerConfig(lr=command.lr),
        tokens=budget if isinstance(budget, int) else 1,
        batch=command.batch,
        eval_tokens=EVAL_TOKENS,
        precision=command.precision,
        compile=command.compile,
        device=command.device,
    )
    grid = GridConfig(
        widths=widths,
        shapes=tuple(command.shapes.replace(" ", "").split(",")),
        seeds=numbers("seeds", command.seeds),
        base=base,
    )
    # A cluster may have what this machine, which only looks on, has not.
    device = choose_device(command.device if command.on == "local" else "auto")
    jobs = {dim: command.jobs or jobs_at(dim, device) for dim in grid.widths}
    trains = not (command.plan or command.report)
    if isinstance(budget, float):
        grid = budget_of_minutes(grid, corpus, command.out, minutes=budget, jobs=jobs, keep=trains)
    cells = grid.cells()
    folders = {cell: cell.folder(command.out, corpus) for cell in cells}
    missing = {cell: steps_done(cell, folder) for cell, folder in folders.items() if not is_complete(folder)}
    if command.plan or (trains and command.minutes is None):  # A slice of time is not spent on a probe.
        speeds = probe(grid, sorted({cell.dim for cell in missing}), corpus, jobs=jobs)
        print(table(HEADERS, plan_rows(cells, missing, speeds, corpus)))
        left = clock(plan_seconds(missing, speeds, corpus, jobs=jobs))
        tokens = grid.base.steps * grid.base.tokens_per_step
        print(
            f"{len(missing)} of {len(cells)} models to train, each with {tokens:,} tokens; "
            f"up to {max(jobs.values())} at once take about {left} on this machine, by a short probe"
            if missing
            else f"all {len(cells)} models are complete"
        )
    if command.plan:
        return
    failed: dict[str, str] = {}
    if missing and trains:
        with ProgressLine() as line:
            outcome = reproduce(
                grid,
                corpus,
                command.out,
                on=command.on,
                jobs=command.jobs,
                deadline=None if command.minutes is None else started + 60 * command.minutes,
                report=lambda p: line.show("grid", p.share, 1.0, describe(p)),
            )
        failed = outcome.failed
        if outcome.complete < outcome.cells and not failed:
            print(f"{outcome.complete} of {outcome.cells} models are complete; the same command goes on from here")
    if command.report or any(map(is_complete, folders.values())):
        files = write_report(grid, corpus, command.out)
        print(f"Report: {', '.join(map(str, files))}")
    if failed:
        label, reason = next(iter(failed.items()))
        raise InputError(f"{len(failed)} of {len(cells)} models failed; {label}: {reason}")


def _budget(text: str) -> int | float:
    """Tokens of each model as an int, or minutes of the whole grid as a float."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?min", text)
    budget = float(match[1]) if match else token_count(text)
    if budget is None:
        raise InputError(f"budget {text!r} is not understood; write tokens like 4M, or minutes like 90min")
    if budget == 0:
        raise InputError(f"budget is {text}; it must be above 0")
    return budget


EVAL_TOKENS = 32_768
"""Validation tokens for a curve's points before its end: less than a run's own default, since a grid has many runs."""
