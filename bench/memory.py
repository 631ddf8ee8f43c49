"""Peak memory of training and of decoding on the CPU, each in a process of its own.

    python bench/memory.py [--widths 256,1024] [--json FILE]

What is shown is the largest resident set of the process; "import" is one that has only imported what it needs.
Training: eight blocks deep, four windows of 512, three steps. Decoding: a model from disk, 256 tokens of one text.
Where code had to be compiled, that is part of it: run it twice.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from random_model import empty_tokenizer, random_model

from frailt.files import write_json

KINDS = (
    # What to do and for how deep a model: frailt, or transformers with its attention; then the precision.
    "train frailt import",
    "train frailt 8 float32",
    "train frailt 8 bfloat16",
    "train frailt 1^8 float32",
    "train frailt 1^8 bfloat16",
    "train transformers import",
    "train transformers sdpa float32",
    "train transformers eager float32",
    "train transformers sdpa bfloat16",
    "decode frailt import",
    "decode frailt 8 float32",
    "decode frailt 8 int8",
    "decode frailt 1^8 float32",
    "decode frailt 1^8 int8",
    "decode transformers import",
    "decode transformers sdpa float32",
)
QUIET = {**os.environ, "PYTHONWARNINGS": "ignore"}
"""transformers renames an argument that older versions need, and says so."""


def train(program: str, how: str, precision: str, dim: int, folder: Path) -> None:
    if program == "transformers":
        import transformers  # noqa: F401
    from train import BATCH, random_corpus, theirs

    from frailt.model.config import ModelConfig
    from frailt.training.config import TrainConfig
    from frailt.training.trainer import measure_speed

    if how == "import":
        return
    shape = how if program == "frailt" else "8"
    config = TrainConfig(model=ModelConfig(shape=shape, dim=dim), batch=BATCH, device="cpu", precision=precision)
    corpus = random_corpus(folder)
    step = measure_speed(config, corpus) if program == "frailt" else theirs(config, corpus, how)
    for _ in range(3):
        step()


def decode(program: str, how: str, precision: str, dim: int, folder: Path) -> None:
    if program == "transformers":
        import torch
        from transformers import LlamaForCausalLM

        if how == "import":
            return
        model = LlamaForCausalLM.from_pretrained(folder / "llama", attn_implementation=how)
        model.generate(torch.tensor([[1]]), max_new_tokens=255, do_sample=False, eos_token_id=None, pad_token_id=0)
        return
    import frailt.inference.cpu.decoder  # noqa: F401
    from frailt.inference.storyteller import load

    if how == "import":
        return
    decoder = load(folder / how, weights=precision).decoder()
    decoder.add([[0]])
    for token in range(255):
        decoder.step([token])


def save(dim: int, folder: Path) -> None:
    """``8`` and ``1^8`` as frailt keeps them, and ``8`` for transformers. In a process of its own as well: on Linux the
    peak of a process begins with that of the one that started it."""
    from frailt.export.plain_llama import plain_llama
    from frailt.export.transformers import save_transformers
    from frailt.model.checkpoint import save_model
    from frailt.model.frailt import FraiLT

    tokenizer = empty_tokenizer(512)
    for shape in ("8", "1^8"):
        stored = random_model(shape, dim, 512, 512)
        save_model(FraiLT(stored.config), folder / shape)
        tokenizer.save(folder / shape / "tokenizer.json")
    save_transformers(plain_llama(random_model("8", dim, 512, 512)), tokenizer, folder / "llama")


def main() -> None:
    """Measure, print, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", default="256,1024")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="one kind, in this process; for the benchmark itself")
    parser.add_argument("--models", type=Path, help="where its models are")
    options = parser.parse_args()
    if options.only:
        what, *how = options.only.split()
        if what == "save":
            save(int(options.widths), options.models)
        else:
            program, which, *precision = how
            work = {"train": train, "decode": decode}[what]
            work(program, which, *(precision or [""]), int(options.widths), options.models)
        # Kilobytes on Linux, bytes on macOS.
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        return
    found: dict[str, dict[str, int]] = {}
    for dim in options.widths.split(","):
        print(f"width {dim}")
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("save", *KINDS):
                command = [sys.executable, __file__, "--only", kind, "--widths", dim, "--models", folder]
                pipe = subprocess.PIPE
                said = subprocess.run(command, stdout=pipe, stderr=pipe, check=True, text=True, env=QUIET).stdout
                found.setdefault(dim, {})[kind] = int(said.split()[-1])
            del found[dim]["save"]
        for kind, peak in found[dim].items():
            print(f"  {kind:34} {peak / 2**20:6.0f} MiB", flush=True)
    if options.json:
        from machine import machine

        write_json(options.json, {"machine": machine(), "peak_bytes": found})


if __name__ == "__main__":
    main()
