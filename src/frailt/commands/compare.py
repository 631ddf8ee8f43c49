"""Train models side by side, and show what the passes are worth."""

import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from frailt.options import corpus_in, numbers, parse, table


def run(args: list[str]) -> None:
    from frailt.commands.protocol import Protocol
    from frailt.compiling import announce_compiling
    from frailt.console import ProgressLine
    from frailt.model.variant import split_names
    from frailt.paper.published import published_gap
    from frailt.studies.compare import compare
    from frailt.studies.comparison import CompareConfig
    from frailt.studies.report import HEADERS, caption, cells

    @dataclass(frozen=True, kw_only=True)
    class Command:
        shapes: str = "1,1^8,8"
        """Models, joined by commas. Settings may follow a colon: 1^8:none is without encodings."""
        dim: int = 64
        """Width of every model."""
        tokens: int = 4_000_000
        """Training budget of every model."""
        out: Path | None = None
        """Folder for runs, table and figure; unset: runs/compare and the width."""
        kv_heads: int | None = None
        """Key and value heads; unset: as many as heads."""
        protocol: Protocol = field(default_factory=Protocol)

    command = parse(Command, "compare", args, __doc__)
    announce_compiling()
    corpus = corpus_in(command.protocol.data)
    model = {"dim": command.dim, "kv_heads": command.kv_heads, "vocab_size": corpus.vocab_size}
    base = command.protocol.base(model, tokens=command.tokens)
    config = CompareConfig(
        shapes=split_names(command.shapes), seeds=numbers("seeds", command.protocol.seeds), base=base
    )
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
