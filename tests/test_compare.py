"""Comparisons: the gap that is closed, twins, the paper's numbers, and a small comparison from start to table."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpora import make_corpus
from hypothesis import given
from hypothesis import strategies as st
from shared_data import SHARED

from frailt.data.corpus import Batch, Corpus, TokenFile
from frailt.errors import InputError
from frailt.evaluation.loss import stream_loss, token_losses
from frailt.model.checkpoint import load_model
from frailt.model.config import ModelConfig
from frailt.model.counts import count
from frailt.model.frailt import FraiLT
from frailt.model.shape import Shape
from frailt.paper.published import TABLE_2, TABLE_3, published_loss
from frailt.studies import gap
from frailt.studies.compare import compare
from frailt.studies.comparison import CompareConfig, Comparison, run_name
from frailt.studies.gap import gap_closed, published_gap
from frailt.studies.report import HEADERS, cells
from frailt.studies.twins import Twin, plan
from frailt.training import trainer
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder

BASE = TrainConfig(
    model=ModelConfig(dim=16, heads=2, vocab_size=300, context=32),
    tokens=10 * 4 * 32,
    batch=4,
    evaluations=1,
    precision="float32",
)
CPU = torch.device("cpu")
PAPER = SHARED / "paper" / "frailt.txt"


# The gap closed


def test_the_gap_is_the_way_gone_from_shallow_to_deep() -> None:
    shallow, own, deep = np.array([4.0, 8.0]), np.array([3.0, 6.0]), np.array([2.0, 4.0])
    value, interval = gap_closed(shallow, own, deep)
    assert value == pytest.approx(0.5)
    assert interval == pytest.approx((0.5, 0.5)), "every draw of these stories has the same gap"
    assert gap_closed(shallow, deep, deep)[0] == pytest.approx(1)
    assert gap_closed(shallow, shallow, deep)[0] == pytest.approx(0)
    assert gap_closed(shallow, shallow + 1, deep)[0] == pytest.approx(-1 / 3)


def test_no_gap_where_deep_is_hardly_better() -> None:
    losses = np.array([4.0, 8.0])
    assert gap_closed(losses, 0.99 * losses, 0.981 * losses) == (None, None)
    assert gap_closed(losses, 0.99 * losses, 0.979 * losses)[0] == pytest.approx(10 / 21)
    assert gap_closed(losses, losses, losses) == (None, None)
    assert gap_closed(losses, losses, losses + 1) == (None, None)


def test_no_interval_where_deep_is_not_better_in_some_draws() -> None:
    """Deep wins by one story alone: a third of the draws miss it."""
    shallow, deep = np.array([4.0, 4.0, 4.0]), np.array([1.0, 4.5, 4.5])
    value, interval = gap_closed(shallow, shallow - 0.5, deep)
    assert value == pytest.approx(1.5 / 2)
    assert interval is None


def test_the_interval_holds_the_value_repeats_and_narrows_with_more_stories() -> None:
    random = np.random.default_rng(5)
    widths = []
    for count_ in (50, 800):
        shallow = random.uniform(150, 250, count_)
        deep = shallow - random.uniform(10, 50, count_)
        own = shallow - random.uniform(0, 40, count_)
        value, interval = gap_closed(shallow, own, deep)
        assert (value, interval) == gap_closed(shallow, own, deep)
        assert value is not None
        assert interval is not None
        assert interval[0] < value < interval[1]
        widths.append(interval[1] - interval[0])
    assert widths[1] < widths[0] / 2, "sixteen times the stories, about a quarter of the width"


# The paper's tables


@pytest.mark.parametrize(
    ("dim", "percent"),
    [
        (64, (36, 26, 18, 15)),
        (128, (57, 45, 27, 26)),
        (256, (72, 59, 39, 29)),  # The last is 29.49.
        (512, (86, 73, 61, 62)),
        (1024, (96, 84, 76, 86)),
    ],
)
def test_the_gaps_of_the_paper(dim: int, percent: tuple[int, ...]) -> None:
    found = [published_gap(dim, Shape.parse(shape)) for shape in ("1^2", "1^8", "2^4", "4^2")]
    assert tuple(round(100 * gap) for gap in found if gap is not None) == percent


def test_a_cell_that_the_paper_lacks_has_no_gap() -> None:
    assert published_loss(64, "1^4") is None
    for dim, shape in ((64, "1^4"), (65, "1^8"), (64, "(2)^4"), (64, "8")):
        assert published_gap(dim, Shape.parse(shape)) is None


@pytest.mark.skipif(not PAPER.is_file(), reason="the paper's text is not on this machine")
@pytest.mark.parametrize(
    ("table", "columns", "caption"),
    [
        (TABLE_2, ("1", "2", "4", "8"), "Table 2:"),
        (TABLE_3, ("1^2", "1^8", "2^4", "4^2"), "Table 3:"),
    ],
)
def test_tables_are_the_papers(table: dict[int, dict[str, float]], columns: tuple[str, ...], caption: str) -> None:
    text = PAPER.read_text(encoding="utf-8")
    above = text[: text.index(caption)]
    rows = above[above.rindex("Embedding Dim") :].splitlines()
    superscripts = rows[1].translate(str.maketrans("²⁴⁸", "248")).replace("-layer", "").split("\t")
    heads = [cell.strip().replace(" ", "^") for cell in superscripts if cell.strip()]
    assert tuple(heads) == columns
    found = {}
    for row in rows[2:]:
        if re.match(r"\d", row):
            dim, *losses = row.split("\t")
            found[int(dim)] = dict(zip(columns, map(float, losses), strict=True))
    assert found == table


# Twins


def twins(config: ModelConfig) -> dict[str, Twin]:
    return {twin.rule: twin for twin in plan(config)}


@given(
    st.sampled_from(["1^1", "1^2", "1^8", "2^4", "4^2", "(2)^4", "1+(4)^3+1"]),
    st.sampled_from([64, 96, 128, 256]),
    st.sampled_from([2, 8]),
    st.booleans(),
)
def test_twins_match_within_one_percent(shape: str, dim: int, heads: int, tied: bool) -> None:
    config = ModelConfig(shape=shape, dim=dim, heads=heads, tied=tied)
    found = twins(config)
    own = found["the model"]
    assert own.config == config
    assert all(twin.counts == count(twin.config) for twin in found.values())
    assert all(Shape.parse(twin.config.shape).standard for twin in found.values() if twin is not own)
    assert found["shallow"].config.depth == Shape.parse(shape).blocks
    assert found["equal depth"].config.depth == found["equal parameters"].config.depth == config.depth
    assert found["shallow"].config.dim == found["equal depth"].config.dim == dim
    assert found["equal depth"].counts.flops == own.counts.flops
    assert found["equal parameters"].counts.parameters == pytest.approx(own.counts.parameters, rel=0.01)
    assert found["equal FLOPs"].counts.flops == pytest.approx(own.counts.flops, rel=0.01)
    assert found["equal FLOPs"].config.depth == found["shallow"].config.depth


def test_a_planned_twin_can_be_built() -> None:
    for twin in plan(ModelConfig(shape="1^8", dim=32, heads=8, kv_heads=4)):
        model = FraiLT(twin.config)
        assert sum(parameter.numel() for parameter in model.parameters()) == twin.counts.parameters


def test_a_small_models_twin_has_fewer_heads_rather_than_more_parameters() -> None:
    found = twins(ModelConfig(shape="1^8", dim=16, heads=8))
    assert found["equal parameters"].config.heads < 8
    assert found["equal parameters"].counts.parameters == pytest.approx(found["the model"].counts.parameters, rel=0.01)


@pytest.mark.parametrize("shape", ["8", "1"])
def test_a_standard_model_has_no_twins(shape: str) -> None:
    with pytest.raises(InputError, match=f"shape {shape} is a standard model and has no twins; give one with passes"):
        plan(ModelConfig(shape=shape))


def test_a_model_too_small_to_have_twins() -> None:
    with pytest.raises(InputError, match="no width from 2 to 1024 brings shape 64 within 1% of the model"):
        plan(ModelConfig(shape="8^8", dim=16, heads=2))


# A comparison

SHAPES = ("1", "1^2", "1^2:none", "2")
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("data") / "world")


class Recorder:
    """Which batches each training run has read."""

    def __init__(self) -> None:
        self.read: list[bytes] = []
        self.runs: dict[str, bytes] = {}

    def batch(self, real: TokenFile, *args: int, **options: int) -> Batch:
        x, y = _BATCH(real, *args, **options)
        self.read.append(x.numpy().tobytes() + y.numpy().tobytes())
        return x, y


_BATCH = TokenFile.batch


@pytest.fixture(scope="module")
def made(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, Recorder]:
    """A comparison with two seeds, its folder, and what its runs have read."""
    out, recorder = tmp_path_factory.mktemp("compare"), Recorder()

    def report(label: str, _: trainer.Progress) -> None:
        recorder.runs[label] = b"".join(recorder.read)
        recorder.read.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenFile, "batch", lambda *args, **options: recorder.batch(*args, **options))
        patch.setattr(gap, "CLOSE", 0)
        result = compare(CompareConfig(shapes=SHAPES, seeds=SEEDS, base=BASE), corpus, out, report=report)
    return result, out, recorder


Made = tuple[Comparison, Path, Recorder]


@pytest.fixture
def any_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of so few steps differ by little."""
    monkeypatch.setattr(gap, "CLOSE", 0)


