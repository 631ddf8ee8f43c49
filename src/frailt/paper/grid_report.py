"""The report of a grid as files: Markdown, one page of HTML, figures, and all numbers as JSON."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from frailt.data.corpus import Corpus
from frailt.files import write_json, write_text
from frailt.paper.claims import CLAIMS
from frailt.paper.grid import GridConfig
from frailt.paper.grid_figures import draw_figures
from frailt.paper.grid_results import GridResults
from frailt.paper.grid_text import budget, commands, markdown
from frailt.paper.published import LOSSES
from frailt.training.device import choose_device
from frailt.training.run_folder import provenance


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
    results = GridResults(grid, corpus, out)
    figures = draw_figures(results, out, caption=budget(results))
    text = markdown(results)
    write_text(out / "report.md", text)
    write_text(out / "report.html", html(text, [path for path in figures if path.suffix == ".png"]))
    write_json(out / "grid.json", as_json(results))
    return [out / "report.html", out / "report.md", out / "grid.json", *figures]


def html(text: str, pictures: Sequence[Path]) -> str:
    """The report as one page that needs no other file."""
    body = MarkdownIt("commonmark").enable("table").render(text)
    for picture in pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        body = body.replace(f'src="{picture.name}"', f'src="data:image/png;base64,{data}"')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>The paper's experiment, repeated</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{body}</body>\n</html>\n"
    )


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td[style*=left] { text-align: left; }
thead th { border-bottom: 2px solid #888; }
img { max-width: 100%; }
pre { background: #f4f4f4; padding: .7rem; overflow-x: auto; }
"""


def as_json(results: GridResults) -> dict[str, Any]:
    """Everything behind the report."""
    base = results.grid.base
    runs = [
        {
            "dim": run.config.model.dim,
            "model": name,
            "seed": run.config.seed,
            "parameters": results.counts(run.config.model.dim, name).parameters,
            "flops": results.counts(run.config.model.dim, name).flops,
            "loss": run.loss.nats_per_token,
            "bits_per_byte": run.loss.bits_per_byte,
            "curve": run.curve,
            "provenance": run.provenance,
        }
        for name, run in results.all_runs()
    ]
    gaps = [
        {"dim": dim, "model": name, "gap": gap.value, "interval": gap.interval}
        for dim, name in sorted(results.cells)
        if (gap := results.gap(dim, name)) is not None
    ]
    claims = [
        {
            "section": claim.section,
            "claim": claim.text,
            "paper": str(claim.decide(LOSSES)),
            "ours": claim.said(results.losses(), tokens=results.tokens),
        }
        for claim in CLAIMS
    ]
    return {
        "commands": commands(results).splitlines(),
        "tokens": results.tokens,
        # Width, shape, encoding and seed stand beside each run.
        "protocol": asdict(base),
        "data": results.data,
        "runs": runs,
        "gaps": gaps,
        "claims": claims,
        "reported_by": provenance(choose_device(base.device)),
    }
