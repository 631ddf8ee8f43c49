"""The paper's grid: its cells, workers side by side, budgets, and the report from start to end."""

import errno
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpora import make_chain, make_corpus
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from frailt.console import clock
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.files import hold
from frailt.model.config import ModelConfig
from frailt.model.frailt import FraiLT
from frailt.paper.claims import (
    CLAIMS,
    Losses,
    beats_its_blocks,
    catches_up,
    equals_its_depth,
    falls_with_width,
    outperforms_larger,
    still_gains,
)
from frailt.paper.grid import SHAPES, WIDTHS, GridConfig
from frailt.paper.grid_figures import draw_figures, shown
from frailt.paper.grid_report import markdown, write_report
from frailt.paper.grid_results import GridResults
from frailt.paper.published import LOSSES
from frailt.paper.verdicts import Verdict
from frailt.reports import escape
from frailt.studies import estimate, workers
from frailt.studies import sweep as sweeping
from frailt.studies.cells import cell_folder, label, labels, steps_done, training_flops
from frailt.studies.estimate import Speed, plan_rows, plan_seconds, probe, steps_in_minutes
from frailt.studies.sweep import SweepProgress, sweep
from frailt.studies.workers import clear_failures, failure, run_local, work
from frailt.training.config import OptimizerConfig, TrainConfig
from frailt.training.loop import VALIDATION
from frailt.training.metrics import Metrics
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import train

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


Made = tuple[Path, list[SweepProgress]]


