"""Figures that were copied by hand into README and docs are those of ``results/``, and links lead somewhere."""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "results" / "README.md",
]


def tables(document: str) -> list[list[list[str]]]:
    """Tables of a document, each a list of rows of cells, the head first and the rule left out."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^\|.*\|\n)+", text + "\n", re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [[row for row in table if set("".join(row)) - set("-: ")] for table in rows]


def table(document: str, *headers: str) -> dict[str, list[str]]:
    """The rows below these headers, by their first cell without its marks."""
    for head, *rows in tables(document):
        if head[: len(headers)] == list(headers):
            return {row[0].strip("`"): row[1:] for row in rows}
    raise AssertionError(f"{document} has no table that begins with {headers}")


def results(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


def test_losses_of_the_comparison() -> None:
    rows = {row["name"]: row for row in results("compare-d64/compare.json")["rows"]}
    shown = table("README.md", "shape", "parameters", "MFLOPs per token", "loss, nats per token")
    assert shown.keys() == rows.keys()
    for name, (parameters, flops, loss, gap) in shown.items():
        row = rows[name]
        assert parameters == f"{row['counts']['parameters']:,}"
        assert flops == f"{row['counts']['flops'] / 1e6:.2f}"
        assert loss == f"{row['loss']:.3f}"
        # A row that says chance is read beside the grid, which knows how far seeds differ.
        assert gap in ("", "chance") or gap == f"{row['gap']['value']:.0%}"


def test_gaps_of_the_grid() -> None:
    gaps = {(gap["dim"], gap["model"]): gap["gap"] for gap in results("grid/grid.json")["gaps"]}
    shown = table("README.md", "width", "`1^2`", "`1^8`", "`2^4`", "`4^2`")
    for label, cells in shown.items():
        for model, cell in zip(("1^2", "1^8", "2^4", "4^2"), cells, strict=True):
            gap = gaps[int(label.split()[0]), model]
            assert cell.split()[0] == ("chance" if gap["chance"] else f"{gap['value']:.0%}")


def test_tokens_per_second() -> None:
    widths = results("bench/decode.json")["widths"]
    sides = {
        "transformers, shape `8`, float32": "transformers sdpa",
        "llama2.c `run`, `8`, float32": "llama2.c run",
        "llama2.c `runq`, `8`, 8 bits": "llama2.c runq",
        "llama.cpp, `8`, float32": "llama.cpp F32",
        "llama.cpp, `8`, 8 bits (Q8_0)": "llama.cpp Q8_0",
        "frailt, `8`, float32": "8 float32",
        "frailt, `8`, 8 bits": "8 int8",
        "frailt, `1^8`, float32": "1^8 float32",
        "frailt, `1^8`, 8 bits": "1^8 int8",
    }
    for label, cells in table("README.md", "tokens per second, two cores").items():
        for dim, cell in zip(("64", "256", "512", "1024"), cells, strict=True):
            assert cell == f"{widths[dim]['tokens_per_second'][sides[label]]:,.0f}", label


def test_ratios_of_decoding() -> None:
    widths = results("bench/decode.json")["widths"]
    ratios = {(dim, ratio["of"], ratio["over"]): ratio for dim, of in widths.items() for ratio in of["ratios"]}
    keys = {
        "our `1^8` over our `8`, width 512, float32": ("512", "1^8 float32", "8 float32"),
        "our `1^8` over our `8`, width 1024, int8": ("1024", "1^8 int8", "8 int8"),
        "our `8` over transformers' `8` (sdpa, not compiled), width 512, float32": (
            "512",
            "8 float32",
            "transformers sdpa",
        ),
        "our `1^8` over transformers' `8`, width 512, float32": ("512", "1^8 float32", "transformers sdpa"),
        "our `8` over llama2.c's `run`, width 64, float32": ("64", "8 float32", "llama2.c run"),
        "our `8` over llama2.c's `run`, width 512, float32": ("512", "8 float32", "llama2.c run"),
        "our `1^8` over llama.cpp's `8`, width 1024, int8 and Q8_0": ("1024", "1^8 int8", "llama.cpp Q8_0"),
    }
    for label, (middle, range_) in table("results/README.md", "decoding, one text, 256 tokens").items():
        ratio = ratios[keys[label]]
        digits = 1 if ratio["median"] >= 10 else 2
        assert middle == f"{ratio['median']:.{digits}f}", label
        assert range_ == f"{ratio['min']:.{digits}f} to {ratio['max']:.{digits}f}", label


def test_ratios_over_llama2c() -> None:
    widths = results("bench/decode-llama2c.json")["widths"]
    ratios = {(dim, ratio["of"], ratio["over"]): ratio for dim, of in widths.items() for ratio in of["ratios"]}
    sides = {
        "our `8` over `run`, float32": ("8 float32", "llama2.c run"),
        "our `1^8` over `run`, float32": ("1^8 float32", "llama2.c run"),
        "our `8` over `runq`, 8 bits": ("8 int8", "llama2.c runq"),
        "our `1^8` over `runq`, 8 bits": ("1^8 int8", "llama2.c runq"),
    }
    for label, cells in table("README.md", "beside llama2.c (shape `8`), tokens per second").items():
        for dim, cell in zip(("64", "256"), cells, strict=True):
            ratio = ratios[dim, *sides[label]]
            assert cell == f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})", label


def test_ratios_of_training() -> None:
    widths = results("bench/train.json")["widths"]
    ratios = {(dim, r["of"], r["over"]): r["median"] for dim, of in widths.items() for r in of["ratios"]}
    sides = {
        "ours (bfloat16, the default here) over transformers in float32, sdpa": (
            "bfloat16",
            "transformers sdpa float32",
        ),
        "the same, ours compiled": ("bfloat16 compiled", "transformers sdpa float32"),
        "ours (bfloat16) over transformers in float32, eager attention": ("bfloat16", "transformers eager float32"),
        "ours (float32) over transformers in float32, sdpa": ("float32", "transformers sdpa float32"),
        "ours (bfloat16) over transformers in bfloat16, sdpa": ("bfloat16", "transformers sdpa bfloat16"),
        "ours over transformers in bfloat16, sdpa, both compiled": (
            "bfloat16 compiled",
            "transformers sdpa bfloat16 compiled",
        ),
    }
    for label, cells in table("results/README.md", "training, 8 blocks, four windows of 512").items():
        for dim, cell in zip(("64", "256", "512"), cells, strict=True):
            assert cell == f"{ratios[dim, *sides[label]]:.2f}", (label, dim)


def test_early_exit() -> None:
    rows = {row["exit"]: row for row in results("bench/early-exit.json")["decoders"]["compiled"]}
    for label, (passes, loss, speed, saved) in table("docs/reference.md", "exit", "mean passes of 8").items():
        row = rows[label]
        assert passes == f"{row['mean_passes']:.2f}"
        assert loss == (f"+{row['cost_nats']:.4f}" if saved else f"{row['nats_per_token']:.3f}")
        assert speed == f"{row['tokens_per_second']:,.0f}"
        assert saved in ("", f"{row['saved']:.0%}")


def test_what_bfloat16_costs_in_training() -> None:
    models = results("bench/precision.json")["models"]
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    cost = [f"{model['more']:.3f} ± {model['standard_error']:.3f}" for model in models]
    assert f"{cost[0]} nats at width 64 and by {cost[1]} at width 256" in text
    assert f"over {sum(len(model['seeds']) for model in models)} pairs" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_mean_is_over_seeds() -> None:
    for row in results("compare-d64/compare.json")["rows"]:
        assert row["loss"] == pytest.approx(mean(row["loss_by_seed"]))
