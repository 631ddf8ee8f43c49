"""Pictures of the figures of bench/decode.py and bench/train.py.

python bench/draw.py results/bench/decode.json results/bench/train.json --out results/bench
"""

import argparse
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from frailt.files import read_json, replacing

DECODE = {
    # What to draw, and how: colour by program and weights, dashes for eight stored blocks.
    "1^8 int8": ("#0072b2", "-", "o"),
    "8 int8": ("#0072b2", "--", "o"),
    "1^8 float32": ("#009e73", "-", "s"),
    "8 float32": ("#009e73", "--", "s"),
    "llama.cpp Q8_0": ("#d55e00", "--", "v"),
    "llama.cpp F32": ("#d55e00", ":", "v"),
    "llama2.c runq": ("#cc79a7", "--", "^"),
    "llama2.c run": ("#cc79a7", ":", "^"),
    "transformers sdpa": ("#555555", "--", "D"),
}
TRAIN = {
    "bfloat16 compiled": ("#0072b2", "-", "o"),
    "bfloat16": ("#0072b2", "--", "o"),
    "float32 compiled": ("#009e73", "-", "s"),
    "float32": ("#009e73", "--", "s"),
    "transformers sdpa bfloat16 compiled": ("#d55e00", "-", "v"),
    "transformers sdpa bfloat16": ("#d55e00", "--", "v"),
    "transformers sdpa float32": ("#555555", "--", "D"),
    "transformers eager float32": ("#555555", ":", "D"),
}
OURS = ("1^8", "8 ", "float32", "bfloat16")


def draw(figures: dict[str, Any], styles: dict[str, tuple[str, str, str]], path: Path, *, title: str) -> None:
    """Tokens per second over widths, the median and from the first to the third quarter."""
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes: Axes = figure.subplots()
    widths = sorted(map(int, figures["widths"]))
    for name, (colour, line, marker) in styles.items():
        times = [figures["widths"][str(dim)]["seconds"].get(name) for dim in widths]
        if not all(times):
            continue
        tokens = figures.get("tokens") or figures["batch"] * figures["context"]
        speeds = [[tokens / seconds for seconds in rounds] for rounds in times]
        middle = [median(rounds) for rounds in speeds]
        low, high = zip(*((q[0], q[2]) for q in (quantiles(rounds, n=4) for rounds in speeds)), strict=True)
        label = f"frailt {name}" if name.startswith(OURS) else name
        axes.plot(widths, middle, label=label, color=colour, linestyle=line, marker=marker, markersize=5, linewidth=1.3)
        axes.fill_between(widths, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xscale="log", yscale="log", xlabel="width of the model", ylabel="tokens per second", title=title)
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def main() -> None:
    """Draw both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("decode", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    decode, train = read_json(options.decode), read_json(options.train)
    title = f"One token after another, {decode['machine']['machine']}\nothers run shape 8"
    draw(decode, DECODE, options.out / "decode.png", title=title)
    draw(train, TRAIN, options.out / "train.png", title=f"Training, shape 8, {train['machine']['machine']}")


if __name__ == "__main__":
    main()
