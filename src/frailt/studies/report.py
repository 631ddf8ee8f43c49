"""A comparison as a table, and as JSON."""

import dataclasses
from typing import Any

from frailt.model.shape import Shape
from frailt.studies.comparison import Comparison
from frailt.studies.gap import CLOSE

HEADERS = ("shape", "depth", "params", "MFLOPs", "loss", "bits/byte", "gap closed", "paper", "tok/s")


def cells(result: Comparison) -> list[tuple[str, ...]]:
    """The rows of the table as texts, in the order of ``HEADERS``."""
    table = []
    for row in result.rows:
        table.append(
            (
                row.name,
                str(Shape.parse(row.shape).depth),
                f"{row.counts.parameters:,}",
                f"{row.counts.flops / 1e6:.2f}",
                f"{row.loss:.3f}",
                f"{row.bits_per_byte:.3f}",
                gap_text(row.gap_closed, row.gap_interval) if row.twins else "",
                "" if row.paper_gap is None else f"{row.paper_gap:.0%}",
                f"{row.tokens_per_second:,.0f}",
            )
        )
    return table


def gap_text(value: float | None, interval: tuple[float, float] | None) -> str:
    """A gap closed in per cent, with its interval where there is one; a dash where it cannot be measured."""
    own = "-" if value is None else f"{value:.0%}"
    return own if interval is None else f"{own} [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


DASH = (
    f"A dash: the deep model is less than {CLOSE:.0%} better than the shallow one, and parts of so little are chance."
)
"""The rule, for captions."""


def caption(result: Comparison) -> str:
    """What a reader must know beside the table."""
    base, data = result.config.base, result.data
    tokens = base.steps * base.tokens_per_step
    seeds = {row.name: ", ".join(map(str, row.seeds)) for row in result.rows}
    if len(set(seeds.values())) == 1:
        said = f"seed {seeds[result.rows[0].name]}"
    else:
        said = f"seeds {'; '.join(f'{own} of {name}' for name, own in seeds.items())} (gaps over common ones)"
    by_seed = "; ".join(
        f"{row.name} {', '.join(f'{loss.nats_per_token:.3f}' for loss in row.losses)}" for row in result.rows
    )
    means = f", the mean over seeds ({by_seed})" if any(len(row.seeds) > 1 for row in result.rows) else ""
    return (
        f"Width {base.model.dim}, context {base.model.context}, vocabulary {base.model.vocab_size}. "
        f"Each model: {tokens:,} training tokens in {base.steps:,} steps of {base.tokens_per_step:,}, peak rate "
        f"{base.optimizer.lr:g}, {result.provenance['precision']}, {said}. Depth: blocks times "
        f"passes. MFLOPs: of a forward pass, per token. Loss in nats per token{means}, over "
        f"{result.rows[0].losses[0].tokens:,} tokens of {data['valid']['stories']:,} held-out stories. Gap closed: "
        "(loss of the shallow standard model - loss) / (loss of the shallow - loss of the deep one), with its 95% "
        "interval over stories; paper: the same from its tables 2 and 3. "
        f"{DASH} "
        "tok/s: training, measured in turn; only their ratios count."
    )


def markdown(result: Comparison) -> str:
    """Table and caption as Markdown."""
    lines = ["| " + " | ".join(HEADERS) + " |", "| --- |" + " ---: |" * (len(HEADERS) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in cells(result)]
    machine = result.provenance
    return "\n".join(lines) + (
        f"\n\n{caption(result)}\n\nfrailt {machine['frailt']} ({machine['commit']}), torch {machine['torch']}, "
        f"{machine['machine']}.\n"
    )


def as_json(result: Comparison) -> dict[str, Any]:
    """A comparison as JSON values, derived figures included."""
    rows = []
    for row in result.rows:
        rows.append(
            {
                **dataclasses.asdict(row),
                "loss": row.loss,
                "bits_per_byte": row.bits_per_byte,
                "loss_by_seed": [loss.nats_per_token for loss in row.losses],
            }
        )
    return {
        "config": dataclasses.asdict(result.config),
        "rows": rows,
        "data": result.data,
        "provenance": result.provenance,
    }
