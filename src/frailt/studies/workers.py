"""Training the cells of a grid side by side.

Every worker walks the same list of cells and trains those that nobody else is training: the lock of a run folder
decides. So nothing is handed out, a second command on the same folder simply helps, and a killed one goes on where it
stopped.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.files import read_json, write_json
from frailt.paper.grid import Cell
from frailt.studies.gap import story_nats
from frailt.training.device import choose_device
from frailt.training.run_folder import BusyError, RunFolder
from frailt.training.trainer import train

POLL_SECONDS = 1.0
"""Time between looks at the run folders."""


def work(cells: Sequence[Cell], data: Path, out: Path, stop: Callable[[], bool]) -> None:
    """Train each cell that is neither complete nor being trained elsewhere.

    A cell that fails leaves its reason beside its folder, and the next one follows.

    Raises:
        KeyboardInterrupt: Ctrl-C, or ``stop``; the cell at hand has saved its state.
    """
    corpus = Corpus(data)
    for cell in cells:
        folder = cell.folder(out, corpus)
        try:
            if is_complete(folder) or _is_busy(folder):
                continue
            _failure_file(folder).unlink(missing_ok=True)
            train(cell.config, corpus, folder, resume=True, stop=stop)
            story_nats(folder, corpus, choose_device(cell.config.device))
        except BusyError:
            continue
        except (InputError, OSError, RuntimeError) as error:  # It has diverged, or memory or disk are full.
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            write_json(_failure_file(folder), {"reason": reason})
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _is_busy(folder: Path) -> bool:
    """Whether another process trains this cell; asked before a model is made that would take a GPU's memory."""
    run = RunFolder(folder)
    try:
        run.hold()
    except BusyError:
        return True
    run.release()
    return False


def is_complete(folder: Path) -> bool:
    """Whether a cell is trained and measured."""
    return (folder / "story_nats.npy").is_file() and RunFolder(folder).result is not None


def steps_done(cell: Cell, folder: Path) -> int:
    """Training steps of a cell that need not be made again: those before the saved state that it goes on from."""
    run = RunFolder(folder)
    return run.saved if run.result is None else cell.config.steps


def failure(folder: Path) -> str | None:
    """Why a cell's last try failed, if it did."""
    path = _failure_file(folder)
    return read_json(path)["reason"] if path.is_file() else None


def _failure_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.failed.json")


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
        if deadline is not None and time.monotonic() > deadline:
            return False
        own = [cell for cell in cells if cell.dim == dim]
        device = choose_device(own[0].config.device)
        count = min(jobs or jobs_at(dim, device), len(own))
        workers = [
            context.Process(target=_worker, args=(own, data, out, stop, os.getpid(), number)) for number in range(count)
        ]
        try:
            with _environment(threads_at(count)):
                for worker in workers:
                    worker.start()
            while alive := [worker for worker in workers if worker.is_alive()]:
                if deadline is not None and time.monotonic() > deadline:
                    stop.set()
                look()
                alive[0].join(POLL_SECONDS)
        except BaseException:
            stop.set()
            for worker in workers:
                if worker.pid is not None:
                    worker.join()
            raise
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
    if device.type == "cpu":
        return _cores()
    gpus = torch.cuda.device_count() if device.type == "cuda" else 1
    return gpus * max(1, min(runs_on_a_gpu(dim), _cores() // gpus))


def runs_on_a_gpu(dim: int) -> int:
    """How many runs of this width fill one GPU: at small widths the processor that feeds it is the bottleneck."""
    return max(1, min(8, 1024 // dim))


def threads_at(jobs: int) -> int:
    """Threads of each of ``jobs`` runs."""
    return max(1, _cores() // jobs)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worker(cells: Sequence[Cell], data: Path, out: Path, stop: Event, parent: int, number: int) -> None:
    if choose_device(cells[0].config.device).type == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())

    def over() -> bool:
        # A parent that was killed can tell nobody to stop.
        return stop.is_set() or os.getppid() != parent

    try:
        work(cells, data, out, over)
    except KeyboardInterrupt:
        if not over():  # Somebody ended this worker alone; all it has is saved.
            sys.exit(128 + signal.SIGTERM)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Processes started within have this many threads, which OpenMP reads when it is loaded.

    They are deaf to Ctrl-C except while they train: the process that started them says when to stop.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    hears = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if hears else None
    try:
        yield
    finally:
        if hears:
            signal.signal(signal.SIGINT, handler)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
