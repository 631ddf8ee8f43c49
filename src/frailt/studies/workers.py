"""Training the runs of a study side by side.

Every worker walks the same list of configs and trains those that nobody else is training: the lock of a run folder
decides. So nothing is handed out, a second command on the same folder simply helps, and a killed one goes on where it
stopped.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from frailt.data.corpus import Corpus
from frailt.device import choose_device
from frailt.errors import InputError
from frailt.files import BusyError, read_json, write_json, write_text
from frailt.studies.cells import cell_folder, is_done, keep_record
from frailt.training.config import TrainConfig
from frailt.training.trainer import train

POLL_SECONDS = 1.0
"""Time between looks at the run folders."""
LONGEST_REASON = 300
"""Characters of an error's first line that are kept as the reason of a failure."""
DEVICE_LOST = 70
"""Exit status of a worker whose GPU answers no more: another process can use it again."""


def work(configs: Sequence[TrainConfig], data: Path, out: Path, stop: Callable[[], bool]) -> None:
    """Train each run that is neither complete, nor being trained elsewhere, nor failed (``clear_failures``).

    A run that fails leaves its reason beside its folder, and the next one follows. Its traceback lies there too, where
    the reason is none that is to be expected of training.

    Raises:
        KeyboardInterrupt: Ctrl-C, or ``stop``; the run at hand has saved its state.
        SystemExit: the GPU answers no more; what it was at is marked as failed.
    """
    corpus = Corpus(data)
    for config in configs:
        folder = cell_folder(config, corpus, out)
        try:
            if failure(folder) is None and not is_done(folder):
                train(config, corpus, folder, resume=True, stop=stop)
                keep_record(folder, corpus)
        except BusyError:
            continue
        except (InputError, OSError) as error:  # It has diverged, or memory or disk are full.
            _fail(folder, str(error).strip() or type(error).__name__)
        except Exception as error:  # Recorded whole, since the other runs are worth going on with.
            path = folder.with_name(f"{folder.name}.failed.txt")
            write_text(path, traceback.format_exc())
            _fail(folder, f"{type(error).__name__}: {str(error).strip()}", f"; traceback in {path}")
        if torch.cuda.is_available():
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except RuntimeError:  # After a failed assertion on it, every call fails in this process.
                sys.exit(DEVICE_LOST)


def _fail(folder: Path, reason: str, more: str = "") -> None:
    line = reason.splitlines()[0][:LONGEST_REASON] + more
    try:
        write_json(_failure_file(folder), {"reason": line})
    except OSError:  # The disk that failed the run fails its record, too.
        print(f"frailt: {folder.name}: {line}", file=sys.stderr)


def failure(folder: Path) -> str | None:
    """Why a run's last try failed, if it did."""
    path = _failure_file(folder)
    try:
        return str(read_json(path)["reason"]) if path.is_file() else None
    except (InputError, KeyError):
        return f"{path} is damaged"


def clear_failures(configs: Sequence[TrainConfig], corpus: Corpus, out: Path) -> None:
    """Let runs that have failed be tried again."""
    for config in configs:
        _failure_file(cell_folder(config, corpus, out)).unlink(missing_ok=True)


def _failure_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.failed.json")


def run_local(
    configs: Sequence[TrainConfig],
    data: Path,
    out: Path,
    *,
    jobs: int | None = None,
    deadline: float | None = None,
    look: Callable[[], None] = lambda: None,
) -> bool:
    """Train runs in processes on this machine, width by width: ``jobs``, or ``jobs_at(width)``, at once.

    Arguments are those of ``sweep``; ``look`` is called about each second.

    Returns:
        Whether all was done that could be; false at the deadline.

    Raises:
        KeyboardInterrupt: Ctrl-C; every run has saved its state.
        InputError: a worker ended by itself, killed for its memory, say.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    # A width at a time: its models fill the device equally, and a worker compiles its block once for all of them.
    for dim in dict.fromkeys(config.model.dim for config in configs):
        if deadline is not None and time.monotonic() > deadline:
            return False
        same_width = [config for config in configs if config.model.dim == dim]
        device = choose_device(same_width[0].device)
        count = min(jobs or jobs_at(dim, device), len(same_width))

        def start(number: int, runs: Sequence[TrainConfig] = same_width, count: int = count) -> BaseProcess:
            worker = context.Process(target=_worker, args=(runs, data, out, stop, os.getpid(), number))
            with _environment(threads_at(count)):
                worker.start()
            return worker

        workers: list[BaseProcess] = []
        try:
            for number in range(count):
                workers.append(start(number))
            while alive := [worker for worker in workers if worker.is_alive()]:
                if deadline is not None and time.monotonic() > deadline:
                    stop.set()
                look()
                alive[0].join(POLL_SECONDS)
                for number, worker in enumerate(workers):
                    if worker.exitcode == DEVICE_LOST and not stop.is_set():
                        workers[number] = start(number)
        except BaseException:
            stop.set()
            for worker in workers:
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


def _worker(configs: Sequence[TrainConfig], data: Path, out: Path, stop: Event, parent: int, number: int) -> None:
    if choose_device(configs[0].device).type == "cuda":
        torch.cuda.set_device(number % torch.cuda.device_count())

    def over() -> bool:
        # A parent that was killed can tell nobody to stop.
        return stop.is_set() or os.getppid() != parent

    try:
        work(configs, data, out, over)
    except KeyboardInterrupt:
        if not over():  # Somebody ended this worker alone; all it has is saved.
            sys.exit(128 + signal.SIGTERM)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Processes started within have this many threads, which OpenMP reads when it is loaded.

    They ignore Ctrl-C except while they train: the process that started them says when to stop.
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