@pytest.fixture(scope="module")
def made(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A whole grid, and what was reported while two workers side by side trained its half: each costs a start."""
    out, looks = tmp_path_factory.mktemp("grid"), list[SweepProgress]()
    work([cell for cell in GRID.cells() if cell.model.dim == 16], corpus.folder, out, lambda: False)
    outcome = sweep(GRID.cells(), corpus, out, jobs=2, report=looks.append)
    assert (outcome.complete, outcome.runs, outcome.failed) == (16, 16, {})
    return out, looks


# What the grid is


def test_the_grid_is_the_papers() -> None:
    grid = GridConfig()
    assert WIDTHS == (64, 128, 256, 512, 1024)
    assert set(SHAPES) == {"1", "2", "4", "8", "1^2", "1^8", "2^4", "4^2"}
    cells = grid.cells()
    assert len(cells) == 40
    models = [cell.model for cell in cells]
    assert {(model.heads, model.vocab_size, model.context) for model in models} == {(8, 512, 512)}
    assert {(c.model.dim, c.model.shape) for c in cells} == {(dim, shape) for dim in WIDTHS for shape in SHAPES}


def test_cells_differ_in_width_shape_encoding_and_seed_alone() -> None:
    for cell in GRID.cells():
        model = replace(cell.model, dim=64, shape="1^8", encoding="learned")
        assert replace(cell, model=model, seed=0) == BASE


def test_the_costliest_come_first_and_first_seeds_before_second_ones() -> None:
    own = [cell for cell in GRID.cells() if cell.model.dim == 16]
    assert [cell.seed for cell in own] == [0] * 4 + [1] * 4
    assert [training_flops(cell) for cell in own[:4]] == sorted(
        (training_flops(cell) for cell in own[:4]), reverse=True
    )


def test_another_config_seed_or_text_is_another_run(corpus: Corpus, tmp_path: Path) -> None:
    changes = [
        GRID,
        replace(GRID, base=replace(BASE, tokens=672)),
        replace(GRID, base=replace(BASE, optimizer=OptimizerConfig(lr=2e-2))),
        replace(GRID, base=replace(BASE, precision="bfloat16")),
    ]
    folders = {cell_folder(cell, corpus, tmp_path) for grid in changes for cell in grid.cells()}
    assert len(folders) == len(changes) * len(GRID.cells())
    other = make_chain(tmp_path / "chain")
    assert not folders & {cell_folder(cell, other, tmp_path) for cell in GRID.cells()}
    often = replace(GRID, base=replace(BASE, checkpoint_seconds=1.0))
    assert cell_folder(often.cells()[0], corpus, tmp_path) in folders, "how often to save changes nothing"


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


def test_widths_may_have_budgets_of_their_own(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    grid = replace(GRID, budgets={8: 640, 16: 320})
    assert {(cell.model.dim, cell.tokens) for cell in grid.cells()} == {(8, 640), (16, 320)}
    out = tmp_path / "grid"
    shutil.copytree(made[0] / "cells", out / "cells")
    work([cell for cell in grid.cells() if cell.model.dim == 16], corpus.folder, out, lambda: False)
    results = GridResults.of(grid, corpus, out)
    assert {(run.dim, run.curve[-1][0]) for run in results.runs} == {(8, 640.0), (16, 320.0)}, "not 640 at width 16"
    text = markdown(results)
    assert "Each model of width 8: 640 training tokens (0.0" in text
    assert "; of width 16: 320 training tokens (" in text
    assert "--budget 8:640,16:320 " in text
    assert results.tokens == 320


# Workers


def test_every_cell_is_trained_once_and_as_by_itself(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    out, _ = made
    assert len(list((out / "runs").iterdir())) == len(GRID.cells()) == 16
    for cell in GRID.cells():
        metrics = RunFolder(cell_folder(cell, corpus, out)).metrics()
        assert [line.step for line in metrics] == [10, 10, 20, 20]
    cell = GRID.cells()[2]
    alone = train(cell, corpus, tmp_path / "alone")
    assert np.load(cell_folder(cell, corpus, out) / "story_nats.npy").sum() == pytest.approx(alone.loss.nats, rel=1e-6)


def test_a_grid_lives_on_in_its_records(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    """A fresh clone has them alone: it trains no recorded cell again, and reports them all."""
    out = tmp_path / "grid"
    shutil.copytree(made[0] / "cells", out / "cells")
    results = GridResults.of(GRID, corpus, made[0])
    more = replace(GRID, shapes=(*GRID.shapes, "4"), widths=(8,), seeds=(0,))
    work(more.cells(), corpus.folder, out, lambda: False)
    assert [path.name[:6] for path in (out / "runs").iterdir()] == ["d8-4-s"]
    again = GridResults.of(GRID, corpus, out)
    assert [run for run in again.runs if run.model != "4"] == list(results.runs)
    assert again.gaps == results.gaps
    assert all(file.stat().st_size < 20_000 for file in out.glob("cells/*"))


def test_a_damaged_record_is_left_out_and_named(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    shutil.copytree(made[0] / "cells", out / "cells")
    first, *_ = sorted((out / "cells").iterdir())
    first.write_text('{"config": ')
    results = GridResults.of(GRID, corpus, out)
    assert len(results.runs) == 15
    assert list(results.left_out) == [first.stem]


def test_records_of_other_data_are_none_of_the_grids(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    shutil.copytree(made[0] / "cells", out / "cells")
    with pytest.raises(InputError, match="holds no complete run of this protocol and data"):
        GridResults.of(GRID, make_chain(tmp_path / "chain"), out)


def test_runs_that_differ_in_their_training_alone_have_names_of_their_own() -> None:
    """In plans and progress; a run's folder has a hash besides."""
    cells = replace(GRID, widths=(8,), seeds=(0,), shapes=("1", "1^2", "1^2:passes=random", "1^2:lr=0.5")).cells()
    assert sorted(labels(cells).values()) == [
        "d8-1-s0 lr=0.01 passes=fixed",
        "d8-1x2-s0 lr=0.01 passes=fixed",
        "d8-1x2-s0 lr=0.01 passes=random",
        "d8-1x2-s0 lr=0.5 passes=fixed",
    ]
    assert list(labels(GRID.cells()).values()) == [label(cell) for cell in GRID.cells()]


def test_progress_ends_at_the_whole(made: Made) -> None:
    _, looks = made
    last = looks[-1]
    assert (last.complete, last.runs, last.running) == (16, 16, ())
    assert last.share == pytest.approx(1)
    assert all(a.share <= b.share for a, b in pairwise(looks))


def test_what_is_complete_is_not_trained_again(made: Made, corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "run_local", None)
    monkeypatch.setattr(workers, "train", None)
    work(GRID.cells(), corpus.folder, made[0], lambda: False)
    before = {path: path.stat().st_mtime_ns for path in made[0].rglob("*")}
    assert sweep(GRID.cells(), corpus, made[0]).complete == 16
    assert before == {path: path.stat().st_mtime_ns for path in made[0].rglob("*")}


def test_a_run_that_was_cut_off_goes_on(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    cells = GRID.cells()[:1]
    asked = iter([False] * 7 + [True] * 9)
    with pytest.raises(KeyboardInterrupt):
        work(cells, corpus.folder, tmp_path, lambda: next(asked))
    folder = cell_folder(cells[0], corpus, tmp_path)
    assert 0 < RunFolder(folder).saved < 20
    assert not RunFolder(folder).is_complete
    work(cells, corpus.folder, tmp_path, lambda: False)
    whole = cell_folder(cells[0], corpus, made[0])
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_cell_that_another_process_trains_is_left_to_it(corpus: Corpus, tmp_path: Path) -> None:
    first, second = GRID.cells()[:2]
    folder = cell_folder(first, corpus, tmp_path)
    lock = hold(folder / ".lock", "busy")
    work([first, second], corpus.folder, tmp_path, lambda: False)
    assert not (folder / "run.json").exists()
    assert RunFolder(cell_folder(second, corpus, tmp_path)).is_complete
    lock.release()
    work([first, second], corpus.folder, tmp_path, lambda: False)
    assert RunFolder(folder).is_complete


def test_the_time_limit_ends_all_workers_with_their_states(corpus: Corpus, tmp_path: Path) -> None:
    long = replace(GRID, widths=(8,), seeds=(0,), shapes=("1", "2"), base=replace(BASE, tokens=10**8))

    def limit() -> float:
        """Over as soon as both runs are under way."""
        started = [RunFolder(cell_folder(cell, corpus, tmp_path)).step for cell in long.cells()]
        return time.monotonic() - 1 if min(started) else time.monotonic() + 60

    class Limit(float):
        def __lt__(self, now: float) -> bool:
            return limit() < now

    assert not run_local(long.cells(), corpus.folder, tmp_path, jobs=2, deadline=Limit())
    for cell in long.cells():
        assert (cell_folder(cell, corpus, tmp_path) / "resume.pt").is_file()
        assert not RunFolder(cell_folder(cell, corpus, tmp_path)).is_complete


def test_a_cell_that_fails_does_not_stop_the_others(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild_base = replace(BASE, optimizer=OptimizerConfig(lr=1e30, clip=1e30))
    wild = replace(GRID, widths=(8,), shapes=("1", "2"), base=wild_base)
    tame = GRID.cells()[:1]
    work([*wild.cells()[:1], *tame], corpus.folder, tmp_path, lambda: False)
    reason = failure(cell_folder(wild.cells()[0], corpus, tmp_path))
    assert reason is not None
    assert "training has diverged" in reason
    assert RunFolder(cell_folder(tame[0], corpus, tmp_path)).is_complete

    def here(configs: Sequence[TrainConfig], data: Path, out: Path, **_: Any) -> None:
        work(configs, data, out, lambda: False)

    monkeypatch.setattr(sweeping, "run_local", here)  # In this process.
    outcome = sweep(replace(wild, seeds=(0,)).cells(), corpus, tmp_path)
    names = {cell_folder(cell, corpus, tmp_path).name for cell in replace(wild, seeds=(0,)).cells()}
    assert {name.rpartition("-")[0] for name in names} == {"d8-1-s0", "d8-2-s0"}
    assert (outcome.complete, outcome.failed.keys()) == (0, names)


def test_a_full_disk_that_fails_a_run_and_its_record_does_not_stop_the_others(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = GRID.cells()[:2]

    def full(config: TrainConfig, *args: Any, **options: Any) -> None:
        if config == first:
            raise OSError(errno.ENOSPC, "No space left on device")
        train(config, *args, **options)

    def unwritten(path: Path, value: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers, "train", full)
    monkeypatch.setattr(workers, "write_json", unwritten)
    work([first, second], corpus.folder, tmp_path, lambda: False)
    assert "No space left on device" in capsys.readouterr().err
    assert RunFolder(cell_folder(second, corpus, tmp_path)).is_complete


def test_what_nobody_foresaw_leaves_its_traceback(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = GRID.cells()[:2]
    folder = cell_folder(first, corpus, tmp_path)

    def broken(config: TrainConfig, *args: Any, **options: Any) -> None:
        if config == first:
            raise TypeError("a fault of ours\nin two lines")
        train(config, *args, **options)

    monkeypatch.setattr(workers, "train", broken)
    work([first, second], corpus.folder, tmp_path, lambda: False)
    path = folder.with_name(f"{folder.name}.failed.txt")
    assert failure(folder) == f"TypeError: a fault of ours; traceback in {path}"
    assert 'raise TypeError("a fault of ours' in path.read_text()
    assert RunFolder(cell_folder(second, corpus, tmp_path)).is_complete
    monkeypatch.setattr(workers, "train", train)
    work([first], corpus.folder, tmp_path, lambda: False)
    assert failure(folder) is not None, "each worker tries once"
    clear_failures([first], corpus, tmp_path)
    work([first], corpus.folder, tmp_path, lambda: False)
    assert (failure(folder), RunFolder(folder).is_complete) == (None, True)


def test_memory_that_does_not_suffice_is_a_reason(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(FraiLT, "forward", full)
    work(GRID.cells()[:1], corpus.folder, tmp_path, lambda: False)
    folder = cell_folder(GRID.cells()[0], corpus, tmp_path)
    assert str(failure(folder)).startswith("out of memory on cpu with batch 2: lower --batch")
    assert not folder.with_name(f"{folder.name}.failed.txt").exists()


def test_a_run_whose_gpu_is_lost_ends_its_worker(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed assertion on a GPU all later runs of the process would fail with it."""

    def lost(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(workers, "train", lost)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    cells = [replace(cell, device="cpu") for cell in GRID.cells()[:2]]
    with pytest.raises(SystemExit) as ended:
        work(cells, corpus.folder, tmp_path, lambda: False)
    assert ended.value.code == workers.DEVICE_LOST
    first, second = (failure(cell_folder(cell, corpus, tmp_path)) for cell in cells)
    assert str(first).startswith("RuntimeError: CUDA error: device-side assert triggered; traceback in ")
    assert second is None


def test_a_folder_that_an_earlier_version_named_is_found(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(made[0], tmp_path / "grid")
    cell = GRID.cells()[0]
    folder = cell_folder(cell, corpus, out)
    old = folder.rename(folder.with_name(f"{label(cell)}-01234567"))
    damaged = folder.with_name(f"{label(cell)}-00000000")
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    assert cell_folder(cell, corpus, out) == old
    assert cell_folder(replace(cell, checkpoint_seconds=1.0), corpus, out) == old
    assert cell_folder(replace(cell, tokens=9999), corpus, out) != old
    assert cell_folder(cell, make_chain(tmp_path / "chain"), out) != old


def test_a_new_setting_changes_no_name(corpus: Corpus, tmp_path: Path) -> None:
    """Names hash the settings that differ from their defaults, of which a later version may have more."""
    cell = replace(GridConfig(widths=(128,)).cells()[0], seed=3)
    settings = {"model": {"shape": "8", "dim": 128}, "seed": 3}
    content = json.dumps([settings, corpus.digest], sort_keys=True)
    name = f"d128-8-s3-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    assert cell_folder(cell, corpus, tmp_path) == tmp_path / "runs" / name


# What it will cost


def test_a_probe_measures_each_width(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    looped = replace(BASE, model=replace(BASE.model, shape="1^2"), passes="random")
    speeds = probe(looped, (8, 16), corpus, jobs={8: 1, 16: 1})
    assert speeds.keys() == {8, 16}
    assert all(speed.first > 0 and speed.block >= 0 for speed in speeds.values())
    assert capsys.readouterr().err == "measuring how fast this machine trains (some seconds)\n"
    assert probe(BASE, (), corpus, jobs={}) == {}
    assert capsys.readouterr().err == ""


def test_time_grows_with_depth_and_counts_validation() -> None:
    speed = Speed(first=1e-3, block=5e-4)
    config = replace(BASE, model=replace(BASE.model, shape="2^4"), tokens=3200, evaluations=3, eval_tokens=300)
    # 3,200 tokens, twice 300 and once 600 for validation at half the price, eight blocks.
    assert speed.seconds(config, 600) == pytest.approx((3200 + (2 * 300 + 600) * VALIDATION) * (1e-3 + 7 * 5e-4))


def test_time_counts_what_is_left() -> None:
    speed = Speed(first=1e-3, block=0)
    # 100 steps of 32 tokens, and the half of two validations before the last.
    config = replace(BASE, tokens=3200, evaluations=3, eval_tokens=300)
    assert speed.seconds(config, 600, done=50) == pytest.approx((50 * 32 + (300 + 600) * VALIDATION) * 1e-3)


def test_a_plan_goes_on_from_the_saved_states(corpus: Corpus, tmp_path: Path) -> None:
    begun, whole, untouched = GRID.cells()[:3]
    asked = iter([False] * 6 + [True] * 9)
    with pytest.raises(KeyboardInterrupt):
        work([begun], corpus.folder, tmp_path, lambda: next(asked))
    run = RunFolder(cell_folder(begun, corpus, tmp_path))
    saved = steps_done(begun, run.path)
    assert 0 < saved == torch.load(run.path / "resume.pt", weights_only=True)["step"] < 20
    run.log(Metrics(step=saved + 2, tokens=0, loss=1.0, lr=1.0, tokens_per_second=1.0))  # A kill has undone these.
    train(whole, corpus, cell_folder(whole, corpus, tmp_path))
    missing = {cell: steps_done(cell, cell_folder(cell, corpus, tmp_path)) for cell in (begun, whole, untouched)}
    assert list(missing.values()) == [saved, 20, 0]
    speeds = {begun.model.dim: Speed(first=1.0, block=1.0)}
    rows = plan_rows([begun, whole, untouched], missing, speeds, corpus)
    left = clock(speeds[begun.model.dim].seconds(begun, len(corpus.valid), done=saved))
    assert rows[0][-1] == f"{left} from step {saved} of 20"
    assert re.fullmatch(r"\d:\d\d:\d\d", rows[2][-1])
    jobs = {begun.model.dim: 1}
    all_anew = plan_seconds(dict.fromkeys(missing, 0), speeds, corpus, jobs=jobs)
    assert plan_seconds(missing, speeds, corpus, jobs=jobs) < all_anew - saved * BASE.tokens_per_step
    (run.path / "resume.pt").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"resume\.pt is damaged .*; delete it to train this run from its start"):
        steps_done(begun, run.path)


@pytest.fixture
def fixed_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = Speed(first=1e-3, block=1e-3)
    monkeypatch.setattr(estimate, "probe", lambda _, widths, *__, **___: dict.fromkeys(widths, speed))


JOBS = {8: 2, 16: 2}


def in_minutes(corpus: Corpus, out: Path, minutes: float, *, grid: GridConfig = GRID, keep: bool = True) -> int:
    return steps_in_minutes(
        lambda steps: grid.with_steps(steps).cells(), corpus, out, minutes=minutes, jobs=JOBS, keep=keep
    )


def test_minutes_become_steps(fixed_speed: None, corpus: Corpus, tmp_path: Path) -> None:
    steps = in_minutes(corpus, tmp_path, 30)
    speeds = estimate.probe(BASE, GRID.widths, corpus, jobs=JOBS)
    for count, within in ((steps, True), (steps + 1, False)):
        cells = GRID.with_steps(count).cells()
        assert {cell.steps for cell in cells} == {count}
        assert (plan_seconds(dict.fromkeys(cells, 0), speeds, corpus, jobs=JOBS) <= 1800) is within


def test_the_same_minutes_stay_the_same_steps(
    fixed_speed: None, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_minutes(corpus, tmp_path, 30)
    monkeypatch.setattr(estimate, "probe", lambda _, widths, *__, **___: dict.fromkeys(widths, Speed(first=1, block=1)))
    with pytest.raises(InputError, match=r"20 minutes are too few for this grid: one step of each model .* give more"):
        in_minutes(corpus, tmp_path, 20)
    assert in_minutes(corpus, tmp_path, 60_000) != first
    assert in_minutes(corpus, tmp_path, 30, keep=False) == first


def test_a_budget_of_an_earlier_version_is_found_by_its_runs(fixed_speed: None, corpus: Corpus, tmp_path: Path) -> None:
    grid = replace(GRID, widths=(8,), shapes=("1",), seeds=(0,))
    entry = {"minutes": 30, "models": ["d8-1-s0"], "steps": 7}
    (tmp_path / "budgets.json").write_text(json.dumps({"of an earlier version": entry}))
    assert in_minutes(corpus, tmp_path, 30, grid=grid, keep=False) != 7, "nothing was trained with it"
    cell_folder(grid.with_steps(7).cells()[0], corpus, tmp_path).mkdir(parents=True)
    assert in_minutes(corpus, tmp_path, 30, grid=grid) == 7
    assert in_minutes(corpus, tmp_path, 40, grid=grid, keep=False) != 7


@pytest.mark.parametrize(
    "content",
    ["[" * 10**5, "[]", "{", '{"x": 3}', '{"x": {"minutes": 30, "models": [], "steps": ' + "9" * 5000 + "}}"]
    + [f'{{"x": {{"minutes": 30, "models": ["a"], "steps": {steps}}}}}' for steps in ("0", "-3", '"4"', "NaN")],
)
def test_damaged_budgets_are_named(fixed_speed: None, corpus: Corpus, tmp_path: Path, content: str) -> None:
    (tmp_path / "budgets.json").write_text(content)
    with pytest.raises(InputError, match=r"budgets\.json") as caught:
        in_minutes(corpus, tmp_path, 30)
    assert len(str(caught.value)) < 400


def test_a_plan_fixes_no_budget(fixed_speed: None, corpus: Corpus, tmp_path: Path) -> None:
    in_minutes(corpus, tmp_path, 30, keep=False)
    assert not any(tmp_path.iterdir())


def test_a_grid_takes_as_long_as_its_longest_cell(corpus: Corpus) -> None:
    speeds = {8: Speed(first=1e-3, block=1e-3), 16: Speed(first=1e-3, block=1e-3)}
    each = [speeds[8].seconds(cell, len(corpus.valid)) for cell in GRID.cells() if cell.model.dim == 8]
    small = {cell: 0 for cell in GRID.cells() if cell.model.dim == 8}
    assert plan_seconds(small, speeds, corpus, jobs={8: 99}) == pytest.approx(max(each))
    assert plan_seconds(small, speeds, corpus, jobs={8: 2}) == pytest.approx(sum(each) / 2)


def test_a_folder_with_other_files_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("my own")
    with pytest.raises(InputError, match="holds other files and no study; choose another --out"):
        sweep(GRID.cells(), corpus, tmp_path)
    assert (tmp_path / "report.md").read_text() == "my own"


# The report


@pytest.fixture(scope="module")
def report(made: Made, corpus: Corpus) -> Path:
    write_report(GRID, corpus, made[0])
    return made[0]


def test_a_report_is_whole(report: Path) -> None:
    names = {path.name for path in report.iterdir()} - {"runs", "cells"}
    pictures = {"figure-4.png", "figure-4.pdf"}
    assert names == {"report.md", "report.html", "grid.json", *pictures}
    text = (report / "report.md").read_text()
    for dim in (8, 16):
        settings = "--seeds 0,1 --budget 640 --optimizer adamw --lr 0.01 --batch 2 "
        assert f"--widths {dim} --shapes '1,2,1^2,1^2:none' {settings}" in text
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
    results = GridResults.of(GRID, corpus, report)
    text = (report / "report.md").read_text()
    losses = results.losses.table
    assert f"| 16 | {losses[16]['1']:.3f} |  | {losses[16]['2']:.3f} |  |  |  |  |  |" in text
    assert f"| 8 | {losses[8]['1^2']:.3f} |  |  |  |  |  |  |  |" in text
    assert "| 64 |  | *1.685* |  | *1.409* |  | *1.212* |  | *1.067* |" in text
    assert "| 1024 |  | *0.681* |  | *0.596* |  | *0.559* |  | *0.533* |" in text


def test_figures_show_what_was_run_and_nothing_else(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    assert shown({64: {"1": 2.0}, 128: {"1^8": 1.0, "4^2": 1.0}}) == {"figure-4": ("1", "1^8"), "figure-5": ("4^2",)}
    assert shown({64: {"1^8:none": 2.0, "(2)^4": 1.0}}) == {}
    results = GridResults.of(GRID, corpus, made[0])
    (tmp_path / "figure-5.pdf").write_bytes(b"of an earlier report")
    drawn: list[tuple[str, list[str], list[float]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.extend(map(_labels, figure.axes)))
        paths = draw_figures(results.losses.table, tmp_path, caption="")
    assert set(tmp_path.iterdir()) == set(paths) == {tmp_path / "figure-4.png", tmp_path / "figure-4.pdf"}
    models = ["1", "1^2 (FraiLT)", "2"]
    panels = [("the paper", models, [*LOSSES]), ("here", models, [8, 16])]
    assert drawn == panels * 2, "as PNG and as PDF"


def _labels(axes: Axes) -> tuple[str, list[str], list[float]]:
    low, high = axes.get_xlim()
    widths = [tick for tick in axes.get_xticks() if low <= tick <= high]
    return axes.get_title(), [str(line.get_label()) for line in axes.get_lines()], widths


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
    results = GridResults.of(GRID, corpus, report)
    stored = json.loads((report / "grid.json").read_text())
    assert len(stored["runs"]) == 16
    for dim, row in results.losses.table.items():
        for name, loss in row.items():
            own = [r["loss"] for r in stored["runs"] if (r["dim"], r["model"]) == (dim, name)]
            assert len(own) == 2
            assert loss == pytest.approx(np.mean(own))
    text = (report / "report.md").read_text()
    for dim in results.widths:
        row, gap = results.losses.table[dim], results.gap[dim, "1^2"]
        assert gap.seeds == (0, 1)
        if row["2"] < row["1"]:
            assert gap.value == pytest.approx((row["1"] - row["1^2"]) / (row["1"] - row["2"]))
        assert f"\n| {dim} | {escape(str(gap))} | " in text
    assert (8, "2") not in results.gap
    ranges = [max(run.loss for run in runs) - min(run.loss for run in runs) for runs in results.cells.values()]
    assert results.spread == pytest.approx(max(ranges))


def test_runs_of_another_protocol_are_not_reported(made: Made, corpus: Corpus) -> None:
    other = replace(GRID, base=replace(BASE, tokens=672))
    with pytest.raises(InputError, match="holds no complete run of this protocol and data"):
        GridResults.of(other, corpus, made[0])
    wider = replace(GRID, widths=(32,), shapes=("8",), seeds=(5,))
    assert len(list(GridResults.of(wider, corpus, made[0]).runs)) == 16, "width, shape and seed are no protocol"


def test_a_variant_that_was_not_asked_for_may_differ_in_its_passes_alone() -> None:
    asked = replace(GRID, shapes=("1", "2"))
    run = replace(asked.cells()[0], model=replace(asked.cells()[0].model, shape="1^2"))
    assert str(asked.variant(run)) == "1^2"
    assert str(asked.variant(replace(run, passes="random"))) == "1^2:passes=random"
    assert asked.variant(replace(run, optimizer=replace(run.optimizer, lr=0.5))) is None


def test_a_complete_run_of_an_earlier_version_is_measured_or_named(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    copy = tmp_path / "grid"
    shutil.copytree(made[0] / "runs", copy / "runs")
    nats = sorted(copy.glob("runs/*/story_nats.npy"))
    nats[0].unlink()
    results = GridResults.of(GRID, corpus, copy)
    [(name, reason)] = results.left_out.items()
    assert (name, "lacks the losses of its stories" in reason) == (nats[0].parent.name, True)
    for path in nats[1:]:
        path.unlink()
    with pytest.raises(InputError, match=r"holds no complete run .*lacks the losses of its stories"):
        GridResults.of(GRID, corpus, copy)


# The claims


def outcome(claim: Callable[[Losses], Verdict], table: dict[int, dict[str, float]], chance: float = 0.0) -> str:
    return claim(Losses(table, chance)).outcome


def test_the_papers_own_numbers_bear_out_some_of_its_claims() -> None:
    held, not_held = "held", "did not hold"
    assert [claim.decide(Losses(LOSSES)).outcome for claim in CLAIMS] == [
        *(held, held, not_held, held, held, not_held, "not measured", held)
    ]


def test_claims_without_their_cells_are_not_measured() -> None:
    assert {claim.decide(Losses({})).outcome for claim in CLAIMS} == {"not measured"}
    assert outcome(catches_up((("1^2", "2"),), 1024), {64: {"1^2": 1.0, "2": 1.0}}) == "not measured"
    one_width = {64: {"1^2": 2.0, "4^2": 1.5}, 128: {"1^2": 1.0}}
    assert outcome(CLAIMS[0].decide, one_width) == "not measured", "4^2 at one width only"


@pytest.mark.parametrize(("own", "held"), [(1.019, "held"), (1.021, "did not hold"), (0.9, "held")])
def test_to_catch_up_is_to_come_within_two_per_cent(own: float, held: str) -> None:
    assert outcome(catches_up((("1^2", "2"),), 64), {64: {"1^2": own, "2": 1.0}}) == held
    assert outcome(equals_its_depth, {64: {"1^2": own, "2": 1.0}}) == held


def test_larger_models_are_those_with_more_parameters() -> None:
    assert outcome(outperforms_larger, {64: {"4^2": 1.0, "2": 1.1}}) == "did not hold", "2 is smaller than 4^2"
    assert outperforms_larger(Losses({64: {"1^2": 1.0, "2": 1.1}})) == Verdict(
        outcome="held",
        detail="1 of 1 FraiLT model; 1^2 at 64 is better than 2 at 64 with 1.6 times its parameters",
    )


def test_one_model_that_gains_nothing_more_denies_the_gain() -> None:
    assert outcome(still_gains, {64: {"1^2": 2.0}, 128: {"1^2": 1.5}}) == "held"
    both = {64: {"1^2": 2.0, "1^8": 1.0}, 128: {"1^2": 1.5, "1^8": 1.1}}
    assert outcome(still_gains, both) == "did not hold"


def test_a_difference_no_larger_than_the_spread_of_seeds_decides_nothing() -> None:
    def two(own: float, other: float) -> dict[int, dict[str, float]]:
        return {64: {"1^2": own, "1": other, "2": other}, 128: {"1^2": own - 0.5, "1": other, "2": other}}

    for claim in (beats_its_blocks, outperforms_larger):
        assert outcome(claim, two(1.0, 1.2), 0.1) == "held"
        assert outcome(claim, {64: two(1.0, 1.05)[64]}, 0.1) == "within chance"
        assert outcome(claim, {64: two(1.05, 1.0)[64]}, 0.1) == "within chance"
        assert outcome(claim, {64: two(1.2, 1.0)[64]}, 0.1) == "did not hold"
    for chance, verdict in ((0.1, "held"), (0.5, "within chance")):
        assert outcome(falls_with_width(("1^2",)), two(1.0, 1.2), chance) == verdict
        assert outcome(still_gains, two(1.0, 1.2), chance) == verdict
    for own, verdict in ((0.9, "held"), (1.0, "within chance"), (1.05, "within chance"), (1.2, "did not hold")):
        assert outcome(equals_its_depth, {64: {"1^2": own, "2": 1.0}}, 0.1) == verdict
        assert outcome(catches_up((("1^2", "2"),), 64), {64: {"1^2": own, "2": 1.0}}, 0.1) == verdict


def test_a_table_is_read_without_torch() -> None:
    code = "import sys, frailt.paper.claims, frailt.paper.published; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_markdown_of_one_seed_has_no_chapter_on_chance(made: Made, corpus: Corpus) -> None:
    results = GridResults.of(GRID, corpus, made[0])
    single = replace(results, runs=tuple(run for run in results.runs if run.seed == 0), spread=None)
    assert "How much chance" in markdown(results)
    assert "How much chance" not in markdown(single)
    assert "One seed was run, so chance is not weighed." in markdown(single)


def test_results_can_be_read_again(report: Path, corpus: Corpus) -> None:
    assert GridResults.read(report / "grid.json") == GridResults.of(GRID, corpus, report)
    assert markdown(GridResults.read(report / "grid.json")) == (report / "report.md").read_text()


def test_a_damaged_or_foreign_run_costs_no_report(made: Made, corpus: Corpus, tmp_path: Path) -> None:
    out = shutil.copytree(made[0], tmp_path / "grid")
    shutil.rmtree(out / "cells")
    cells = GRID.cells()
    (cell_folder(cells[0], corpus, out) / "run.json").write_text("[" * 10**5)
    (cell_folder(cells[1], corpus, out) / "story_nats.npy").write_bytes(b"none")
    heads = replace(BASE, model=replace(BASE.model, dim=20, heads=10))
    record = json.loads((cell_folder(cells[2], corpus, out) / "run.json").read_text())
    foreign = out / "runs" / "of another protocol"
    foreign.mkdir()
    (foreign / "run.json").write_text(json.dumps({**record, "config": asdict(heads)}))
    results = GridResults.of(GRID, corpus, out)
    assert len(results.runs) == 14
    assert results.left_out.keys() == {cell_folder(cell, corpus, made[0]).name for cell in cells[:2]}
    assert all(f"Left out: {name} (" in markdown(results) for name in results.left_out)
