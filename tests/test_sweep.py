"""Runs that differ in chosen settings: every combination, and what is reported of them."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from corpora import make_chain
from matplotlib.axes import Axes

from frailt.cli import main
from frailt.configs import from_json
from frailt.data.corpus import Corpus
from frailt.model.config import ModelConfig
from frailt.model.variant import Variant
from frailt.studies.cells import settings_of, with_settings
from frailt.studies.compare import compare
from frailt.studies.comparison import CompareConfig
from frailt.studies.vary import SweepResult, combinations, draw_sweep, markdown, write_sweep
from frailt.studies.workers import work
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder

BASE = TrainConfig(
    model=ModelConfig(shape="1^2", dim=16, heads=2, vocab_size=300, context=16), tokens=64, batch=2, evaluations=1
)
AXES: dict[str, list[Any]] = {"lr": [1e-3, 1e-2], "shape": ["1", "1^2"], "seed": [0, 1]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Path]:
    """A sweep, trained in this process."""
    home = tmp_path_factory.mktemp("sweep")
    corpus = make_chain(home / "data")
    work(combinations(BASE, AXES), corpus.folder, home / "out", lambda: False)
    return corpus, home / "out"


def read(out: Path) -> SweepResult:
    return from_json(SweepResult, json.loads((out / "sweep.json").read_text()), "sweep.json")


def test_no_two_settings_have_one_name() -> None:
    parts = (BASE.model, BASE.optimizer, BASE)
    assert len(settings_of(BASE)) == sum(len(fields(part)) for part in parts) - len(parts) + 1


def test_every_combination_is_a_run_the_last_axis_varying_fastest() -> None:
    runs = combinations(BASE, AXES)
    assert [(run.optimizer.lr, run.model.shape, run.seed) for run in runs[:3]] == [
        (1e-3, "1", 0),
        (1e-3, "1", 1),
        (1e-3, "1^2", 0),
    ]
    assert len(set(runs)) == 8
    assert all(replace(run, optimizer=BASE.optimizer, model=BASE.model, seed=0) == BASE for run in runs)


def test_a_sweep_reports_each_point_over_its_seeds_best_first(study: tuple[Corpus, Path]) -> None:
    corpus, out = study
    assert [path.name for path in write_sweep(BASE, AXES, corpus, out)] == ["sweep.md", "sweep.json", "sweep.png"]
    result = read(out)
    assert [point.settings for point in result.points] == [
        {"lr": lr, "shape": shape} for lr in (1e-3, 1e-2) for shape in ("1", "1^2")
    ]
    assert all(point.losses.keys() == {"0", "1"} for point in result.points)
    lines = (out / "sweep.md").read_text().splitlines()
    assert lines[0] == "| lr | shape | loss | bits/byte | seeds |"
    losses = [float(line.split("|")[3]) for line in lines[2:6]]
    assert losses == sorted(losses)
    assert "the mean over 2 seeds" in lines[7]
    assert "dim 16" in lines[7]


def test_runs_that_failed_or_are_missing_are_no_best(study: tuple[Corpus, Path]) -> None:
    corpus, out = study
    write_sweep(BASE, AXES, corpus, out)
    result = read(out)
    best = min(result.points, key=lambda point: point.loss or 0)
    assert result.best == best
    best.failed["0"] = "it has <b>diverged</b>"
    assert result.best not in (best, None)
    text = markdown(result)
    assert "Failed: lr" in text
    assert "&lt;b&gt;" in text


def test_the_figure_has_a_line_for_each_shape_over_the_rates(
    study: tuple[Corpus, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, out = study
    write_sweep(BASE, AXES, corpus, out)
    drawn: dict[str, Any] = {}
    real = Axes.errorbar

    def errorbar(axes: Axes, x: Any, y: Any, **options: Any) -> Any:
        drawn[options["label"]] = (x, y, options["yerr"])
        return real(axes, x, y, **options)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    draw_sweep(read(out), tmp_path / "sweep.png")
    assert list(drawn) == ["shape 1", "shape 1^2"]
    for x, y, (below, above) in drawn.values():
        assert x == (1e-3, 1e-2)
        assert below == pytest.approx(above), "of two seeds, both are equally far from the mean"
        assert all(value > 0 for value in (*y, *below))


def test_nothing_is_drawn_without_numbers_to_draw_over(study: tuple[Corpus, Path]) -> None:
    corpus, out = study
    axes = {"shape": ["1", "1^2"]}
    base = with_settings(BASE, {"lr": 1e-3}, "")
    assert [path.name for path in write_sweep(base, axes, corpus, out)] == ["sweep.md", "sweep.json"]


def test_the_command_trains_once_and_then_has_nothing_left_to_do(
    study: tuple[Corpus, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, _ = study
    words = "--shape 1^2 --dim 16 --heads 2 --context 16 --tokens 64 --batch 2 --evaluations 1 --device cpu --jobs 1"
    command = ["sweep", "--data", str(corpus.folder), "--out", str(tmp_path / "out"), *words.split()]
    command += ["--vary", "optimizer.muon-lr=1e-2,2e-2", "--vary", "optimizer=muon"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"Report: {tmp_path}/out/sweep.md" in out
    records = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("runs/*/run.json")}
    assert len(records) == 2
    assert main(command) == 0
    assert "all 2 models are complete" in capsys.readouterr().out
    assert records == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("runs/*/run.json")}


def test_a_damaged_record_costs_no_report(study: tuple[Corpus, Path], tmp_path: Path) -> None:
    corpus, made = study
    out = tmp_path / "out"
    shutil.copytree(made / "cells", out / "cells")
    first, *_ = sorted((out / "cells").iterdir())
    first.write_text("{}")
    write_sweep(BASE, AXES, corpus, out)
    assert [len(point.failed) for point in read(out).points].count(1) == 1
    assert f"{first.name} lacks" in (out / "sweep.md").read_text()


def test_a_comparison_takes_no_records_of_another_protocol(study: tuple[Corpus, Path], tmp_path: Path) -> None:
    corpus, made = study
    shutil.copytree(made / "cells", tmp_path / "cells")
    longer = replace(BASE, tokens=2 * BASE.tokens)
    result = compare(CompareConfig(shapes=("1", "1^2"), base=longer), corpus, tmp_path)
    losses = {row.name: row.losses[0].nats for row in result.rows}
    trained = {str(Variant.of(run.config().model)): run for run in map(RunFolder, (tmp_path / "runs").iterdir())}
    assert losses == {name: pytest.approx(float(run.story_nats().sum())) for name, run in trained.items()}
