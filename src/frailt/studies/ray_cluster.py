"""The runs of a study on a Ray cluster, a task each."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from frailt.errors import InputError
from frailt.studies.cells import labels
from frailt.studies.workers import POLL_SECONDS, runs_on_a_gpu, work
from frailt.training.config import TrainConfig


def run_on_ray(
    configs: Sequence[TrainConfig],
    data: Path,
    out: Path,
    *,
    jobs: int | None = None,
    deadline: float | None = None,
    look: Callable[[], None] = lambda: None,
) -> bool:
    """Train runs on every machine of the cluster that this one belongs to (``ray start``), or on this one alone.

    Data and ``out`` must lie at the same paths on all machines, on a shared file system: that is where a run's state is
    kept, and its lock. Each task asks for one processor core, or for the part of a GPU that its width needs.

    Arguments and result are those of ``run_local``; ``jobs`` unset: as many as the cluster has room for.

    Raises:
        KeyboardInterrupt: Ctrl-C; every run has saved its state.
        InputError: a task was lost with its machine.
    """
    if not ray.is_initialized():
        ray.init(address=None, include_dashboard=False, log_to_driver=False)
    # Clocks differ between machines by less than anybody cares, monotonic ones by anything.
    until = time.time() + deadline - time.monotonic() if deadline is not None else None
    waiting, running, names = list(configs), {}, labels(configs)
    try:
        while waiting or running:
            while waiting and (jobs is None or len(running) < jobs):
                config = waiting.pop(0)
                running[_task(config).remote(config, data.resolve(), out.resolve(), until)] = config
            done, _ = ray.wait(list(running), timeout=POLL_SECONDS)
            for task in done:
                config = running.pop(task)
                try:
                    ray.get(task)
                except RayError as error:
                    last = str(error).strip().splitlines()[-1]
                    raise InputError(f"{names[config]} was lost ({last}); the same command goes on from here") from None
            look()
            if deadline is not None and time.monotonic() > deadline:
                waiting.clear()
    except KeyboardInterrupt:
        for task in running:
            ray.cancel(task)  # Reaches the task as Ctrl-C: it saves its state.
        if running:
            ray.wait(list(running), num_returns=len(running))
        raise
    return deadline is None or time.monotonic() < deadline


def _task(config: TrainConfig) -> Any:
    """The task of a run, with the resources that it needs."""
    # The cluster's GPUs count, not this machine's: the head of a cluster often has none.
    gpu = config.device in ("auto", "cuda") and ray.cluster_resources().get("GPU", 0) > 0
    share = 1 / runs_on_a_gpu(config.model.dim) if gpu else 0
    # A process for each task: what a run leaves behind, on its GPU or in its compiler, is none of the next one's.
    return ray.remote(num_cpus=1, num_gpus=share, max_retries=2, max_calls=1)(_train)


def _train(config: TrainConfig, data: Path, out: Path, until: float | None) -> None:
    if until is not None and time.time() > until:  # It has waited for its turn too long.
        return
    try:
        work([config], data, out, lambda: until is not None and time.time() > until)
    except KeyboardInterrupt:
        if until is None or time.time() < until:
            raise
