"""Seconds of training until a validation loss is reached: frailt's recipe against transformers' Llama.

    python bench/time_to_loss.py --data DATA [--width 64 --target 2.0] [--json FILE]

Eight plain blocks, the same text in the same order, steps of the same size. frailt: its recipe, bfloat16, compiled.
transformers: its default attention, AdamW with a cosine to 0 at the best of three rates, float32 and bfloat16. Both
fall to a rate of 0 at the end of a budget, so a loss is reached at a budget and not on the way: each side's budget is
raised by a quarter until its last loss is at or below the target, and interpolated. Then every side is trained at its
budget with each seed, in turn. Seconds are those of the steps; the first budget tried pays for compilation.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from machine import machine
from torch import Tensor
from train import adamw, llama, renamed

from frailt.data.corpus import Corpus
from frailt.evaluation.loss import token_losses
from frailt.files import write_json
from frailt.model.frailt import FraiLT
from frailt.training.config import OptimizerConfig, TrainConfig
from frailt.training.device import autocast
from frailt.training.loop import Training
from frailt.training.optimizers import learning_rate
from frailt.training.presets import paper
from frailt.training.ranks import Ranks

RATES = (1e-3, 2e-3, 4e-3)
"""Of transformers' AdamW; the best at ``--trial`` tokens is taken."""
GROWTH = 1.25
"""From one budget tried to the next."""
CPU = torch.device("cpu")

Run = tuple[float, float]
"""Seconds of training, and the validation loss at its end."""
Side = Callable[[int, int], Run]
"""From a budget in tokens and a seed to a run."""


def timed(step: Callable[[int], Any], steps: int) -> float:
    """Seconds of so many steps."""
    began = perf_counter()
    for number in range(steps):
        step(number)
    return perf_counter() - began


def valid_loss(model: FraiLT, corpus: Corpus) -> float:
    """Nats per token over all validation tokens."""
    return float(token_losses(model.eval(), np.asarray(corpus.valid.tokens)).mean())


def ours(config: TrainConfig, corpus: Corpus) -> Run:
    """A run of frailt's."""
    training = Training(replace(config, compile=True), corpus, Ranks(CPU))

    def step(number: int) -> None:
        training.step = number
        training.train_step()

    seconds = timed(step, config.steps)
    return seconds, valid_loss(training.model, corpus)


def theirs(config: TrainConfig, corpus: Corpus, precision: Literal["float32", "bfloat16"]) -> Run:
    """A run of transformers' model."""
    model = llama(config, "sdpa")
    optimizer = adamw(model, config)

    def step(number: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, config.steps, config.optimizer, config.optimizer.lr)
        rows = corpus.train.rows(number, batch=config.batch, context=config.model.context, seed=config.seed)
        with autocast(precision, CPU):
            logits = model(input_ids=rows[:, :-1]).logits
        F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds = timed(step, config.steps)
    trained = FraiLT(config.model)
    put_back(trained, model)
    return seconds, valid_loss(trained, corpus)


def put_back(model: FraiLT, trained: Any) -> None:
    """Give ``model`` the weights of transformers' model of the same shape."""
    weights: dict[str, Tensor] = trained.state_dict()
    with torch.no_grad():
        for name, ours in renamed(model).items():
            ours.copy_(weights[name])


def reaching(side: Side, target: float, first: int) -> tuple[int, list[dict[str, float]]]:
    """The budget in tokens at which a side's loss, of seed 0, is the target; and all that was tried."""
    tried: list[dict[str, float]] = []
    budget = first
    while not tried or tried[-1]["loss"] > target:
        seconds, loss = side(budget, 0)
        tried.append({"tokens": budget, "seconds": seconds, "loss": loss})
        print(f"  {budget:,} tokens: {loss:.4f} in {seconds:.0f} s", flush=True)
        budget = round(budget * GROWTH)
    if len(tried) == 1:
        return first, tried
    (low, high) = tried[-2:]
    share = (low["loss"] - target) / (low["loss"] - high["loss"])
    return round(math.exp(math.log(low["tokens"]) + share * math.log(GROWTH))), tried


def main() -> None:
    """Find the budgets, train in turn, print, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder made by frailt prepare")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--target", type=float, default=2.0, help="validation loss, nats per token")
    parser.add_argument("--batch", type=int, default=paper().batch, help="windows of 512 in a step, of both")
    parser.add_argument("--first", default="1000000,2000000", help="first budgets to try: ours and theirs")
    parser.add_argument("--trial", type=int, default=1_000_000, help="tokens to compare transformers' rates at")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    corpus = Corpus(options.data)
    model = replace(paper(options.width, "8").model, vocab_size=corpus.vocab_size)
    recipe = replace(paper(options.width, "8"), model=model, batch=options.batch, precision="bfloat16")
    plain = replace(recipe, optimizer=OptimizerConfig())

    def side(base: TrainConfig, run: Callable[[TrainConfig], Run]) -> Side:
        return lambda tokens, seed: run(replace(base, tokens=tokens, seed=seed))

    trials = {}
    for rate in RATES:
        config = replace(plain, tokens=options.trial, optimizer=OptimizerConfig(lr=rate))
        trials[rate] = theirs(config, corpus, "bfloat16")[1]
        print(f"transformers at a rate of {rate:g}, {options.trial:,} tokens: {trials[rate]:.4f}", flush=True)
    tuned = replace(plain, optimizer=OptimizerConfig(lr=min(trials, key=lambda rate: trials[rate])))
    sides: dict[str, Side] = {
        "frailt": side(recipe, lambda config: ours(config, corpus)),
        "transformers bfloat16": side(tuned, lambda config: theirs(config, corpus, "bfloat16")),
        "transformers float32": side(tuned, lambda config: theirs(config, corpus, "float32")),
    }
    budgets, tried = {}, {}
    for name, first in zip(sides, map(int, options.first.split(",")), strict=False):
        print(f"{name}, to a loss of {options.target:g}:")
        budgets[name], tried[name] = reaching(sides[name], options.target, first)
    budgets["transformers float32"] = budgets["transformers bfloat16"]
    runs: list[dict[str, Any]] = []
    for seed in map(int, options.seeds.split(",")):
        for name, train in sides.items():
            seconds, loss = train(budgets[name], seed)
            runs.append({"side": name, "seed": seed, "tokens": budgets[name], "seconds": seconds, "loss": loss})
            print(f"{name}, seed {seed}: {loss:.4f} in {seconds:.0f} s", flush=True)
    seconds_of = {name: [run["seconds"] for run in runs if run["side"] == name] for name in sides}
    ratios = {}
    for name in list(sides)[1:]:
        each = [theirs / ours for theirs, ours in zip(seconds_of[name], seconds_of["frailt"], strict=True)]
        ratios[name] = {"median": median(each), "least": min(each), "most": max(each)}
        print(f"{name} takes {median(each):.2f} times as long ({min(each):.2f} to {max(each):.2f})")
    if options.json:
        found = {"machine": machine(), "width": options.width, "target": options.target, "batch": options.batch}
        found |= {"rates": {f"{rate:g}": loss for rate, loss in trials.items()}, "tried": tried}
        write_json(options.json, found | {"runs": runs, "ratios": ratios})


if __name__ == "__main__":
    main()
