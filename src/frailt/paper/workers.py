"""Training the cells of a grid side by side.

Every worker walks the same list of cells and trains those that nobody else is training: the lock of a run folder
decides. So nothing is handed out, a second command on the same folder simply helps, and a killed one goes on where it
stopped.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from frailt.data.batches import Corpus
from frailt.errors import InputError
from frailt.files import read_json, write_json
from frailt.paper.gap import story_nats
from frailt.paper.grid import Cell
from frailt.training.run_folder import BusyError, RunFolder
from frailt.training.trainer import choose_device, train

MOST_ON_A_GPU = 8
"""Runs that share one GPU at small widths: there the processor that feeds it is the bottleneck."""
POLL_SECONDS = 1.0
"""Time between looks at the run folders."""


def work(cells: Sequence[Cell], data: Path, out: Path, stop: Callable[[], bool]) -> None:
    """Train each cell that is neither complete nor being trained elsewhere.

    A cell that fails leaves its reason in its folder (``failure.json``), and the next one follows.

    Raises:
        KeyboardInterrupt: Ctrl-C, or ``stop``; the cell at hand has saved its state.
    """
    corpus = Corpus(data)
    for cell in cells:
        folder = cell.folder(out, corpus)
        if is_complete(folder):
            continue
        with suppress(BusyError):
            try:
                train(cell.config, corpus, folder, resume=True, stop=stop)
                story_nats(folder, corpus, choose_device(cell.config.device))
                (folder / "failure.json").unlink(missing_ok=True)
            except BusyError:
                raise
            except InputError as error:  # It has diverged, say; a bug or a full disk ends the worker.
                write_json(folder / "failure.json", {"reason": str(error)})


def is_complete(folder: Path) -> bool:
    """Whether a cell is trained and measured."""
    return (folder / "story_nats.npy").is_file() and RunFolder(folder).result is not None


def failure(folder: Path) -> str | None:
    """Why a cell's last try failed, if it did."""
    path = folder / "failure.json"
    return read_json(path)["reason"] if path.is_file() else None


def run_local(
    cells: Sequence[Cell],
    data: Path,
    out: Path,
    *,
    jobs: int | None = None,
    deadline: float | None = None,
    look: Callable[[], None] = lambda: None,
) -> bool:
    """Train cells in processes on this machine, width by width.

    Args:
        cells: in the order in which they shall start.
        data: prepared data.
        out: folder of the grid.
        jobs: processes at once; unset: ``jobs_at(width)``.
        deadline: value of ``time.monotonic()`` at which all save their state and stop.
        look: called about each second.

    Returns:
        Whether all was done that could be; false at the deadline.

    Raises:
        KeyboardInterrupt: Ctrl-C; every run has saved its state.
        InputError: a worker ended by itself, killed for its memory, say.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    # A width at a time: its models fill the device equally, and a worker compiles its block once for all of them.
    for dim in dict.fromkeys(cell.dim for cell in cells):
        own = [cell for cell in cells if cell.dim == dim]
        device = choose_device(own[0].config.device)
        count = min(jobs or jobs_at(dim, device), len(own))
        with _environment(threads_at(count)):
            workers = [
                context.Process(target=_worker, args=(own, data, out, stop, os.getpid(), number), daemon=True)
                for number in range(count)
            ]
            for worker in workers:
                worker.start()
        interrupted = False
        while any(worker.is_alive() for worker in workers):
            try:
                if deadline is not None and time.monotonic() > deadline:
                    stop.set()
                look()
                next((worker for worker in workers if worker.is_alive()), workers[0]).join(POLL_SECONDS)
            except KeyboardInterrupt:
                if interrupted:  # A second Ctrl-C does not wait; what was saved before is kept.
                    raise
                interrupted = True
                stop.set()
        if interrupted:
            raise KeyboardInterrupt
        if stop.is_set():
            return False
        if dead := [worker.exitcode for worker in workers if worker.exitcode]:
            raise InputError(
                f"a worker ended with status {dead[0]}; if its memory ran out (status -9), give fewer --jobs. "
                "The same command goes on from here"
            )
    return True


def jobs_at(dim: int, device: torch.device) -> int:
    """How many runs of this width share the machine: one a core, or as many as it takes to fill each GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type == "cpu":
        return cores
    gpus = torch.cuda.device_count() if device.type == "cuda" else 1
    return gpus * max(1, min(MOST_ON_A_GPU, 1024 // dim, cores // gpus))


def threads_at(jobs: int) -> int:
    """Threads of each of ``jobs`` runs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _worker(cells: Sequence[Cell], data: Path, out: Path, stop: Event, parent: int, number: int) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    with suppress(KeyboardInterrupt):
        # A parent that was killed can tell nobody to stop.
        work(cells, data, out, lambda: stop.is_set() or os.getppid() != parent)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Processes started within have this many threads: OpenMP and Numba read it when they are loaded."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