def test_a_comparison_leaves_its_files(made: Made, corpus: Corpus) -> None:
    result, out, _ = made
    assert {path.name for path in out.iterdir()} == {"compare.json", "table.md", "compare.png", "runs"}
    assert {path.name for path in (out / "runs").iterdir()} == {run_name(n, s) for n in SHAPES for s in SEEDS}
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((out / "compare.json").read_text())
    assert stored["config"]["shapes"] == list(SHAPES)
    assert stored["config"]["seeds"] == list(SEEDS)
    assert stored["config"]["base"]["tokens"] == BASE.tokens
    assert stored["data"]["train"]["sha256"] == corpus.digest["train"]
    assert stored["data"]["valid"]["sha256"] == corpus.digest["valid"]
    assert {"frailt", "torch", "numpy", "python", "commit", "machine"} <= stored["provenance"].keys()
    assert [row["name"] for row in stored["rows"]] == list(SHAPES)
    for row, kept in zip(result.rows, stored["rows"], strict=True):
        assert kept["loss"] == row.loss == np.mean(kept["loss_by_seed"])
        assert kept["counts"]["parameters"] == row.counts.parameters == count(result.config.model(row.name)).parameters
        assert kept["tokens_per_second"] > 0


def test_rows_have_the_losses_of_the_saved_models(made: Made, corpus: Corpus) -> None:
    """Losses are taken story by story; their sum is the loss of the stream."""
    result, out, _ = made
    for row in result.rows:
        for seed, loss in zip(SEEDS, row.losses, strict=True):
            model = load_model(out / "runs" / run_name(row.name, seed))
            whole = stream_loss(model, np.asarray(corpus.valid.tokens), text_bytes=corpus.valid_bytes)
            assert loss.nats == pytest.approx(whole.nats, rel=1e-9)
            assert (loss.tokens, loss.bytes) == (whole.tokens, whole.bytes)
    assert len({loss.nats for row in result.rows for loss in row.losses}) == len(SHAPES) * len(SEEDS)


