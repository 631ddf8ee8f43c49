"""The paper's experiment from plan to report: what ``frailt reproduce`` does."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.paper.grid import Cell, GridConfig
from frailt.studies.workers import failure, is_complete, run_local
from frailt.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class GridProgress:
    """Where a grid stands."""

    complete: int
    """Cells that are trained and measured."""
    cells: int
    share: float
    """Part of the whole training that is done, by FLOPs, from 0 to 1."""
    seconds_left: float | None
    """From the pace since this command began; unset until there is one."""
    running: tuple[str, ...]
    """Cells that are under way, with their steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a grid ended."""

    complete: int
    """Cells that are trained and measured, of ``cells``. Fewer where the time was up, or others still train some."""
    cells: int
    failed: dict[str, str]
    """Reasons by the labels of cells whose last try failed."""


def reproduce(
    grid: GridConfig,
    corpus: Corpus,
    out: Path,
    *,
    on: Literal["local", "ray"] = "local",
    jobs: int | None = None,
    deadline: float | None = None,
    report: Callable[[GridProgress], None] = lambda _: None,
) -> Outcome:
    """Train what is missing of a grid, several cells at once. Each cell's run lies in ``out/runs``.

    Args:
        grid: the cells and their protocol.
        corpus: prepared data.
        out: folder of the grid.
        on: this machine, or the Ray cluster that it belongs to.
        jobs: cells at once; unset: what fills the machine.
        deadline: value of ``time.monotonic()`` at which all states are saved and work stops; the same call goes on.
            Unset: to the end.
        report: called about each second.

    Raises:
        KeyboardInterrupt: Ctrl-C; every run has saved its state.
        InputError: ``out`` holds other files, or a worker was killed.
    """
    check_folder(out)
    cells = grid.cells()
    watch = _Watch(cells, corpus, out)
    if on == "ray":
        from frailt.studies.ray_cluster import run_on_ray as run
    else:
        run = run_local
    missing = [cell for cell in cells if not is_complete(cell.folder(out, corpus))]
    run(missing, corpus.folder, out, jobs=jobs, deadline=deadline, look=lambda: report(watch.look()))
    at_last = watch.look()
    report(at_last)
    reasons = {cell.label: failure(cell.folder(out, corpus)) for cell in missing}
    return Outcome(
        complete=at_last.complete,
        cells=at_last.cells,
        failed={label: reason for label, reason in reasons.items() if reason is not None},
    )


def check_folder(out: Path) -> None:
    """Refuse a folder whose files are not a grid's, since a report would replace some.

    Raises:
        InputError: it is one.
    """
    names = {path.name for path in out.iterdir()} if out.is_dir() else set[str]()
    if out.is_file() or (names and not names & {"runs", "budgets.json"}):
        raise InputError(f"{out} holds other files and no grid; choose another --out")


class _Watch:
    """Reads from the run folders how far their runs are, whoever trains them."""

    def __init__(self, cells: Sequence[Cell], corpus: Corpus, out: Path) -> None:
        self.open = [(cell, RunFolder(cell.folder(out, corpus))) for cell in cells]
        """Cells that were not complete when last looked at."""
        self.cells = len(cells)
        self.work = sum(cell.work for cell in cells)
        self.start: tuple[float, float] | None = None

    def look(self) -> GridProgress:
        self.open = [(cell, folder) for cell, folder in self.open if not is_complete(folder.path)]
        steps = [(cell, folder.step) for cell, folder in self.open]
        share = 1 - sum(cell.work * (1 - step / cell.config.steps) for cell, step in steps) / self.work
        now = time.monotonic()
        self.start = self.start or (now, share)
        gained, took = share - self.start[1], now - self.start[0]
        return GridProgress(
            complete=self.cells - len(self.open),
            cells=self.cells,
            share=share,
            seconds_left=(1 - share) * took / gained if gained > 0 else None,
            running=tuple(f"{cell.label} {step}/{cell.config.steps}" for cell, step in steps if step),
        )


def describe(progress: GridProgress) -> str:
    """Where a grid stands, in a few words."""
    left = "" if progress.seconds_left is None else f", {clock(progress.seconds_left)} left"
    running = f": {', '.join(progress.running)}" if progress.running else ""
    return f"{progress.complete}/{progress.cells} models, {progress.share:.1%}{left}{running}"
