"""``metrics.jsonl``: a line for each ten steps and for each validation, and the picture of both."""

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from frailt.configs import from_json, require
from frailt.errors import InputError
from frailt.figures import new_figure, save_figure
from frailt.files import LARGEST_JSON, naming, parse_json, write_bytes

TAIL = 1 << 16
"""Bytes that are read for the last line; a line has some 150."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """One line: of training (``loss``) or of a validation (``valid_loss``)."""

    step: int
    """Steps done."""
    tokens: int
    """Tokens trained on."""
    loss: float | None = None
    """Mean training loss since the line before, nats per token."""
    lr: float | None = None
    """Learning rate of the last step."""
    gradient_norm: float | None = None
    """Norm of the last step's gradient, before clipping. Earlier versions did not log it."""
    tokens_per_second: float | None = None
    """Since the line before, without validation."""
    valid_loss: float | None = None
    """Validation loss, nats per token."""
    nats: float | None = None
    """Of the last validation: summed over all validation tokens."""
    targets: int | None = None
    """Of the last validation: tokens that it is summed over."""
    final: bool = False
    """Whether this is the last line of a complete run."""

    def __post_init__(self) -> None:
        require(self, "step tokens loss lr gradient_norm tokens_per_second valid_loss nats", 0)
        if (self.loss is None) == (self.valid_loss is None):
            raise InputError("there must be either a loss or a valid_loss")
        if self.loss is not None and (self.lr is None or self.tokens_per_second is None):
            raise InputError("a line with a loss must have lr and tokens_per_second")
        if self.final and (self.valid_loss is None or self.nats is None or not self.targets or self.targets < 1):
            raise InputError("the final line must have valid_loss, nats and targets")


def append_metrics(path: Path, line: Metrics) -> None:
    """Add a line."""
    stored = {name: value for name, value in asdict(line).items() if value is not None and value is not False}
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(stored) + "\n")


def read_metrics(path: Path) -> list[Metrics]:
    """All lines in order; none where there is no file. A last line that was cut off in writing is left out.

    Raises:
        InputError: a line is damaged, or the steps are not in order.
    """
    return [line for _, line in _read(path)]


def last_metrics(path: Path) -> Metrics | None:
    """The last whole line, without reading the others.

    Raises:
        InputError: it is damaged.
    """
    if not path.is_file():
        return None
    with naming(path), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - TAIL, 0))
        lines = file.read(TAIL).split(b"\n")[:-1]
    if size > TAIL and len(lines) < 2:
        raise InputError(f"{path} is damaged: its last line is too long; restore it or train into another --out")
    return _parse(lines[-1], f"{path}, last line") if lines else None


def cut_metrics(path: Path, step: int) -> None:
    """Keep the lines up to ``step``, as they are.

    Raises:
        InputError: a line is damaged; the file is as it was.
    """
    write_bytes(path, b"".join(text + b"\n" for text, line in _read(path) if line.step <= step))


def _read(path: Path) -> list[tuple[bytes, Metrics]]:
    if not path.is_file():
        return []
    with naming(path):
        if path.stat().st_size > LARGEST_JSON:
            raise InputError(f"{path} is larger than {LARGEST_JSON >> 20} MiB, too large for metrics")
        texts = path.read_bytes().split(b"\n")[:-1]
    lines = [(text, _parse(text, f"{path}, line {n}")) for n, text in enumerate(texts, 1)]
    for n, ((_, before), (_, after)) in enumerate(pairwise(lines), 2):
        if after.step < before.step:
            raise InputError(f"{path}, line {n}: step {after.step} follows step {before.step}; restore the file")
    return lines


def _parse(text: bytes, source: str) -> Metrics:
    # Later versions may log more.
    return from_json(Metrics, parse_json(text, source), source, ignore_unknown=True)


def draw_losses(metrics: list[Metrics], path: Path, *, title: str) -> None:
    """Training and validation loss against tokens, both axes logarithmic, as PNG."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("valid_loss", "validation", "o-")):
        points = [(m.tokens, value) for m in metrics if (value := getattr(m, key)) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, markersize=4, linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="training tokens", ylabel="loss (nats per token)", title=title)
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.yaxis.set_minor_formatter("{x:.1f}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    save_figure(figure, path)
