"""Early exit on a CPU: what thresholds cost in loss, and the seconds that they save.

    python bench/early_exit.py RUN --text FILE [--windows 16] [--time 256] [--rounds 3] [--json FILE]

Windows of the text are read side by side, as a batch, token by token, by the decoders that write stories: the loss
is that of the path itself, with what its cache holds for skipped passes. Both decoders are measured, the one in torch
and the compiled one; within each, all thresholds take turns, round after round, in one process. The seconds saved are
medians over the rounds of one less the ratio to the same round without exits, with the smallest and the largest.

The model should be trained with random passes. Tokens per second mean little on a busy machine.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from machine import machine

from frailt.data.tokenizer import Tokenizer
from frailt.evaluation.text import encode_text
from frailt.files import read_json, write_json
from frailt.inference.cpu.decoder import CompiledDecoder
from frailt.inference.cpu.packing import pack
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.generation import Decoder
from frailt.inference.storyteller import tokenizer_of
from frailt.inference.torch_decoder import TorchDecoder
from frailt.model.checkpoint import load_model
from frailt.model.stored import read_model
from frailt.options import table

RULES = (
    "l2:0.1", "l2:0.12", "l2:0.14", "l2:0.15", "l2:0.16", "l2:0.18", "l2:0.2", "l2:0.3",
    "kl:0.003", "kl:0.005", "kl:0.01", "kl:0.005:5", "kl:0.006:5", "kl:0.01:5",
)  # fmt: skip
ALLOWED = 0.01
"""Nats that an exit may cost."""


class Reading(NamedTuple):
    """One way through the windows."""

    nats: float
    """Mean cross-entropy of the tokens that were scored after a step."""
    passes: float
    """Mean passes of a token through the groups that have several."""
    seconds: float
    """In the steps alone."""


def read(decoder: Decoder, windows: np.ndarray, looped: Sequence[int]) -> Reading:
    """Read each row of ``windows``: its first token as a prompt, the others one by one."""
    nats, passes, seconds = 0.0, 0, 0.0
    decoder.select([])
    decoder.add(windows[:, :1].tolist())
    for at in range(1, windows.shape[1] - 1):
        tokens = windows[:, at].tolist()
        begun = perf_counter()
        scores = decoder.step(tokens)
        seconds += perf_counter() - begun
        passes += sum(row[group] for row in decoder.passes for group in looped)
        scores = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
        targets = scores[np.arange(len(tokens)), windows[:, at + 1]]
        nats += float((np.log(np.exp(scores).sum(axis=1)) - targets).sum())
    steps = windows.shape[0] * (windows.shape[1] - 2)
    return Reading(nats / steps, passes / steps / len(looped), seconds)


def measure(new: Any, rules: Sequence[str], windows: np.ndarray, looped: Sequence[int], rounds: int) -> list[dict]:
    """A line for each rule, the plain path first. ``new`` makes a decoder from an early exit."""
    decoders = [new(None), *(new(EarlyExit.parse(rule)) for rule in rules)]
    for decoder in decoders:  # The first time, code is compiled or loaded.
        read(decoder, windows[:, :4], looped)
    found: list[list[Reading]] = [[] for _ in decoders]
    turns = list(zip(found, decoders, strict=True))
    for number in range(rounds):
        first = number * len(turns) // rounds  # Nobody always comes after the same neighbour, or first.
        for readings, decoder in turns[first:] + turns[:first]:
            readings.append(read(decoder, windows, looped))
    lines = []
    for rule, readings in zip(("none", *rules), found, strict=True):
        saved = [1 - own.seconds / plain.seconds for own, plain in zip(readings, found[0], strict=True)]
        tokens = windows.shape[0] * (windows.shape[1] - 2)
        lines.append({
            "exit": rule,
            "mean_passes": readings[0].passes,
            "nats_per_token": readings[0].nats,
            "cost_nats": readings[0].nats - found[0][0].nats,
            "tokens_per_second": tokens / median(r.seconds for r in readings),
            "saved": median(saved),
            "saved_range": [min(saved), max(saved)],
        })  # fmt: skip
    return lines


def show(name: str, lines: list[dict]) -> None:
    rows = [
        (
            line["exit"],
            f"{line['mean_passes']:.2f}",
            f"{line['nats_per_token']:.4f}",
            f"{line['cost_nats']:+.4f}",
            f"{line['tokens_per_second']:,.0f}",
            f"{line['saved']:.1%}",
            f"{line['saved_range'][0]:.1%} to {line['saved_range'][1]:.1%}",
        )
        for line in lines
    ]
    print(f"\n{name}")
    print(table(("exit", "passes", "nats/token", "cost", "tokens/s", "saved", ""), rows))
    best = max((line for line in lines if line["cost_nats"] <= ALLOWED), key=lambda line: line["saved"])
    print(f"at a cost of at most {ALLOWED} nats: {best['saved']:.1%} of the seconds saved, with {best['exit']}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Early exit on a CPU: loss, passes, and seconds saved.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--windows", type=int, default=16, help="rows of the batch")
    parser.add_argument("--time", type=int, default=256, help="tokens of a window")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--decoders", nargs="+", default=("torch", "compiled"), choices=("torch", "compiled"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, stored = load_model(given.model), read_model(given.model)
    packed = pack(stored)
    looped = [n for n, group in enumerate(stored.config.groups) if group.iterations > 1]
    tokenizer = tokenizer_of(given.model, stored.config, given.tokenizer)
    time = min(given.time, stored.config.context)
    windows = story_windows(tokenizer, given.text, given.windows, time)
    print(
        f"{given.model}: shape {stored.config.shape}, width {stored.config.dim}; {len(windows)} windows of {time} "
        f"tokens, {given.threads} threads, {given.rounds} rounds"
    )
    new = {
        "torch": lambda early_exit: TorchDecoder(model, None, early_exit),
        "compiled": lambda early_exit: CompiledDecoder(packed, None, early_exit, threads=given.threads),
    }
    found = {}
    for name in given.decoders:
        found[name] = measure(new[name], given.rules, windows, looped, given.rounds)
        show(name, found[name])
    if given.json is not None:
        write_json(
            given.json,
            {
                "model": read_json(given.model / "run.json"),
                "text": given.text.name,
                "windows": len(windows),
                "time": time,
                "threads": given.threads,
                "rounds": given.rounds,
                "machine": machine(),
                "decoders": found,
            },
        )


def story_windows(tokenizer: Tokenizer, text: Path, count: int, time: int) -> np.ndarray:
    """``count`` windows, evenly spread over the text: ``(count, time)``."""
    tokens, _ = encode_text([text], tokenizer)
    if len(tokens) < time:
        raise SystemExit(f"{text} has {len(tokens)} tokens; windows of {time} need more")
    starts = np.linspace(0, len(tokens) - time, count).astype(int)
    return tokens[starts[:, None] + np.arange(time)].astype(np.int64)


if __name__ == "__main__":
    main()
