"""The paper's grid: its cells, workers side by side, budgets, and the report from start to end."""

import json
import re
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpora import make_chain, make_corpus
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.model.frailt import ModelConfig
from frailt.paper.claims import (
    CLAIMS,
    Verdict,
    beats_its_blocks,
    catches_up,
    equals_its_depth,
    outperforms_larger,
    still_gains,
)
from frailt.paper.grid import SHAPES, WIDTHS, GridConfig
from frailt.paper.grid_figures import draw_figures, shown
from frailt.paper.grid_report import write_report
from frailt.paper.grid_results import Gap, GridResults
from frailt.paper.grid_text import markdown
from frailt.paper.published import LOSSES
from frailt.paper.reproduce import GridProgress, reproduce
from frailt.studies import estimate, workers
from frailt.studies.estimate import Speed, budget_of_minutes, plan_rows, plan_seconds, probe
from frailt.studies.workers import failure, is_complete, run_local, steps_done, work
from frailt.training.config import OptimizerConfig, TrainConfig
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import VALIDATION, train

BASE = TrainConfig(
    model=ModelConfig(heads=2, vocab_size=300, context=16),
    optimizer=OptimizerConfig(lr=1e-2),
    tokens=640,
    batch=2,
    evaluations=2,
    device="cpu",
    precision="float32",
)
GRID = GridConfig(widths=(8, 16), shapes=("1", "2", "1^2", "1^2:none"), seeds=(0, 1), base=BASE)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("data") / "world")


Made = tuple[Path, list[GridProgress]]


