"""Sweeps: any list of runs, trained several at once by all machines at hand, and watched meanwhile."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.studies.cells import cell_folder, is_done, labels, training_flops
from frailt.studies.workers import clear_failures, failure, run_local
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepProgress:
    """Where a sweep stands."""

    complete: int
    """Runs that are trained and measured. At the end fewer than ``runs`` where time was up, or others train some."""
    runs: int
    share: float
    """Share of the whole training that is done, by FLOPs, from 0 to 1."""
    seconds_left: float | None
    """From the speed since this command began; unset until there is one."""
    running: tuple[str, ...]
    """Runs that are under way, with their steps."""
    failed: dict[str, str] = field(default_factory=dict)
    """At the end: reasons by the folder names of runs whose last try failed."""

    def describe(self) -> str:
        """The same in a few words."""
        left = "" if self.seconds_left is None else f", {clock(self.seconds_left)} left"
        running = f": {', '.join(self.running)}" if self.running else ""
        return f"{self.complete}/{self.runs} models, {self.share:.1%}{left}{running}"


def sweep(
    configs: Sequence[TrainConfig],
    corpus: Corpus,
    out: Path,
    *,
    on: Literal["local", "ray"] = "local",
    jobs: int | None = None,
    deadline: float | None = None,
    report: Callable[[SweepProgress], None] = lambda _: None,
) -> SweepProgress:
    """Train what is missing of a list of runs, several at once. Each run lies in ``out/runs``.

    Args:
        configs: in the order in which they shall start.
        corpus: prepared data.
        out: folder of the study.
        on: this machine, or the Ray cluster that it belongs to.
        jobs: runs at once; unset: what fills the machine.
        deadline: value of ``time.monotonic()`` at which all states are saved and work stops; the same call goes on.
            Unset: to the end.
        report: called about each second.

    Returns:
        Where it stands at the end.

    Raises:
        KeyboardInterrupt: Ctrl-C; every run has saved its state.
        InputError: ``out`` holds other files, or a worker was killed.
    """
    check_folder(out)
    watch = Watch(configs, corpus, out)
    watch.look()
    if on == "ray":
        from frailt.studies.ray_cluster import run_on_ray as run
    else:
        run = run_local
    missing = [config for config, _ in watch.open]
    clear_failures(missing, corpus, out)
    run(missing, corpus.folder, out, jobs=jobs, deadline=deadline, look=lambda: report(watch.look()))
    end = watch.look()
    report(end)
    reasons = {(path := cell_folder(config, corpus, out)).name: failure(path) for config in missing}
    return replace(end, failed={name: reason for name, reason in reasons.items() if reason is not None})


def check_folder(out: Path) -> None:
    """Refuse a folder whose files are not a study's, since a report would replace some.

    Raises:
        InputError: it is one.
    """
    kinds = ("runs/*/run.json", "runs/*.failed.json", "cells/*.json", "budgets.json")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set[str]()
    # Its first run may have been stopped before it was begun.
    if out.is_file() or (names - {"runs"} and not any(any(out.glob(kind)) for kind in kinds)):
        raise InputError(f"{out} holds other files and no study; choose another --out")


class Watch:
    """Reads from the run folders how far their runs are, whoever trains them."""

    def __init__(self, configs: Sequence[TrainConfig], corpus: Corpus, out: Path) -> None:
        self.open = [(config, cell_folder(config, corpus, out)) for config in configs]
        """Runs that were not complete when last looked at."""
        self.names = labels(configs)
        self.runs = len(configs)
        self.flops = sum(map(training_flops, configs))
        self.start: tuple[float, float] | None = None

    def look(self) -> SweepProgress:
        """Where the runs are now."""
        looked = [(config, folder, step) for config, folder in self.open if (step := _step(folder)) is not None]
        self.open = [(config, folder) for config, folder, _ in looked]
        steps = [(config, step) for config, _, step in looked]
        share = 1 - sum(training_flops(config) * (1 - step / config.steps) for config, step in steps) / self.flops
        now = time.monotonic()
        self.start = self.start or (now, share)
        gained, took = share - self.start[1], now - self.start[0]
        return SweepProgress(
            complete=self.runs - len(self.open),
            runs=self.runs,
            share=share,
            seconds_left=(1 - share) * took / gained if gained > 0 else None,
            running=tuple(f"{self.names[config]} {step}/{config.steps}" for config, step in steps if step),
        )


def _step(folder: Path) -> int | None:
    """The last step of a run that goes on; ``None`` of one that is done."""
    try:
        return None if is_done(folder) else RunFolder(folder).step
    except InputError:  # Damaged: who trains it says so.
        return 0
