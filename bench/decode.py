"""Decoding on this machine's CPU: tokens per second of frailt, transformers, llama.cpp and llama2.c.

    python bench/decode.py [--widths 64,256,512,1024] [--llama2c FOLDER] [--json FILE]

llama.cpp takes part where llama-cpp-python is installed, and llama2.c where its folder is named: your own checkout of
karpathy/llama2.c, whose run.c and runq.c are compiled here with your C compiler (cc, or $CC).

One process, all sides in turn, round after round; each writes the same number of tokens, one at a time, by the
likeliest next token. Weights are random, and the same for all: 8 plain blocks, exported to the other programs, and
frailt's own 1^8 beside them. Before it is timed, each side shows that it gives the same scores. Ratios are medians over
the rounds, with the smallest and the largest.
"""

import argparse
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from machine import machine
from peers import ATTENTION, Side, Step, compiler, llama2c, llama_cpp, transformers
from random_model import random_model

from frailt.export.gguf import TYPES
from frailt.export.plain_llama import plain_llama
from frailt.files import write_json
from frailt.inference.cpu.decoder import CompiledDecoder
from frailt.inference.cpu.packing import Weights, pack
from frailt.inference.cpu.thread_pool import cores
from frailt.model.stored import StoredModel

KINDS: tuple[Weights, ...] = ("float32", "bfloat16", "int8")

RATIOS = (
    ("1^8 float32", "8 float32"),
    ("1^8 bfloat16", "8 bfloat16"),
    ("1^8 int8", "8 int8"),
    ("8 float32", "transformers sdpa"),
    ("1^8 float32", "transformers sdpa"),
    ("8 float32", "transformers sdpa static"),
    ("8 float32", "llama2.c run"),
    ("1^8 float32", "llama2.c run"),
    ("8 int8", "llama2.c runq"),
    ("1^8 int8", "llama2.c runq"),
    ("8 float32", "llama.cpp F32"),
    ("8 bfloat16", "llama.cpp BF16"),
    ("8 int8", "llama.cpp Q8_0"),
    ("1^8 int8", "llama.cpp Q8_0"),
)
"""What is faster than what, and by how much."""


def ours(model: StoredModel, kind: Weights, threads: int | None) -> Side:
    decoder = CompiledDecoder(pack(model, kind), threads=threads)

    def begin() -> Step:
        decoder.select([])
        decoder.add([[]])  # Every token is a step, the first one too.
        return lambda token: decoder.step([token])[0]

    return begin


def run(begin: Side, tokens: int) -> float:
    """Seconds for so many tokens."""
    step, token = begin(), 1
    start = perf_counter()
    for _ in range(tokens):
        token = int(step(token).argmax())
    return perf_counter() - start


def first_scores(begin: Side) -> np.ndarray:
    step = begin()
    return np.stack([np.array(step(token)) for token in (1, 5, 9, 300, 2)])


def main() -> None:
    """Time, print, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="64,256,512,1024")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="unset: all cores; frailt may choose one where that is faster")
    parser.add_argument("--llama2c", type=Path, metavar="FOLDER", help="your checkout of karpathy/llama2.c")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.llama2c and not (options.llama2c / "run.c").is_file():
        parser.error(f"{options.llama2c} holds no run.c; --llama2c takes a checkout of karpathy/llama2.c")
    warnings.simplefilter("ignore", FutureWarning)  # transformers renames an argument that older versions need.
    threads = options.threads or cores()
    torch.set_num_threads(threads)
    results: dict[str, Any] = {
        "machine": {**machine(), "threads": threads, "attention": ATTENTION},
        "tokens": options.tokens,
        "widths": {},
    }
    if options.llama2c:
        results["machine"]["llama2.c"] = f"compiled by {compiler()}"
    print(", ".join(f"{name} {value}" for name, value in results["machine"].items()))
    for dim in map(int, options.widths.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            context = max(512, options.tokens)
            sides = make_sides(dim, options.threads, Path(folder), context=context, sources=options.llama2c)
        rounds = [{name: run(begin, options.tokens) for name, begin in sides.items()} for _ in range(options.rounds)]
        results["widths"][dim] = report(dim, rounds, options.tokens)
    if options.json:
        write_json(options.json, results)


def make_sides(dim: int, threads: int | None, folder: Path, *, context: int, sources: Path | None) -> dict[str, Side]:
    """All sides at one width, each held against the scores of ``8 float32``; ``sources``: of llama2.c."""
    models = {shape: random_model(shape, dim, 512, context) for shape in ("8", "1^8")}
    llama = plain_llama(models["8"])
    sides = {f"{shape} {kind}": ours(model, kind, threads) for shape, model in models.items() for kind in KINDS}
    sides |= {"transformers sdpa": transformers(llama, static=False)}
    sides |= {"transformers sdpa static": transformers(llama, static=True)}
    if find_spec("llama_cpp"):
        sides |= {f"llama.cpp {name}": llama_cpp(llama, w, threads or cores(), folder) for w, name in TYPES.items()}
    if sources:
        programs = [file for file in (sources / "run.c", sources / "runq.c") if file.is_file()]
        sides |= {f"llama2.c {file.stem}": llama2c(llama, file, threads or cores(), folder) for file in programs}
    expected = first_scores(sides["8 float32"])
    for name, begin in sides.items():
        run(begin, 64)
        if not name.startswith("1^8"):
            exact = name in ("8 float32", "llama2.c run") or name.startswith("transformers")
            off = float(np.abs(first_scores(begin) - expected).max() / expected.std())
            assert off < (1e-4 if exact else 0.2), f"{name} at width {dim} gives other scores, by {off} of their spread"
    return sides


def report(dim: int, rounds: list[dict[str, float]], tokens: int) -> dict[str, Any]:
    """Print one width; its figures."""
    speeds = {name: tokens / median(r[name] for r in rounds) for name in rounds[0]}
    print(f"\nwidth {dim}: tokens/s, median of {len(rounds)} rounds (slowest to fastest)")
    for name, speed in speeds.items():
        times = [r[name] for r in rounds]
        print(f"  {name:24} {speed:9.0f}  ({tokens / max(times):.0f} to {tokens / min(times):.0f})")
    ratios = []
    for one, other in RATIOS:
        if one in speeds and other in speeds:
            each = [r[other] / r[one] for r in rounds]
            ratios.append({"of": one, "over": other, "median": median(each), "min": min(each), "max": max(each)})
            print(f"  {one} over {other}: {median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
    return {
        "seconds": {name: [r[name] for r in rounds] for name in rounds[0]},
        "tokens_per_second": speeds,
        "ratios": ratios,
    }


if __name__ == "__main__":
    main()
