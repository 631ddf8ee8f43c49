"""Train the paper's grid, and report it beside the published numbers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from frailt.errors import InputError
from frailt.options import corpus_in, numbers, parse, table, token_count


def run(args: list[str]) -> None:
    from frailt.model.frailt import ModelConfig
    from frailt.paper.estimate import HEADERS, budget_of_minutes, plan_rows, plan_seconds, probe
    from frailt.paper.grid import SHAPES, WIDTHS, GridConfig
    from frailt.paper.grid_report import write_report
    from frailt.paper.reproduce import describe, reproduce
    from frailt.paper.workers import is_complete, jobs_at
    from frailt.training.config import OptimizerConfig, TrainConfig
    from frailt.training.progress import ProgressLine, clock
    from frailt.training.trainer import choose_device

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
        precision: Literal["float32", "bfloat16"] = "float32"
        """Of matrix products."""
        compile: bool = False
        """Compile the block with torch.compile."""
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
        """Where to compute."""

        def __post_init__(self) -> None:
            for name in ("jobs", "minutes"):
                if getattr(self, name) is not None and getattr(self, name) <= 0:
                    raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")

    command = parse(Command, "reproduce", args, __doc__)
    tokens, whole_minutes = _budget(command.budget)
    corpus = corpus_in(command.data)
    base = TrainConfig(
        model=ModelConfig(heads=command.heads, context=command.context, vocab_size=corpus.vocab_size),
        optimizer=OptimizerConfig(lr=command.lr),
        tokens=tokens,
        batch=command.batch,
        eval_tokens=32_768,
        precision=command.precision,
        compile=command.compile,
        device=command.device,
    )
    grid = GridConfig(
        widths=numbers("widths", command.widths),
        shapes=tuple(command.shapes.replace(" ", "").split(",")),
        seeds=numbers("seeds", command.seeds),
        base=base,
    )
    device = choose_device(command.device)
    jobs = {dim: command.jobs or jobs_at(dim, device) for dim in grid.widths}
    if whole_minutes is not None:
        grid = budget_of_minutes(grid, corpus, command.out, minutes=whole_minutes, jobs=jobs)
    cells = grid.cells()
    missing = [cell for cell in cells if not is_complete(cell.folder(command.out, corpus))]
    if not command.report:
        speeds = probe(grid, sorted({cell.dim for cell in missing}), corpus, jobs=jobs)
        print(table(HEADERS, plan_rows(cells, missing, speeds, corpus)))
        time = clock(plan_seconds(missing, speeds, corpus, jobs=jobs))
        tokens = grid.base.steps * grid.base.tokens_per_step
        print(
            f"{len(missing)} of {len(cells)} models to train, each with {tokens:,} tokens; "
            f"{max(jobs.values())} at once take about {time} on this machine, by a short probe"
            if missing
            else f"all {len(cells)} models are complete"
        )
    if command.plan:
        return
    if missing and not command.report:
        with ProgressLine() as line:
            whole = reproduce(
                grid,
                corpus,
                command.out,
                on=command.on,
                jobs=command.jobs,
                minutes=command.minutes,
                report=lambda p: line.show("grid", p.share, 1.0, describe(p)),
            )
        if not whole:
            print("not all models are complete; the same command goes on from here")
        if not any(is_complete(cell.folder(command.out, corpus)) for cell in cells):
            return
    files = write_report(grid, corpus, command.out)
    print(f"Report: {', '.join(map(str, files))}")


def _budget(text: str) -> tuple[int, float | None]:
    """Tokens of each model, or the minutes of the whole grid (with one token, until they are turned into tokens)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?min", text)
    if match and float(match[1]) > 0:
        return 1, float(match[1])
    tokens = token_count(text)
    if not tokens:
        raise InputError(f"budget {text!r} is not understood; write tokens like 4M, or minutes like 90min")
    return tokens, None
