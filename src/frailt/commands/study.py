"""What the commands do that train any number of runs side by side: plan, train, report."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from frailt.configs import require
from frailt.console import ProgressLine, clock
from frailt.device import Device, choose_device
from frailt.errors import InputError
from frailt.options import table
from frailt.studies.cells import cell_folder, is_done, keep_record, steps_done
from frailt.studies.estimate import HEADERS, plan_rows, plan_seconds, probe
from frailt.studies.sweep import sweep
from frailt.studies.workers import jobs_at


@dataclass(frozen=True, kw_only=True)
class Study:
    """How a study is run."""

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

    def __post_init__(self) -> None:
        require(self, "jobs minutes", 0, above=True)
        if self.on == "ray" and find_spec("ray") is None:
            raise InputError("ray is not installed; pip install 'frailt[ray]', or leave out --on")

    @property
    def trains(self) -> bool:
        """Whether anything is trained."""
        return not (self.plan or self.report)

    def jobs_at(self, widths: Iterable[int], device: Device) -> dict[int, int]:
        """Runs at once at each width."""
        # A cluster may have what this machine, which only looks on, has not.
        where = choose_device(device if self.on == "local" else "auto")
        return {dim: self.jobs or jobs_at(dim, where) for dim in widths}

    def run(
        self,
        name: str,
        cells: Sequence[Any],
        corpus: Any,
        out: Path,
        *,
        jobs: Mapping[int, int],
        report: Callable[[], Sequence[Path]],
    ) -> None:
        """Show the plan, train what is missing, and report what is complete.

        Args:
            name: of the study, for its progress.
            cells: configs of its runs.
            corpus: prepared data.
            out: folder of the study.
            jobs: see ``jobs_at``.
            report: writes the report; the paths of its files.

        Raises:
            InputError: a run has failed; the report is written.
        """
        folders = {cell: cell_folder(cell, corpus, out) for cell in cells}
        for folder in () if self.plan else folders.values():
            with suppress(InputError):  # The report names a damaged one.
                keep_record(folder, corpus)  # A kill may have come between a run's end and its record.
        left = {cell: steps_done(cell, path) for cell, path in folders.items() if not is_done(path)}
        if self.plan or (self.trains and self.minutes is None):  # A slice of time is not spent on a probe.
            _print_plan(cells, left, corpus, jobs)
        failed: dict[str, str] = {}
        if left and self.trains:
            failed = self._train(name, cells, corpus, out)
        if not self.plan and (self.report or any(map(is_done, folders.values()))):
            print(f"Report: {', '.join(map(str, report()))}")
        if failed:
            cell, reason = next(iter(failed.items()))
            raise InputError(f"{len(failed)} of {len(cells)} models failed; {cell}: {reason}")

    def _train(self, name: str, cells: Sequence[Any], corpus: Any, out: Path) -> dict[str, str]:
        """Reasons by the names of models that failed."""
        started = time.monotonic()
        with ProgressLine() as line:
            outcome = sweep(
                cells,
                corpus,
                out,
                on=self.on,
                jobs=self.jobs,
                deadline=None if self.minutes is None else started + 60 * self.minutes,
                report=lambda p: line.show(name, p.share, 1.0, p.describe()),
            )
        if outcome.complete < outcome.runs and not outcome.failed:
            print(f"{outcome.complete} of {outcome.runs} models are complete; the same command goes on from here")
        return outcome.failed


def _print_plan(cells: Sequence[Any], left: dict[Any, int], corpus: Any, jobs: Mapping[int, int]) -> None:
    """What will be trained, and how long it will take."""
    speeds = probe(cells[0], sorted({cell.model.dim for cell in left}), corpus, jobs=jobs)
    print(table(HEADERS, plan_rows(cells, left, speeds, corpus)))
    if not left:
        print(f"all {len(cells)} models are complete")
        return
    budgets = sorted({cell.steps * cell.tokens_per_step for cell in cells})
    tokens = f"{budgets[0]:,}" if len(budgets) == 1 else f"{budgets[0]:,} to {budgets[-1]:,}"
    total = clock(plan_seconds(left, speeds, corpus, jobs=jobs))
    print(
        f"{len(left)} of {len(cells)} models to train, each with {tokens} tokens; up to {max(jobs.values())} at once "
        f"take about {total} on this machine, by the fastest of some steps: other work beside them makes it longer"
    )