def test_the_gap_is_between_the_right_twins(made: Made) -> None:
    rows = {row.name: row for row in made[0].rows}
    shallow, deep = rows["1"], rows["2"]
    assert shallow.gap_closed is None
    assert deep.gap_closed is None
    assert shallow.loss > deep.loss, "the test needs a deep model that is better; choose another seed"
    for name in ("1^2", "1^2:none"):
        expected = (shallow.loss - rows[name].loss) / (shallow.loss - deep.loss)
        assert rows[name].gap_closed == pytest.approx(expected)
    assert rows["1^2"].counts.parameters - rows["1^2:none"].counts.parameters == 2 * 16


@pytest.mark.usefixtures("any_gap")
def test_the_interval_is_over_the_stories_own_tokens(made: Made, corpus: Corpus) -> None:
    """BOS counts to the story that it begins."""
    result, out, _ = made
    tokens = np.asarray(corpus.valid.tokens)
    starts = [0, *(i - 1 for i in np.flatnonzero(tokens == corpus.manifest.bos) if i > 0)]

    def by_story(name: str) -> np.ndarray:
        runs = [token_losses(load_model(out / "runs" / run_name(name, seed)), tokens) for seed in SEEDS]
        return np.add.reduceat(np.mean(runs, axis=0), starts)

    for row in result.rows:
        if row.gap_closed is not None:
            _, interval = gap_closed(by_story("1"), by_story(row.name), by_story("2"))
            assert row.gap_interval == (None if interval is None else pytest.approx(interval))
    assert any(row.gap_interval is not None for row in result.rows), "the test needs an interval"


