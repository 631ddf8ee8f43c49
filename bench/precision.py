"""The last part of bench/precision.sh: validation losses of two folders of runs, seed by seed."""

import argparse
from pathlib import Path
from statistics import mean, stdev

from machine import machine

from frailt.files import write_json
from frailt.training.run_folder import RunFolder

Losses = dict[tuple[int, str, int], dict[int, float]]
"""By width, shape and tokens, then by seed; nats per token."""


def losses(folder: Path) -> Losses:
    """Of the complete runs in the folder of a grid."""
    found: Losses = {}
    for run in map(RunFolder, sorted((folder / "runs").iterdir())):
        if (result := run.result) is not None:
            config = run.config()
            model = (config.model.dim, config.model.shape, result.tokens)
            found.setdefault(model, {})[config.seed] = result.valid_loss
    return found


def main() -> None:
    """Print a line a model, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("float32", type=Path)
    parser.add_argument("bfloat16", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    exact, rounded = losses(options.float32), losses(options.bfloat16)
    lines = []
    for dim, shape, tokens in sorted(exact.keys() & rounded.keys()):
        one, other = exact[dim, shape, tokens], rounded[dim, shape, tokens]
        seeds = sorted(one.keys() & other.keys())
        if len(seeds) < 2:
            continue
        more = [other[seed] - one[seed] for seed in seeds]
        error = stdev(more) / len(more) ** 0.5
        lines.append({
            "dim": dim,
            "shape": shape,
            "tokens": tokens,
            "seeds": seeds,
            "float32": [one[seed] for seed in seeds],
            "bfloat16": [other[seed] for seed in seeds],
            "more": mean(more),
            "standard_error": error,
        })  # fmt: skip
        print(
            f"width {dim}, {shape}, {tokens:,} tokens, {len(seeds)} seeds: float32 {mean(one[s] for s in seeds):.3f} "
            f"nats/token (seeds apart by {stdev(one[s] for s in seeds):.3f}), bfloat16 {mean(more):+.4f} ± {error:.4f}"
        )
    if options.json:
        write_json(options.json, {"machine": machine(), "models": lines})


if __name__ == "__main__":
    main()
