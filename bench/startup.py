"""How long it takes to begin: `import frailt`, and from `frailt story` to its first word.

    python bench/startup.py [--model results/small] [--json FILE]

Each is a process of its own, all in turn; the first round is not counted, since it may compile for the processor and
fills the system's file cache. A bare Python and `import torch` stand beside them.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from machine import machine

from frailt.files import write_json


def first_output(code: str, *words: str) -> float:
    """Seconds until a Python process writes its first bytes; it is then stopped."""
    start = perf_counter()
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(1)
        seconds = perf_counter() - start
        process.kill()
    assert first, f"no output from {code} {words}"
    return seconds


def main() -> None:
    """Time, print, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("results/small"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    story = "import sys; from frailt.cli import main; sys.exit(main())"
    sides = {
        "python": ("print(1, flush=True)",),
        "import torch": ("import torch; print(1, flush=True)",),
        "import frailt": ("import frailt; print(1, flush=True)",),
        "frailt story": (story, "story", "Once upon a time", "--model", str(options.model), "--temperature", "0"),
    }
    rounds = [{name: first_output(*side) for name, side in sides.items()} for _ in range(options.rounds + 1)][1:]
    for name in sides:
        times = [r[name] for r in rounds]
        print(f"{name:14} {median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    if options.json:
        seconds = {name: [r[name] for r in rounds] for name in sides}
        write_json(options.json, {"machine": machine(), "model": str(options.model), "seconds": seconds})


if __name__ == "__main__":
    main()
