"""Peak memory of training and of decoding on the CPU, each in a process of its own.

    python bench/memory.py [--widths 256,1024] [--json FILE]

What is shown is the largest resident set of the process, Python and its libraries included. Training: eight blocks
deep, four windows of 512, three steps. Decoding: 256 tokens of one text, with a context of 512.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from random_model import random_model

from frailt.files import write_json

KINDS = (
    # What to do, and with which shape, precision or program. A process that has only imported stands before each.
    "train nothing",
    "train 8 float32",
    "train 8 bfloat16",
    "train 1^8 float32",
    "train 1^8 bfloat16",
    "train transformers sdpa",
    "train transformers eager",
    "decode nothing",
    "decode 8 float32",
    "decode 8 int8",
    "decode 1^8 float32",
    "decode 1^8 int8",
    "decode transformers eager",
)


QUIET = {**os.environ, "PYTHONWARNINGS": "ignore"}
"""transformers renames an argument that older versions need, and says so."""


def train(dim: int, shape: str, how: str) -> None:
    from train import BATCH, random_corpus, theirs

    from frailt.model.config import ModelConfig
    from frailt.training.config import TrainConfig
    from frailt.training.trainer import measure_speed

    if shape == "nothing":
        return
    own = shape != "transformers"
    model = ModelConfig(shape=shape if own else "8", dim=dim)
    config = TrainConfig(model=model, batch=BATCH, device="cpu", precision=how if own else "float32")
    with tempfile.TemporaryDirectory() as folder:
        corpus = random_corpus(Path(folder))
        step = measure_speed(config, corpus) if own else theirs(config, corpus, how)
        for _ in range(3):
            step()


def decode(dim: int, shape: str, how: str) -> None:
    from frailt.inference.fast_decoder import FastReader
    from frailt.inference.packing import pack

    if shape == "nothing":
        return
    if shape == "transformers":
        from decode import run, transformers

        from frailt.export.plain_llama import plain_llama

        run(transformers(plain_llama(random_model("8", dim, 512, 512)), static=False), 256)
        return
    packed = pack(random_model(shape, dim, 512, 512), how)
    reader = FastReader(packed)
    reader.read([[0]])
    for token in range(255):
        reader.step([token], {})


def main() -> None:
    """Measure, print, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="256,1024")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="one kind, in this process; for the benchmark itself")
    options = parser.parse_args()
    if options.only:
        what, shape, *how = options.only.split()
        {"train": train, "decode": decode}[what](int(options.widths), shape, *(how or [""]))
        # Kilobytes on Linux, bytes on macOS.
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        return
    found: dict[str, dict[str, int]] = {}
    for dim in options.widths.split(","):
        print(f"width {dim}")
        for kind in KINDS:
            command = [sys.executable, __file__, "--only", kind, "--widths", dim]
            said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=QUIET).stdout
            found.setdefault(dim, {})[kind] = int(said.split()[-1])
            print(f"  {kind:26} {found[dim][kind] / 2**20:6.0f} MiB", flush=True)
    if options.json:
        from machine import machine

        record: dict[str, Any] = {"machine": machine(), "peak_bytes": found}
        write_json(options.json, record)


if __name__ == "__main__":
    main()
