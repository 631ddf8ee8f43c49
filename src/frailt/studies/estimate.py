"""What a study will cost on this machine, before it starts: time from a short measured probe, memory by counting."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from frailt.configs import changed, from_json, require
from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.files import read_json, write_json
from frailt.model.counts import activation_bytes, count
from frailt.studies.cells import cell_folder, label, labels
from frailt.studies.workers import threads_at
from frailt.training.config import TrainConfig
from frailt.training.depth import mean_depth
from frailt.training.loop import VALIDATION
from frailt.training.trainer import measure_speed

STATE_BYTES = 16
"""Bytes for each parameter while it trains: weight, gradient and AdamW's two means, in float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Seconds of training for a token at one width: a pass costs what a block costs, so two numbers are enough."""

    first: float
    """With one block."""
    block: float
    """For each block or pass more."""

    def seconds(self, config: TrainConfig, valid_tokens: int, *, done: int = 0) -> float:
        """What is left of a run after ``done`` steps, validations counted as ``loop.VALIDATION`` says."""
        some = min(config.eval_tokens, valid_tokens)
        validated = (config.evaluations - 1) * some * (1 - done / config.steps) + valid_tokens
        depth = mean_depth(config, done, config.steps) if done < config.steps else 0.0
        training = (config.steps - done) * config.tokens_per_step * (self.first + (depth - 1) * self.block)
        return training + validated * VALIDATION * (self.first + (config.model.depth - 1) * self.block)


def measure_speeds(configs: Sequence[TrainConfig], corpus: Corpus, *, rounds: int = 5) -> list[float]:
    """Training tokens per second of each config: one step of each in turn, ``rounds`` times.

    The shortest counts, since other work on the machine only makes a step longer.
    """
    steppers = [measure_speed(config, corpus) for config in configs]
    times: list[list[float]] = [[] for _ in configs]
    for _ in range(rounds + 1):
        for step, seconds in zip(steppers, times, strict=True):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
    # The first round pays for compilation and first use of memory.
    return [c.tokens_per_step / min(seconds[1:]) for c, seconds in zip(configs, times, strict=True)]


def probe(base: TrainConfig, widths: Sequence[int], corpus: Corpus, *, jobs: Mapping[int, int]) -> dict[int, Speed]:
    """Measure one and two plain blocks at each width, for a few steps in turn, and say so on stderr.

    Args:
        base: the protocol; its width, shape and passes are not used.
        jobs: runs at once at each width, which share this machine's threads.
    """
    if widths:
        print("measuring how fast this machine trains (some seconds)", file=sys.stderr, flush=True)
    before = torch.get_num_threads()
    speeds = {}
    try:
        for dim in widths:
            torch.set_num_threads(threads_at(jobs[dim]))
            models = [replace(base.model, dim=dim, shape=shape) for shape in ("1", "2")]
            plain = [replace(base, model=model, passes="fixed") for model in models]
            one, two = measure_speeds(plain, corpus, rounds=4)
            speeds[dim] = Speed(first=1 / one, block=max(1 / two - 1 / one, 0))
    finally:
        torch.set_num_threads(before)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return speeds


def plan_seconds(
    left: Mapping[TrainConfig, int], speeds: Mapping[int, Speed], corpus: Corpus, *, jobs: Mapping[int, int]
) -> float:
    """Time for runs, each with its steps that are done, ``jobs`` of them at once: at least that of the longest."""
    each: dict[int, list[float]] = {}
    for config, done in left.items():
        dim = config.model.dim
        each.setdefault(dim, []).append(speeds[dim].seconds(config, len(corpus.valid), done=done))
    return sum(max(max(times), sum(times) / min(jobs[dim], len(times))) for dim, times in each.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Budget:
    """An entry of ``budgets.json``."""

    minutes: float
    models: tuple[str, ...]
    steps: int

    def __post_init__(self) -> None:
        require(self, "steps", 1, 10**12)


def steps_in_minutes(
    configs_of: Callable[[int], Sequence[TrainConfig]],
    corpus: Corpus,
    out: Path,
    *,
    minutes: float,
    jobs: Mapping[int, int],
    keep: bool,
) -> int:
    """The equal number of steps of each run at which all of a study takes about this long.

    It is kept in ``out/budgets.json`` and taken from there when the same study is asked for again: another probe would
    give another number, and train everything anew.

    Args:
        configs_of: the study's runs at a number of steps.
        minutes: for all runs together.
        jobs: runs at once at each width.
        keep: whether to write the budget down, since training is to follow.

    Raises:
        InputError: not even one step of each model fits, or ``budgets.json`` is damaged.
    """
    configs = configs_of(1)
    labels = tuple(map(label, configs))
    asked = json.dumps([minutes, labels, [changed(config) for config in configs], corpus.digest], sort_keys=True)
    key = hashlib.sha256(asked.encode()).hexdigest()[:16]
    path = out / "budgets.json"
    kept = read_json(path) if path.is_file() else {}
    if key in kept:
        return from_json(_Budget, kept[key], f"{path}: {key}").steps
    for old in kept.values():  # Those of earlier versions have other keys.
        budget = from_json(_Budget, old, str(path))
        if (budget.minutes, budget.models) == (minutes, labels) and any(
            cell_folder(config, corpus, out).exists() for config in configs_of(budget.steps)
        ):
            return budget.steps
    speeds = probe(configs[0], sorted({config.model.dim for config in configs}), corpus, jobs=jobs)

    def seconds(steps: int) -> float:
        return plan_seconds(dict.fromkeys(configs_of(steps), 0), speeds, corpus, jobs=jobs)

    least = seconds(1)
    if 60 * minutes < least:
        raise InputError(
            f"{minutes:g} minutes are too few for this grid: one step of each model and its validation take "
            f"{least / 60:.1f}; give more, or fewer widths and shapes"
        )
    steps = 1 + int((60 * minutes - least) / (seconds(2) - least))
    if keep:
        write_json(path, {**kept, key: {"minutes": minutes, "models": labels, "steps": steps}})
    return steps


HEADERS = ("model", "depth", "parameters", "MFLOPs", "memory", "time")


def plan_rows(
    configs: Sequence[TrainConfig], left: Mapping[TrainConfig, int], speeds: Mapping[int, Speed], corpus: Corpus
) -> list[tuple[str, ...]]:
    """Each run of a plan as texts, in the order of ``HEADERS``; those that are not in ``left`` are complete.

    ``left`` has the steps that are done of each: the time is that of the rest.
    """
    rows, names = [], labels(configs)
    for config in configs:
        counts = count(config.model)
        kept = activation_bytes(config.model, batch=config.batch // config.accumulate)
        time_left = "complete"
        if config in left:
            time_left = clock(speeds[config.model.dim].seconds(config, len(corpus.valid), done=left[config]))
            if left[config]:
                time_left += f" from step {left[config]:,} of {config.steps:,}"
        memory = f"{(STATE_BYTES * counts.parameters + kept) / 1e6:,.0f} MB"
        parameters, flops = f"{counts.parameters:,}", f"{counts.flops / 1e6:.2f}"
        rows.append((names[config], str(config.model.depth), parameters, flops, memory, time_left))
    return rows