@pytest.fixture(scope="module")
def made(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A whole grid, trained by two workers side by side, and what was reported meanwhile."""
    out, looks = tmp_path_factory.mktemp("grid"), list[GridProgress]()
    outcome = reproduce(GRID, corpus, out, jobs=2, report=looks.append)
    assert (outcome.complete, outcome.cells, outcome.failed) == (16, 16, {})
    return out, looks


# What the grid is


def test_the_grid_is_the_papers() -> None:
    grid = GridConfig()
    assert WIDTHS == (64, 128, 256, 512, 1024)
    assert set(SHAPES) == {"1", "2", "4", "8", "1^2", "1^8", "2^4", "4^2"}
    cells = grid.cells()
    assert len(cells) == 40
    models = [cell.config.model for cell in cells]
    assert {(model.heads, model.vocab_size, model.context) for model in models} == {(8, 512, 512)}
    assert {(c.dim, c.config.model.shape) for c in cells} == {(dim, shape) for dim in WIDTHS for shape in SHAPES}


def test_cells_differ_in_width_shape_encoding_and_seed_alone() -> None:
    for cell in GRID.cells():
        model = replace(cell.config.model, dim=64, shape="1^8", encoding="learned")
        assert replace(cell.config, model=model, seed=0) == BASE


def test_the_costliest_come_first_and_first_seeds_before_second_ones() -> None:
    own = [cell for cell in GRID.cells() if cell.dim == 16]
    assert [cell.config.seed for cell in own] == [0] * 4 + [1] * 4
    assert [cell.work for cell in own[:4]] == sorted((cell.work for cell in own[:4]), reverse=True)


def test_another_config_seed_or_text_is_another_run(corpus: Corpus, tmp_path: Path) -> None:
    changes = [
        GRID,
        replace(GRID, base=replace(BASE, tokens=672)),
        replace(GRID, base=replace(BASE, optimizer=OptimizerConfig(lr=2e-2))),
        replace(GRID, base=replace(BASE, precision="bfloat16")),
    ]
    folders = {cell.folder(tmp_path, corpus) for grid in changes for cell in grid.cells()}
    assert len(folders) == len(changes) * len(GRID.cells())
    other = make_chain(tmp_path / "chain")
    assert not folders & {cell.folder(tmp_path, other) for cell in GRID.cells()}
    often = replace(GRID, base=replace(BASE, checkpoint_seconds=1.0))
    assert often.cells()[0].folder(tmp_path, corpus) in folders, "how often to save changes nothing"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": ()}, "at least one width"),
        ({"widths": (64, 64)}, "a width is listed twice"),
        ({"widths": (64, 100)}, "dim 100 with 8 heads gives no even head width"),
        ({"shapes": ("1", "1^")}, "is not understood"),
    ],
)
def test_a_bad_grid_is_refused_before_any_training(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GridConfig(**change)


# Workers


def test_every_cell_is_trained_once_and_as_by_itself(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    out, _ = made
    assert len(list((out / "runs").iterdir())) == len(GRID.cells()) == 16
    for cell in GRID.cells():
        metrics = RunFolder(cell.folder(out, corpus)).metrics()
        assert [line["step"] for line in metrics] == [10, 10, 20, 20]
    cell = GRID.cells()[2]
    alone = train(cell.config, corpus, tmp_path / "alone")
    assert np.load(cell.folder(out, corpus) / "story_nats.npy").sum() == pytest.approx(alone.loss.nats, rel=1e-6)


def test_progress_ends_at_the_whole(made: Made) -> None:
    _, looks = made
    last = looks[-1]
    assert (last.complete, last.cells, last.running) == (16, 16, ())
    assert last.share == pytest.approx(1)
    assert all(a.share <= b.share for a, b in pairwise(looks))


def test_what_is_complete_is_not_trained_again(made: Made, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "run_local", None)
    monkeypatch.setattr(workers, "train", None)
    work(GRID.cells(), corpus.folder, made[0], lambda: False)
    before = {path: path.stat().st_mtime_ns for path in made[0].rglob("*")}
    assert reproduce(GRID, corpus, made[0]).complete == 16
    assert before == {path: path.stat().st_mtime_ns for path in made[0].rglob("*")}


def test_a_run_that_was_cut_off_goes_on(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    cells = GRID.cells()[:1]
    asked = iter([False] * 7 + [True] * 9)
    with pytest.raises(KeyboardInterrupt):
        work(cells, corpus.folder, tmp_path, lambda: next(asked))
    folder = cells[0].folder(tmp_path, corpus)
    assert 0 < RunFolder(folder).step < 20
    assert not is_complete(folder)
    work(cells, corpus.folder, tmp_path, lambda: False)
    whole = cells[0].folder(made[0], corpus)
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_cell_that_another_process_trains_is_left_to_it(corpus: Corpus, tmp_path: Path) -> None:
    first, second = GRID.cells()[:2]
    folder = first.folder(tmp_path, corpus)
    holder = RunFolder(folder)
    holder.hold()
    work([first, second], corpus.folder, tmp_path, lambda: False)
    assert not (folder / "run.json").exists()
    assert is_complete(second.folder(tmp_path, corpus))
    holder.release()
    work([first, second], corpus.folder, tmp_path, lambda: False)
    assert is_complete(folder)


def test_the_time_limit_ends_all_workers_with_their_states(corpus: Corpus, tmp_path: Path) -> None:
    long = replace(GRID, widths=(8,), seeds=(0,), shapes=("1", "2"), base=replace(BASE, tokens=10**8))

    def limit() -> float:
        """Over as soon as both runs are under way."""
        started = [RunFolder(cell.folder(tmp_path, corpus)).step for cell in long.cells()]
        return time.monotonic() - 1 if min(started) else time.monotonic() + 60

    class Limit(float):
        def __lt__(self, now: float) -> bool:
            return limit() < now

    assert not run_local(long.cells(), corpus.folder, tmp_path, jobs=2, deadline=Limit())
    for cell in long.cells():
        assert (cell.folder(tmp_path, corpus) / "resume.pt").is_file()
        assert not is_complete(cell.folder(tmp_path, corpus))


def test_a_cell_that_fails_does_not_stop_the_others(corpus: Corpus, tmp_path: Path) -> None:
    wild_base = replace(BASE, optimizer=OptimizerConfig(lr=1e30, clip=1e30))
    wild = replace(GRID, widths=(8,), shapes=("1", "2"), base=wild_base)
    tame = GRID.cells()[:1]
    work([*wild.cells()[:1], *tame], corpus.folder, tmp_path, lambda: False)
    reason = failure(wild.cells()[0].folder(tmp_path, corpus))
    assert reason is not None
    assert "training has diverged" in reason
    assert is_complete(tame[0].folder(tmp_path, corpus))
    outcome = reproduce(replace(wild, seeds=(0,)), corpus, tmp_path, jobs=1)
    assert (outcome.complete, outcome.failed.keys()) == (0, {"d8-1-s0", "d8-2-s0"})


# What it will cost


def test_a_probe_measures_each_width(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    speeds = probe(GRID, (8, 16), corpus, jobs={8: 1, 16: 1})
    assert speeds.keys() == {8, 16}
    assert all(speed.first > 0 and speed.block >= 0 for speed in speeds.values())
    assert capsys.readouterr().err == "measuring how fast this machine trains (some seconds)\n"
    assert probe(GRID, (), corpus, jobs={}) == {}
    assert capsys.readouterr().err == ""


def test_time_grows_with_depth_and_counts_validation() -> None:
    speed = Speed(first=1e-3, block=5e-4)
    config = replace(BASE, model=replace(BASE.model, shape="2^4"), tokens=3200, evaluations=3, eval_tokens=300)
    # 3,200 tokens, twice 300 and twice 600 for validation at half the price, eight blocks.
    assert speed.seconds(config, 600) == pytest.approx((3200 + (2 * 300 + 2 * 600) * VALIDATION) * (1e-3 + 7 * 5e-4))


def test_time_counts_what_is_left() -> None:
    speed = Speed(first=1e-3, block=0)
    # 100 steps of 32 tokens, and the half of two validations before the last.
    config = replace(BASE, tokens=3200, evaluations=3, eval_tokens=300)
    assert speed.seconds(config, 600, done=50) == pytest.approx((50 * 32 + (300 + 2 * 600) * VALIDATION) * 1e-3)


def test_a_plan_goes_on_from_the_saved_states(corpus: Corpus, tmp_path: Path) -> None:
    begun, whole, untouched = GRID.cells()[:3]
    asked = iter([False] * 6 + [True] * 9)
    with pytest.raises(KeyboardInterrupt):
        work([begun], corpus.folder, tmp_path, lambda: next(asked))
    run = RunFolder(begun.folder(tmp_path, corpus))
    saved = steps_done(begun, run.path)
    state = run.load_state()
    assert state is not None
    assert 0 < saved == state["step"] < 20
    run.log(step=saved + 2, loss=1.0)  # Of steps that a kill has undone.
    train(whole.config, corpus, whole.folder(tmp_path, corpus))
    missing = {cell: steps_done(cell, cell.folder(tmp_path, corpus)) for cell in (begun, whole, untouched)}
    assert list(missing.values()) == [saved, 20, 0]
    speeds = {begun.dim: Speed(first=1.0, block=1.0)}
    rows = plan_rows([begun, whole, untouched], missing, speeds, corpus)
    left = clock(speeds[begun.dim].seconds(begun.config, len(corpus.valid), done=saved))
    assert rows[0][-1] == f"{left} from step {saved} of 20"
    assert re.fullmatch(r"\d:\d\d:\d\d", rows[2][-1])
    jobs = {begun.dim: 1}
    all_anew = plan_seconds(dict.fromkeys(missing, 0), speeds, corpus, jobs=jobs)
    assert plan_seconds(missing, speeds, corpus, jobs=jobs) < all_anew - saved * BASE.tokens_per_step
    (run.path / "resume.pt").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"resume\.pt is damaged .*; delete it to train this run from its start"):
        steps_done(begun, run.path)


@pytest.fixture
def fixed_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Speed(first=1e-3, block=1e-3)
    monkeypatch.setattr(estimate, "probe", lambda _, widths, *__, **___: dict.fromkeys(widths, speed))


def test_minutes_become_tokens(fixed_speed: None, corpus: Corpus, tmp_path: Path) -> None:
    jobs = {8: 2, 16: 2}
    grid = budget_of_minutes(GRID, corpus, tmp_path, minutes=30, jobs=jobs, keep=True)
    speeds = estimate.probe(GRID, GRID.widths, corpus, jobs=jobs)
    longer = replace(grid, base=replace(grid.base, tokens=grid.base.tokens + grid.base.tokens_per_step))
    assert plan_seconds(dict.fromkeys(grid.cells(), 0), speeds, corpus, jobs=jobs) <= 1800
    assert plan_seconds(dict.fromkeys(longer.cells(), 0), speeds, corpus, jobs=jobs) > 1800
    assert grid.base.tokens % grid.base.tokens_per_step == 0


def test_the_same_minutes_stay_the_same_tokens(
    fixed_speed: None, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {8: 2, 16: 2}
    first = budget_of_minutes(GRID, corpus, tmp_path, minutes=30, jobs=jobs, keep=True)
    monkeypatch.setattr(estimate, "probe", lambda _, widths, *__, **___: dict.fromkeys(widths, Speed(first=1, block=1)))
    with pytest.raises(InputError, match=r"20 minutes are too few for this grid: one step of each model .* give more"):
        budget_of_minutes(GRID, corpus, tmp_path, minutes=20, jobs=jobs, keep=True)
    other = budget_of_minutes(GRID, corpus, tmp_path, minutes=60_000, jobs=jobs, keep=True)
    assert other != first
    assert budget_of_minutes(GRID, corpus, tmp_path, minutes=30, jobs=jobs, keep=False) == first


def test_a_plan_fixes_no_budget(fixed_speed: None, corpus: Corpus, tmp_path: Path) -> None:
    budget_of_minutes(GRID, corpus, tmp_path, minutes=30, jobs={8: 2, 16: 2}, keep=False)
    assert not any(tmp_path.iterdir())


def test_a_grid_takes_as_long_as_its_longest_cell(corpus: Corpus) -> None:
    speeds = {8: Speed(first=1e-3, block=1e-3), 16: Speed(first=1e-3, block=1e-3)}
    each = [speeds[8].seconds(cell.config, len(corpus.valid)) for cell in GRID.cells() if cell.dim == 8]
    small = {cell: 0 for cell in GRID.cells() if cell.dim == 8}
    assert plan_seconds(small, speeds, corpus, jobs={8: 99}) == pytest.approx(max(each))
    assert plan_seconds(small, speeds, corpus, jobs={8: 2}) == pytest.approx(sum(each) / 2)


def test_a_folder_with_other_files_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("my own")
    with pytest.raises(InputError, match="holds other files and no grid; choose another --out"):
        reproduce(GRID, corpus, tmp_path)
    assert (tmp_path / "report.md").read_text() == "my own"


# The report


@pytest.fixture(scope="module")
def report(made: Made, corpus: Corpus) -> Path:
    write_report(GRID, corpus, made[0])
    return made[0]


def test_a_report_is_whole(report: Path) -> None:
    names = {path.name for path in report.iterdir()} - {"runs"}
    pictures = {"figure-4.png", "figure-4.pdf"}
    assert names == {"report.md", "report.html", "grid.json", *pictures}
    text = (report / "report.md").read_text()
    for dim in (8, 16):
        assert f"--widths {dim} --shapes '1,2,1^2,1^2:none' --seeds 0,1 --budget 640 --lr 0.01 --batch 2 " in text
    captions = [line for line in text.splitlines() if line.startswith("*") and line.endswith("*")]
    assert len(captions) == 7
    assert all("640 training tokens" in caption for caption in captions)


def test_the_page_needs_no_other_file(report: Path) -> None:
    page = (report / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,")
    assert page.count("<table>") == 6


def test_tables_hold_ours_beside_the_papers_and_nothing_that_was_not_run(report: Path, corpus: Corpus) -> None:
    results = GridResults(GRID, corpus, report)
    text = (report / "report.md").read_text()
    losses = results.losses()
    assert f"| 16 | {losses[16]['1']:.3f} |  | {losses[16]['2']:.3f} |  |  |  |  |  |" in text
    assert f"| 8 | {losses[8]['1^2']:.3f} |  |  |  |  |  |  |  |" in text
    assert "| 64 |  | *1.685* |  | *1.409* |  | *1.212* |  | *1.067* |" in text
    assert "| 1024 |  | *0.681* |  | *0.596* |  | *0.559* |  | *0.533* |" in text


def test_figures_show_what_was_run_and_nothing_else(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    assert shown({64: {"1": 2.0}, 128: {"1^8": 1.0, "4^2": 1.0}}) == {"figure-4": ("1", "1^8"), "figure-5": ("4^2",)}
    assert shown({64: {"1^8:none": 2.0, "(2)^4": 1.0}}) == {}
    results = GridResults(GRID, corpus, made[0])
    (tmp_path / "figure-5.pdf").write_bytes(b"of an earlier report")
    drawn: list[tuple[str, list[str]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.extend(map(_labels, figure.axes)))
        paths = draw_figures(results, tmp_path, caption="")
    assert set(tmp_path.iterdir()) == set(paths) == {tmp_path / "figure-4.png", tmp_path / "figure-4.pdf"}
    models = ["1", "1^2 (FraiLT)", "2"]
    assert drawn == [("the paper", models), ("here", models)] * 2, "as PNG and as PDF"


def _labels(axes: Axes) -> tuple[str, list[str]]:
    return axes.get_title(), [str(line.get_label()) for line in axes.get_lines()]


def test_the_reports_words(report: Path, corpus: Corpus) -> None:
    text = (report / "report.md").read_text()
    assert f"({640 / corpus.manifest.train.tokens:.2g} times the text)" in text
    assert "Figure 5" not in text
    verdicts = [line.split(" | ")[-1] for line in text.splitlines() if line.startswith(("| 4.1 |", "| 5 |"))]
    measured = [verdict for verdict in verdicts if "not measured" not in verdict]
    assert measured
    assert all(verdict.startswith("shows little: so few tokens; ") for verdict in measured)
    stored = json.loads((report / "grid.json").read_text())["claims"]
    assert [f"{claim['ours']} |" for claim in stored if claim["section"] != "abstract"] == verdicts


def test_means_and_gaps_are_over_seeds(report: Path, corpus: Corpus) -> None:
    results = GridResults(GRID, corpus, report)
    stored = json.loads((report / "grid.json").read_text())
    assert len(stored["runs"]) == 16
    for dim, row in results.losses().items():
        for name, loss in row.items():
            own = [r["loss"] for r in stored["runs"] if (r["dim"], r["model"]) == (dim, name)]
            assert len(own) == 2
            assert loss == pytest.approx(np.mean(own))
    for dim in results.widths:
        row, gap = results.losses()[dim], results.gap(dim, "1^2")
        assert gap is not None
        if row["2"] < 0.98 * row["1"]:
            assert gap.value == pytest.approx((row["1"] - row["1^2"]) / (row["1"] - row["2"]))
        else:
            assert gap == Gap(value=None, interval=None)
            assert f"\n| {dim} | - |" in (report / "report.md").read_text()
    assert results.gap(8, "2") is None


def test_runs_of_another_protocol_are_not_reported(made: Made, corpus: Corpus) -> None:
    other = replace(GRID, base=replace(BASE, tokens=672))
    with pytest.raises(InputError, match="holds no complete run of this protocol and data"):
        GridResults(other, corpus, made[0])
    wider = replace(GRID, widths=(32,), shapes=("8",), seeds=(5,))
    assert len(list(GridResults(wider, corpus, made[0]).all_runs())) == 16, "width, shape and seed are no protocol"


# The claims


def test_the_papers_own_numbers_bear_out_some_of_its_claims() -> None:
    verdicts = [claim.decide(LOSSES).held for claim in CLAIMS]
    assert verdicts == [True, True, False, True, True, False, None, True]


def test_a_verdict_on_little_training_says_so() -> None:
    claim = next(claim for claim in CLAIMS if claim.decide is beats_its_blocks)
    losses = {64: {"1": 2.0, "1^2": 1.0}}
    assert claim.said(losses, tokens=1_000_000) == "held: in the one cell"
    assert claim.said(losses, tokens=999_999) == "shows little: so few tokens; held: in the one cell"
    assert claim.said({}, tokens=1) == "not measured"
    assert claim.said({64: losses[64], 128: losses[64]}, tokens=10**9) == "held: in each of 2 cells"


def test_claims_without_their_cells_are_not_measured() -> None:
    assert all(claim.decide({}).held is None for claim in CLAIMS)
    assert catches_up((("1^2", "2"),), 1024)({64: {"1^2": 1.0, "2": 1.0}}).held is None
    assert CLAIMS[0].decide({64: {"1^2": 2.0, "4^2": 1.5}, 128: {"1^2": 1.0}}).held is None, "4^2 at one width only"


@pytest.mark.parametrize(("own", "held"), [(1.019, True), (1.021, False), (0.9, True)])
def test_to_catch_up_is_to_come_within_two_per_cent(own: float, held: bool) -> None:
    assert catches_up((("1^2", "2"),), 64)({64: {"1^2": own, "2": 1.0}}).held is held
    assert equals_its_depth({64: {"1^2": own, "2": 1.0}}).held is held


def test_larger_models_are_those_with_more_parameters() -> None:
    assert outperforms_larger({64: {"4^2": 1.0, "2": 1.1}}).held is False, "2 is smaller than 4^2"
    assert outperforms_larger({64: {"1^2": 1.0, "2": 1.1}}) == Verdict(
        held=True,
        evidence="1 of 1 FraiLT model; 1^2 at 64 is better than 2 at 64 with 1.6 times its parameters",
    )


def test_one_model_that_gains_nothing_more_denies_the_gain() -> None:
    assert still_gains({64: {"1^2": 2.0}, 128: {"1^2": 1.5}}).held is True
    assert still_gains({64: {"1^2": 2.0, "1^8": 1.0}, 128: {"1^2": 1.5, "1^8": 1.1}}).held is False


def test_markdown_of_one_seed_has_no_chapter_on_chance(made: Made, corpus: Corpus) -> None:
    results = GridResults(GRID, corpus, made[0])
    for runs in results.cells.values():
        runs.pop(1)
    assert "How much chance" not in markdown(results)
