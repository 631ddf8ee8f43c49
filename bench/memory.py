"""Peak memory of training and of decoding on the CPU, each in a process of its own.

    python bench/memory.py [--width 256] [--json FILE]

What is shown is the largest resident set of the process, Python and torch included; "nothing" is a process that only
imports them. Training: eight blocks deep, four windows of 512, three steps. Decoding: 256 tokens, one text.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import train
from machine import machine

from frailt.files import write_json
from frailt.inference.generate import continuations
from frailt.inference.sampling import Sampling
from frailt.model.frailt import FraiLT, ModelConfig
from frailt.training.config import TrainConfig
from frailt.training.trainer import measure_speed

SHAPES = ("8", "1^8")
KINDS = (
    "nothing",
    *(f"train {shape} {precision}" for shape in SHAPES for precision in ("float32", "bfloat16")),
    "train transformers sdpa",
    "train transformers eager",
    *(f"decode {shape}" for shape in SHAPES),
)


def work(kind: str, dim: int) -> None:
    """One of ``KINDS``, in this process."""
    what, *rest = kind.split()
    if what == "train":
        with tempfile.TemporaryDirectory() as folder:
            corpus = train.random_corpus(Path(folder))
            shape = "8" if rest[0] == "transformers" else rest[0]
            config = TrainConfig(
                model=ModelConfig(shape=shape, dim=dim), batch=train.BATCH, device="cpu", precision="float32"
            )
            if rest[0] == "transformers":
                step = train.theirs(config, corpus, rest[1])
            else:
                step = measure_speed(replace(config, precision=rest[1]), corpus)
            for _ in range(3):
                step()
    elif what == "decode":
        model = FraiLT(ModelConfig(shape=rest[0], dim=dim)).eval()
        for _ in continuations(model, [[1]], Sampling(max_tokens=256, temperature=0)):
            pass


def main() -> None:
    """Measure, print, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="one kind, in this process; for the benchmark itself")
    options = parser.parse_args()
    if options.only:
        work(options.only, options.width)
        # Kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
        return
    found = {}
    for kind in KINDS:
        command = [sys.executable, __file__, "--only", kind, "--width", str(options.width)]
        found[kind] = int(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split()[-1])
        print(f"{kind:26} {found[kind] / 2**20:6.0f} MiB", flush=True)
    if options.json:
        write_json(options.json, {"machine": machine(), "width": options.width, "peak_bytes": found})


if __name__ == "__main__":
    main()
