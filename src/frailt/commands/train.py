"""Train one model into a run folder."""

from dataclasses import dataclass, replace
from pathlib import Path

from frailt.launch import rank_info
from frailt.options import corpus_in, parse, parse_known


def run(args: list[str]) -> None:
    from frailt.compiling import announce_compiling
    from frailt.console import ProgressLine
    from frailt.training.config import TrainConfig
    from frailt.training.presets import PRESETS, Preset
    from frailt.training.ranks import Sharding
    from frailt.training.trainer import default_folder, train

    @dataclass(frozen=True, kw_only=True)
    class Start:
        preset: Preset = "paper"
        vocab_size: int | None = None

    @dataclass(frozen=True, kw_only=True)
    class Command:
        config: TrainConfig
        preset: Preset = "paper"
        """Where the other options start from: a cell of the paper, llama2.c's recipe, or a minute's try."""
        data: Path | None = None
        """Folder made by `frailt prepare`; unset: the embedded story world."""
        out: Path | None = None
        """Run folder; unset: runs/ and a name from shape and width."""
        sharding: Sharding = "ddp"
        """How processes that torchrun started share a model: ddp, each has all of it; fsdp, each has a part, for a
        model that does not fit on one device."""
        start: Path | None = None
        """A saved model to begin from instead of fresh weights: a run folder, a saved model's folder, or a llama2.c
        .bin file of the same shape and sizes. --resume needs it no more."""
        resume: bool = False
        """Go on with the run in the folder, if there is one."""

    start = parse_known(Start, "train", args)
    default = Command(preset=start.preset, config=PRESETS[start.preset]())
    command = parse(Command, "train", args, __doc__, default=default)
    announce_compiling()
    config, corpus = command.config, corpus_in(command.data)
    if start.vocab_size is None:
        config = replace(config, model=replace(config.model, vocab_size=corpus.vocab_size))
    out = command.out or default_folder(config)
    with ProgressLine(hidden=rank_info().rank > 0) as line:
        result = train(
            config,
            corpus,
            out,
            start=command.start,
            resume=command.resume,
            report=lambda p: line.show(out.name, p.step, p.steps, p.describe()),
            sharding=command.sharding,
        )
    loss = f"{result.loss.nats_per_token:.4f} nats/token, {result.loss.bits_per_byte:.4f} bits/byte"
    if rank_info().rank > 0:
        return
    picture = out / "loss.png"
    curve = f"; loss curve in {picture}" if picture.is_file() else ""  # Copies and early versions may have none.
    print(f"{out}: validation loss {loss} after {result.tokens:,} tokens{curve}")
