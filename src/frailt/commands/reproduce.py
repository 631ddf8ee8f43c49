"""Train the paper's grid, and report it beside the published numbers."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frailt.errors import InputError, excerpt
from frailt.options import corpus_in, numbers, parse, token_count


def run(args: list[str]) -> None:
    from frailt.commands.protocol import Protocol
    from frailt.commands.study import Study
    from frailt.compiling import announce_compiling
    from frailt.model.variant import split_names
    from frailt.paper.grid import SHAPES, WIDTHS, GridConfig
    from frailt.paper.grid_report import write_report
    from frailt.studies.estimate import steps_in_minutes
    from frailt.studies.sweep import check_folder

    @dataclass(frozen=True, kw_only=True)
    class Command:
        widths: str = ",".join(map(str, WIDTHS))
        """Embedding dimensions, joined by commas."""
        shapes: str = ",".join(SHAPES)
        """Models, joined by commas. Settings may follow a colon: 1^8:none is without encodings."""
        budget: str = "4M"
        """Training: tokens of every model, like 4M, or of those of each width, like 64:10M,256:4M; or minutes of the
        whole grid, like 90min."""
        out: Path = Path("runs/grid")
        """Folder for runs and report."""
        study: Study = field(default_factory=Study)
        protocol: Protocol = field(default_factory=Protocol)

    command = parse(Command, "reproduce", args, __doc__)
    announce_compiling()
    budget = _budget(command.budget)
    check_folder(command.out)
    corpus = corpus_in(command.protocol.data)
    widths = numbers("widths", command.widths)
    budgets = budget if isinstance(budget, dict) else {}
    tokens = budget if isinstance(budget, int) else budgets.get(widths[0], 1)
    model = {"dim": widths[0], "vocab_size": corpus.vocab_size}
    base = command.protocol.base(model, tokens=tokens, eval_tokens=EVAL_TOKENS)
    shapes, seeds = split_names(command.shapes), numbers("seeds", command.protocol.seeds)
    grid = GridConfig(widths=widths, shapes=shapes, seeds=seeds, base=base, budgets=budgets)
    jobs = command.study.jobs_at(grid.widths, command.protocol.device)
    if isinstance(budget, float):
        of_grid = grid
        steps = steps_in_minutes(
            lambda steps: of_grid.with_steps(steps).cells(),
            corpus,
            command.out,
            minutes=budget,
            jobs=jobs,
            keep=command.study.trains,
        )
        grid = grid.with_steps(steps)
    command.study.run(
        "grid", grid.cells(), corpus, command.out, jobs=jobs, report=lambda: write_report(grid, corpus, command.out)
    )


def _budget(text: str) -> Any:
    """Tokens of each model as an int, or a dictionary of them by width; or minutes of the whole grid as a float."""

    def above_0(amount: Any) -> Any:
        if amount is None:
            raise InputError(
                f"budget {excerpt(text)!r} is not understood; write tokens like 4M or 64:10M,256:4M, or minutes like "
                "90min"
            )
        if amount <= 0:
            raise InputError(f"budget is {text}; it must be above 0")
        return amount

    if match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?min", text):
        return above_0(float(match[1]))
    if ":" not in text:
        return above_0(token_count(text))
    pairs = [pair.partition(":") for pair in text.split(",")]
    budgets = {above_0(token_count(dim)): above_0(token_count(tokens)) for dim, _, tokens in pairs}
    if len(budgets) < len(pairs):
        raise InputError(f"budget {excerpt(text)!r} has a width twice; list each once")
    return budgets


EVAL_TOKENS = 32_768
"""Validation tokens for a curve's points before its end: less than a run's own default, since a grid has many runs."""
