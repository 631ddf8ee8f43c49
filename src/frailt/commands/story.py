"""Tell a story."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from frailt.files import read_json
from frailt.model.shape import Iterations, Shape
from frailt.options import Words, parse, passes, write

if TYPE_CHECKING:
    from frailt.inference.exit_rule import EarlyExit
    from frailt.model.config import ModelConfig


def run(args: list[str]) -> None:
    from frailt.compiling import announce_compiling
    from frailt.device import Device
    from frailt.inference.cpu.packing import Weights
    from frailt.inference.exit_rule import EarlyExit
    from frailt.inference.sampling import Sampling
    from frailt.inference.storyteller import load

    @dataclass(frozen=True, kw_only=True)
    class Command:
        beginning: Words[str] = "Once upon a time"
        """How the story begins."""
        model: Path | None = None
        """Run folder, saved model, or llama2.c .bin; unset: the newest in runs/, or the one that comes with frailt."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        passes: str | None = None
        """Passes through each group that has several, or a number for each group: 4 or 1,4,1; unset: as trained."""
        exit: str | None = None
        """Passes end for a token when one changes little: l2:0.15 (its state), kl:0.01 (its prediction). For models
        trained with --passes random."""
        sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8))
        device: Device = "cpu"
        """Where to compute. Small models write fastest on the CPU."""
        weights: Weights = "auto"
        """Precision of the weights on the CPU: bfloat16 and int8 are faster; auto: as stored."""

    command = parse(Command, "story", args, __doc__)
    announce_compiling()
    model = command.model or _default_model()
    storyteller = load(model, tokenizer=command.tokenizer, device=command.device, weights=command.weights)
    iterations = passes(command.passes)
    early_exit = EarlyExit.parse(command.exit) if command.exit is not None else None
    _note_passes(storyteller.config, iterations, early_exit)
    if early_exit is not None and _trained_with_fixed_passes(model):
        print("this model was trained with fixed passes; --exit is for those of --passes random", file=sys.stderr)
    pieces = storyteller.stream(command.beginning, command.sampling, iterations=iterations, early_exit=early_exit)
    write(command.beginning.rstrip(" ") + next(pieces, ""))
    for piece in pieces:
        write(piece)
    write("\n")


LAST_LINE = 4096
"""Bytes at the end of metrics.jsonl that hold its last line; only one of a complete run says final."""


def _default_model() -> Path:
    """The model in runs/ that was written last; where there is none, the one that comes with frailt."""
    saved = [*Path("runs").glob("*/model.safetensors"), *Path("runs").glob("*/runs/*/model.safetensors")]
    if not saved:
        from frailt.models import BEST

        print(f"no model in runs/: using {BEST.name}, which comes with frailt", file=sys.stderr)
        return BEST
    newest = max(saved, key=lambda path: path.stat().st_mtime).parent
    metrics = newest / "metrics.jsonl"
    unfinished = metrics.exists() and b'"final"' not in metrics.read_bytes()[-LAST_LINE:]
    print(f"using {newest}" + (", whose training is not complete" if unfinished else ""), file=sys.stderr)
    return newest


def _note_passes(config: "ModelConfig", iterations: Iterations, early_exit: "EarlyExit | None") -> None:
    shape = Shape.parse(config.shape)
    counts = shape.passes(iterations)
    if any(asked > group.iterations for asked, group in zip(counts, shape.groups, strict=True)):
        print(
            f"more passes than shape {shape} has; only a model trained with --passes random keeps its sense then",
            file=sys.stderr,
        )
    if early_exit is not None and not any(early_exit.groups(shape, counts)):
        print(f"--exit changes nothing: by this rule no token leaves {shape} early", file=sys.stderr)


def _trained_with_fixed_passes(model: Path) -> bool:
    """As far as its run's record says."""
    record = model / "run.json"
    config = read_json(record).get("config") if record.is_file() else None
    return isinstance(config, dict) and config.get("passes", "fixed") == "fixed"
