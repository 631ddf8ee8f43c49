"""Tell a story."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from frailt.errors import InputError
from frailt.options import Words, numbers, parse


def run(args: list[str]) -> None:
    from frailt.inference.generate import load
    from frailt.inference.sampling import Sampling
    from frailt.training.trainer import choose_device

    @dataclass(frozen=True, kw_only=True)
    class Command:
        beginning: Words[str] = "Once upon a time"
        """How the story begins."""
        model: Path | None = None
        """Run folder, saved model, or llama2.c .bin; unset: the newest in runs/."""
        tokenizer: Path | None = None
        """Tokenizer of a .bin; unset: the tok*.model or tok*.bin beside it."""
        passes: str | None = None
        """Passes through each group that has several, or a number for each group: 4 or 1,4,1; unset: as trained."""
        sampling: Sampling = field(default_factory=Sampling)
        device: Literal["auto", "cpu", "cuda", "mps"] = "cpu"
        """Where to compute. Small models write fastest on the CPU."""

    command = parse(Command, "story", args, __doc__)
    teller = load(command.model or _newest_run(), command.tokenizer)
    teller.model.to(choose_device(command.device))
    pieces = teller.stream(command.beginning, command.sampling, iterations=_passes(command.passes))
    print(command.beginning.rstrip(" ") + next(pieces, ""), end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _passes(text: str | None) -> int | tuple[int, ...] | None:
    """One number of passes for all groups, or one for each."""
    counts = numbers("passes", text) if text is not None else ()
    return counts[0] if len(counts) == 1 else counts or None


def _newest_run() -> Path:
    """The model in runs/ that was written last."""
    found = [*Path("runs").glob("*/model.safetensors"), *Path("runs").glob("*/runs/*/model.safetensors")]
    if not found:
        raise InputError("there is no model in runs/; train one with `frailt train`, or name one with --model")
    return max(found, key=lambda path: path.stat().st_mtime).parent
