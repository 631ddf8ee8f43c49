"""Reports are data: nothing foreign becomes markup, and what is committed is what the code writes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from frailt.paper.grid_figures import shown
from frailt.paper.grid_report import draw_report, markdown
from frailt.paper.grid_results import GridResults
from frailt.reports import Markdown, escape, html_page, markdown_table
from frailt.studies.comparison import Comparison
from frailt.studies.report import markdown as comparison_table

RESULTS = Path(__file__).parents[1] / "results"
HOSTILE = [
    "<script>alert(1)</script>",
    "a | b",
    "[x](javascript:alert(1))",
    "![x](javascript:alert(1)) [x](http://example.com) <http://example.com>",
    "<img src=x onerror=alert(1)>",
    "one\n\n# two\n\n<script>alert(1)</script>\n\n```\n",
    "`code` &lt;b&gt; \\| \x1b[31m",
    "~~~\n</code></pre><script>alert(1)</script>",
    "'; rm -rf ~ #",
]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return Comparison.read(RESULTS / "compare-d64" / "compare.json")


@pytest.fixture(scope="module")
def grid() -> GridResults:
    return GridResults.read(RESULTS / "grid" / "grid.json")


def test_committed_results_are_what_the_code_writes(comparison: Comparison, grid: GridResults, tmp_path: Path) -> None:
    """After a change of a report, run results/redraw.py."""
    assert (RESULTS / "compare-d64" / "table.md").read_text() == comparison_table(comparison)
    assert (RESULTS / "grid" / "report.md").read_text() == markdown(grid)
    pictures = [RESULTS / "grid" / f"{name}.png" for name in shown(grid.losses.table)]
    page = html_page(markdown(grid), title="The paper's experiment, repeated", pictures=pictures)
    assert (RESULTS / "grid" / "report.html").read_text() == page
    for name, results in (("compare-d64/compare", comparison), ("grid/grid", grid)):
        assert kept(json.loads((RESULTS / f"{name}.json").read_text()), json.loads(json.dumps(results.as_json())))


def kept(stored: Any, written: Any) -> bool:
    """Whether JSON values are among others: those of a later version, which has more settings."""
    if isinstance(stored, dict):
        return all(name in written and kept(value, written[name]) for name, value in stored.items())
    if isinstance(stored, list):
        return len(stored) == len(written) and all(map(kept, stored, written))
    return stored == written


def everywhere(value: Any, word: str) -> Any:
    """JSON values with ``word`` in the place of every string."""
    if isinstance(value, dict):
        return {key: everywhere(inner, word) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [everywhere(inner, word) for inner in value]
    return word if isinstance(value, str) else value


def structure(text: str) -> list[tuple[str, str]]:
    """What Markdown makes of a text: the kinds of its parts in order, without their words."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    parts = [part for token in tokens for part in (token, *(token.children or ()))]
    return [(part.type, part.tag) for part in parts if part.type not in ("text", "text_special", "softbreak")]


def check(text: str, plain: str) -> None:
    """The same structure as with a harmless word in place of the hostile one, and no HTML."""
    assert structure(text) == structure(plain)
    page = html_page(text, title="x")
    assert not re.search(r"<(script|img)", page.replace('<img src="figure', ""))
    assert not re.search(r'(href|src)="javascript', page)
    assert "\x1b" not in text


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_foreign_is_markup_in_a_table(comparison: Comparison, hostile: str) -> None:
    def table(word: str) -> str:
        made = everywhere(comparison.provenance, word)
        return comparison_table(
            replace(comparison, data=replace(comparison.data, name=word), provenance=made, left_out={word: word})
        )

    check(table(hostile), table("harmless"))
    assert table("harmless").count("harmless") == 7, "version, commit, torch, machine, precision, a damaged run's two"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_foreign_is_markup_in_a_grids_report(grid: GridResults, hostile: str, tmp_path: Path) -> None:
    def results(word: str) -> GridResults:
        runs = tuple(replace(run, provenance=everywhere(run.provenance, word)) for run in grid.runs[:3])
        return replace(grid, data=replace(grid.data, name=word), runs=runs, left_out={word: word})

    plain = markdown(results("harmless"))
    check(markdown(results(hostile)), plain)
    assert plain.count("harmless") == 11, "six of provenance, the data's name twice, and a damaged run's two"
    if hostile == HOSTILE[0]:
        draw_report(results(hostile), tmp_path)
        page = (tmp_path / "report.html").read_text()
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page, "it is shown"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_cell_of_a_table_is_one_cell_and_shows_its_text(hostile: str) -> None:
    table = markdown_table(("name", hostile), [[hostile, "1"], [Markdown("*made here*"), "2"]])
    assert structure(table) == structure(markdown_table(("name", "x"), [["x", "1"], [Markdown("*made here*"), "2"]]))
    tokens = MarkdownIt("commonmark").enable("table").parse(table)
    cells = [
        "".join(part.content for part in token.children)
        for token in tokens
        if token.type == "inline" and token.children
    ]
    printable = "".join(c if c.isprintable() else " " for c in hostile)
    assert " ".join(cells[2].split()) == " ".join(printable.split())
    assert escape(escape(hostile)) == escape(hostile)
