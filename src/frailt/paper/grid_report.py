"""The report of a grid as files: Markdown, one page of HTML, figures, and all numbers as JSON."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from statistics import mean

from frailt.data.corpus import Corpus
from frailt.files import write_json, write_text
from frailt.model.counts import count
from frailt.model.variant import Variant
from frailt.paper.claims import FEW_TOKENS
from frailt.paper.grid import GridConfig
from frailt.paper.grid_figures import Table, draw_figures, shown
from frailt.paper.grid_results import GridResults
from frailt.paper.published import LOSSES, TABLE_2, TABLE_3, published_gap
from frailt.reports import Markdown, html_page, markdown_table, render
from frailt.studies.gap import CHANCE

Cell = Callable[[int, str], str]
"""From width and model to what stands in a table."""
TITLES = {"figure-4": "Figure 4, models of one and two blocks", "figure-5": "Figure 5, models of four and eight blocks"}


def write_report(grid: GridConfig, corpus: Corpus, out: Path) -> list[Path]:
    """Write ``report.md``, ``report.html``, ``grid.json`` and the figures (PNG and PDF) to ``out``.

    Args:
        grid: the protocol. Every complete run of it in ``out`` is reported, and nothing else.
        corpus: the data.
        out: the grid's folder.

    Returns:
        The report's files, the readable ones first.

    Raises:
        InputError: there is no complete run.
    """
    results = GridResults.of(grid, corpus, out)
    write_json(out / "grid.json", results.as_json())
    return [*draw_report(results, out), out / "grid.json"]


def draw_report(results: GridResults, out: Path) -> list[Path]:
    """Write all but the JSON."""
    figures = draw_figures(results.losses.table, out, caption=budget(results))
    text = markdown(results)
    pictures = [path for path in figures if path.suffix == ".png"]
    write_text(out / "report.md", text)
    write_text(out / "report.html", html_page(text, title="The paper's experiment, repeated", pictures=pictures))
    return [out / "report.html", out / "report.md", *figures]


def markdown(results: GridResults) -> Markdown:
    """The whole report as Markdown; its figures lie beside it."""
    losses = results.losses.table
    others = sorted({name for _, name in results.cells if not Variant.parse(name).shape.standard} - TABLE_3[64].keys())
    seeds = {dim: sorted({run.seed for run in results.runs if run.dim == dim}) for dim in results.widths}
    return render(
        "frailt.paper",
        "report.md",
        results=results,
        base=results.protocol,
        data=results.data,
        seeds=seeds,
        precision=" and ".join(sorted({str(run.provenance.get("precision")) for run in results.runs})),
        note=Markdown(budget(results)),
        figures=[(name, TITLES[name]) for name in shown(losses)],
        standard=_side_by_side(results.widths, TABLE_2[64], _in(losses), _in(LOSSES)),
        frailt=_side_by_side(results.widths, TABLE_3[64], _in(losses), _in(LOSSES)),
        gaps=_side_by_side(results.widths, [*TABLE_3[64], *others], lambda *c: str(results.gap.get(c, "")), _published),
        costs=_costs(results),
        by_seed=_by_seed(results),
        claims=markdown_table(
            ("section", "claim", "the paper's numbers", f"ours (width {', '.join(map(str, results.widths))})"),
            [list(claim.values()) for claim in results.claims],
            words=4,
        ),
        commands=Markdown("\n".join(commands(results))),
        machines=_machines(results),
        few=FEW_TOKENS,
        chance=CHANCE,
    )


def commands(results: GridResults) -> list[str]:
    """Command lines that make these results, one for each set of seeds."""
    base = results.protocol
    budgets = ",".join(f"{dim}:{tokens}" for dim, tokens in results.budgets.items()) or base.tokens
    by_seeds: dict[tuple[int, str], list[str]] = {}
    for (dim, name), runs in results.cells.items():
        by_seeds.setdefault((dim, ",".join(str(run.seed) for run in runs)), []).append(name)
    data = "".join(c if c.isprintable() else " " for c in results.data.name)
    return [
        f"frailt reproduce --data {shlex.quote(data)} --out grid --widths {dim} --shapes '{','.join(names)}' "
        f"--seeds {seeds} --budget {budgets} --optimizer {base.optimizer.optimizer} --lr {base.optimizer.lr:g} "
        f"--batch {base.batch} --context {base.model.context} --heads {base.model.heads} --precision {base.precision}"
        + (" --compile" if base.compile else "")
        for (dim, seeds), names in by_seeds.items()
    ]


def budget(results: GridResults) -> str:
    """What stands in every caption: how long every model was trained."""
    text = max(results.data.manifest.train.tokens, 1)
    budgets = {
        dim: f"{results.tokens_at(dim):,} training tokens ({results.tokens_at(dim) / text:.2g} times the text)"
        for dim in results.widths
    }
    if len(set(budgets.values())) == 1:
        return f"Each model: {next(iter(budgets.values()))}."
    return f"Each model of width {'; of width '.join(f'{dim}: {tokens}' for dim, tokens in budgets.items())}."


def _side_by_side(widths: Iterable[int], names: Iterable[str], ours: Cell, papers: Cell) -> Markdown:
    """A table in the paper's layout, each of its columns twice: ours, and the paper's in italics."""
    columns = list(names)
    head = ["width", *(cell for name in columns for cell in (Markdown(f"`{name}`"), Markdown("*paper*")))]
    rows: list[list[str]] = []
    for dim in sorted(LOSSES.keys() | set(widths)):
        rows.append([str(dim)])
        for name in columns:
            theirs = papers(dim, name)
            rows[-1] += [ours(dim, name), Markdown(f"*{theirs}*" if theirs else "")]
    return markdown_table(head, rows, words=0)


def _in(table: Table) -> Cell:
    """Cells of a table of losses as texts."""
    return lambda dim, name: f"{table[dim][name]:.3f}" if name in table.get(dim, {}) else ""


def _published(dim: int, name: str) -> str:
    gap = published_gap(dim, Variant.parse(name))
    return "" if gap is None else f"{gap:.0%}"


def _costs(results: GridResults) -> Markdown:
    rows = []
    for (dim, name), runs in results.cells.items():
        variant = Variant.parse(name)
        counts = count(variant.model(replace(results.protocol.model, dim=dim)))
        millions = (f"{number / 1e6:.2f}" for number in (counts.flops, counts.cache_bytes))
        losses = (results.losses.table[dim][name], mean(run.bits_per_byte for run in runs))
        model = (dim, Markdown(f"`{name}`"), variant.shape.depth, f"{counts.parameters:,}")
        rows.append((*model, *millions, *(f"{loss:.3f}" for loss in losses)))
    head = ("width", "model", "depth", "parameters", "MFLOPs", "cache, MB", "nats/token", "bits/byte")
    return markdown_table(head, rows, words=0)


def _by_seed(results: GridResults) -> Markdown | None:
    rows = []
    for (dim, name), runs in results.cells.items():
        losses = {run.seed: run.loss for run in runs}
        shown = ", ".join(f"{seed}: {loss:.3f}" for seed, loss in losses.items())
        if len(losses) > 1:
            rows.append((dim, Markdown(f"`{name}`"), shown, f"{max(losses.values()) - min(losses.values()):.3f}"))
    return markdown_table(("width", "model", "loss by seed", "range"), rows, words=0) if rows else None


def _machines(results: GridResults) -> list[dict[str, str]]:
    """What trained the runs, each once."""
    names = ("frailt", "commit", "torch", "python", "machine")
    made = {tuple(str(run.provenance.get(name)) for name in names): None for run in results.runs}
    return [dict(zip(names, values, strict=True)) for values in made]