def test_the_papers_gap_stands_beside_its_own_cells_only(made: Made, corpus: Corpus) -> None:
    assert all(row.paper_gap is None for row in made[0].rows), "the paper has no width 16"
    assert published_gap(64, Shape.parse("1^2")) is not None


def test_all_models_read_the_same_text_in_the_same_order(made: Made) -> None:
    read = made[2].runs
    assert all(len(tokens) == 10 * 2 * 4 * 32 * 8 for tokens in read.values())
    for seed in SEEDS:
        assert len({read[run_name(name, seed)] for name in SHAPES}) == 1
    assert read[run_name("1", 0)] != read[run_name("1", 1)]


def test_the_table_says_what_was_measured(made: Made, corpus: Corpus) -> None:
    result, out, _ = made
    table = (out / "table.md").read_text()
    lines = table.splitlines()
    assert lines[0] == "| " + " | ".join(HEADERS) + " |"
    for line, row, made_of in zip(lines[2:], result.rows, cells(result), strict=False):
        assert line == "| " + " | ".join(made_of) + " |"
        assert made_of[0] == row.name
        assert f"{row.counts.parameters:,}" in made_of
        assert f"{row.loss:.3f}" in made_of
        assert f"{row.bits_per_byte:.3f}" in made_of
    assert "1,280 training tokens in 10 steps of 128" in table
    assert "seed 0, 1" in table
    for row in result.rows:  # Several seeds: each one's loss is shown.
        assert f"{row.name} {row.losses[0].nats_per_token:.3f}, {row.losses[1].nats_per_token:.3f}" in table
    assert f"{corpus.manifest.valid.stories:,} held-out stories" in table
    assert torch.__version__ in table


def refuse(*_: object) -> None:
    raise AssertionError("a complete run is trained again")


