"""Train models side by side, and show what the passes are worth."""

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from frailt.options import corpus_in, numbers, parse, table


def run(args: list[str]) -> None:
    from frailt.compiling import announce_compiling
    from frailt.console import ProgressLine
    from frailt.model.config import ModelConfig
    from frailt.model.variant import split_names
    from frailt.paper.published import published_gap
    from frailt.studies.compare import compare
    from frailt.studies.comparison import CompareConfig
    from frailt.studies.report import HEADERS, caption, cells
    from frailt.training.config import OptimizerConfig, TrainConfig
    from frailt.training.device import Device, Precision

    @dataclass(frozen=True, kw_only=True)
    class Command:
        shapes: str = "1,1^8,8"
        """Models, joined by commas. Settings may follow a colon: 1^8:none is without encodings."""
        dim: int = 64
        """Width of every model."""
        tokens: int = 4_000_000
        """Training budget of every model."""
        seeds: str = "0"
        """Seeds, joined by commas; every model is trained with each."""
        data: Path | None = None
        """Folder made by `frailt prepare`; unset: the embedded story world."""
        out: Path | None = None
        """Folder for runs, table and figure; unset: runs/compare and the width."""
        lr: float = OptimizerConfig().lr
        """Peak learning rate."""
        batch: int = TrainConfig().batch
        """Sequences in one step."""
        context: int = 512
        """Longest sequence, in tokens."""
        heads: int = 8
        """Attention heads."""
        kv_heads: int | None = None
        """Key and value heads; unset: as many as heads."""
        precision: Precision = "auto"
        """Of matrix products; auto: bfloat16 where the device is fast at it."""
        compile: bool = False
        """Compile the block with torch.compile."""
        device: Device = "auto"
        """Where to compute."""

    command = parse(Command, "compare", args, __doc__)
    announce_compiling()
    corpus = corpus_in(command.data)
    base = TrainConfig(
        model=ModelConfig(
            dim=command.dim,
            heads=command.heads,
            kv_heads=command.kv_heads,
            context=command.context,
            vocab_size=corpus.vocab_size,
        ),
        optimizer=OptimizerConfig(lr=command.lr),
        tokens=command.tokens,
        batch=command.batch,
        precision=command.precision,
        compile=command.compile,
        device=command.device,
    )
    seeds = numbers("seeds", command.seeds)
    config = CompareConfig(shapes=split_names(command.shapes), seeds=seeds, base=base)
    out = command.out or Path("runs") / f"compare-d{command.dim}"
    with ProgressLine() as line:
        result = compare(
            config,
            corpus,
            out,
            report=lambda name, p: line.show(name, p.step, p.steps, p.describe()),
            published=published_gap,
        )
    print(table(HEADERS, cells(result)))
    for name, reason in result.left_out.items():
        print(f"left out: {name} is damaged ({reason})", file=sys.stderr)
    print(textwrap.fill(caption(result), 80))
    print(f"Figure: {out / 'compare.png'}   Table: {out / 'table.md'}   All figures: {out / 'compare.json'}")
