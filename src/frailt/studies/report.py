"""A comparison as a table."""

from typing import Any

from frailt.model.shape import Shape
from frailt.reports import Markdown, markdown_table, render
from frailt.studies.comparison import Comparison
from frailt.studies.gap import CHANCE

MADE = ("frailt", "commit", "torch", "machine", "precision")
"""What the caption says of how a comparison was made."""
HEADERS = ("shape", "depth", "params", "MFLOPs", "loss", "bits/byte", "gap closed", "paper", "tok/s")


def cells(result: Comparison) -> list[tuple[str, ...]]:
    """The rows of the table as texts, in the order of ``HEADERS``."""
    return [
        (
            row.name,
            str(Shape.parse(row.shape).depth),
            f"{row.counts.parameters:,}",
            f"{row.counts.flops / 1e6:.2f}",
            f"{row.loss:.3f}",
            f"{row.bits_per_byte:.3f}",
            "" if row.gap is None else str(row.gap),
            "" if row.paper_gap is None else f"{row.paper_gap:.0%}",
            f"{row.tokens_per_second:,.0f}",
        )
        for row in result.rows
    ]


def caption(result: Comparison) -> Markdown:
    """What a reader must know beside the table, in one paragraph."""
    return render("frailt.studies", "caption.md", **_values(result))


def markdown(result: Comparison) -> Markdown:
    """Table and caption as Markdown."""
    table = markdown_table(HEADERS, cells(result))
    return render("frailt.studies", "table.md", table=table, **_values(result))


def _values(result: Comparison) -> dict[str, Any]:
    base = result.config.base
    seeds = {row.name: row.seeds for row in result.rows}
    return {
        "base": base,
        "tokens": base.steps * base.tokens_per_step,
        "rows": result.rows,
        "one_seed_set": len(set(seeds.values())) == 1,
        "several": any(len(several) > 1 for several in seeds.values()),
        "spread": result.spread,
        "left_out": result.left_out,
        "data": result.data,
        "made": {name: result.provenance.get(name) for name in MADE},
        "chance": CHANCE,
    }