@pytest.mark.usefixtures("any_gap")
def test_what_is_complete_is_not_trained_again(made: Made, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    first, out, _ = made
    monkeypatch.setattr(trainer._Training, "loop", refuse)
    again = compare(first.config, corpus, out)
    assert [replace(row, tokens_per_second=1.0) for row in again.rows] == [
        replace(row, tokens_per_second=1.0) for row in first.rows
    ]


def test_another_shape_trains_only_itself_and_joins_the_others(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    first, out = made[0], shutil.copytree(made[1], tmp_path / "compare")
    begun = RunFolder(out / "runs" / "4-s0")
    begun.start(replace(BASE, model=replace(BASE.model, shape="4")), corpus, CPU, resume=False)
    begun.release()
    trained = []
    config = replace(first.config, shapes=("1^3",), seeds=(0,))
    more = compare(config, corpus, out, report=lambda label, _: trained.append(label))
    assert set(trained) == {"1x3-s0"}
    assert [row.name for row in more.rows] == ["1^3", "1", "1^2", "1^2:none", "2"], "4 is not complete"
    before = {row.name: row.losses for row in first.rows}
    assert {row.name: row.losses for row in more.rows[1:]} == before
    assert [row.seeds for row in more.rows] == [(0,), *[SEEDS] * 4]
    assert (more.rows[0].twins, more.rows[0].gap_closed) == (False, None), "there is no standard model of depth 3"
    assert "seeds 0 of 1^3; 0, 1 of 1; 0, 1 of 1^2; " in (out / "table.md").read_text()
    stored = json.loads((out / "compare.json").read_text())
    assert [row["name"] for row in stored["rows"]] == [row.name for row in more.rows]


def test_a_gap_is_over_common_seeds(made: Made, corpus: Corpus, tmp_path: Path, any_gap: None) -> None:
    first, out = made[0], shutil.copytree(made[1], tmp_path / "compare")
    shutil.rmtree(out / "runs" / "2-s1")
    shutil.rmtree(out / "runs" / "1x2-none-s0")
    rows = {row.name: row for row in compare(replace(first.config, shapes=("1",)), corpus, out).rows}
    by_seed = {name: dict(zip(row.seeds, row.losses, strict=True)) for name, row in rows.items()}
    shallow, own, deep = (by_seed[name][0].nats for name in ("1", "1^2", "2"))
    assert deep < shallow, "the test needs a deep model that is better; choose another seed"
    assert rows["1^2"].gap_closed == pytest.approx((shallow - own) / (shallow - deep))
    assert not rows["1^2:none"].twins, "it was run with seed 1, and 2 with seed 0"


def test_a_gap_that_cannot_be_measured_is_a_dash(made: Made) -> None:
    row = next(row for row in made[0].rows if row.name == "1^2")
    place = HEADERS.index("gap closed")

    def shown(**changes: object) -> str:
        return cells(replace(made[0], rows=(replace(row, **changes),)))[0][place]

    assert shown(gap_closed=None, gap_interval=None) == "-"
    assert shown(twins=False, gap_closed=None, gap_interval=None) == ""
    assert shown(gap_closed=0.5, gap_interval=(0.25, 0.75)) == "50% [25, 75]"
    assert "A dash: the deep model is less than 2% better than the shallow one" in (made[1] / "table.md").read_text()


@pytest.mark.parametrize("shapes", [SHAPES, ("1^3",)])
def test_a_folder_of_another_comparison_is_refused(made: Made, corpus: Corpus, shapes: tuple[str, ...]) -> None:
    table = (made[1] / "table.md").read_bytes()
    config = replace(made[0].config, shapes=shapes, base=replace(BASE, tokens=BASE.tokens + 128))
    with pytest.raises(InputError, match=r"1-s0 holds a run with another tokens \(1280, now 1408\); .* another --out"):
        compare(config, corpus, made[1])
    assert (made[1] / "table.md").read_bytes() == table
    assert not (made[1] / "runs" / "1x3-s0").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shapes": ()}, "at least one shape"),
        ({"seeds": ()}, "at least one shape and one seed"),
        ({"shapes": ("1^8", "(1)^8")}, "listed twice"),
        ({"shapes": ("2", "1+1")}, "listed twice"),
        ({"seeds": (0, 0)}, "listed twice"),
        ({"seeds": (0, -1)}, "seed is -1"),
        ({"shapes": ("8:none",)}, "shape '8:none' is a standard model and has no encodings; leave out :none"),
        (
            {"shapes": ("1^8:fourier",)},
            "shape '1.8:fourier' has an unknown encoding; after the colon, write learned, sinusoidal, none",
        ),
        ({"shapes": ("1", "1^")}, "is not understood"),
        ({"shapes": ("1", "")}, "is not understood"),
    ],
)
def test_a_bad_comparison_is_refused_before_any_training(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CompareConfig(**{"base": BASE, **change})


def test_names_of_runs_are_distinct_and_plain() -> None:
    entries = ["1", "8", "1^8", "1^8:none", "1^8:sinusoidal", "2^4", "(2)^4", "1+(4)^3+1", "1+4^3+1"]
    labels = [run_name(entry, seed) for entry in entries for seed in (0, 1)]
    assert len(set(labels)) == len(labels)
    assert all(re.fullmatch(r"[\w-]+", label) for label in labels)
