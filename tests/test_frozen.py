"""Folders that an earlier version wrote: they load, mean the same, and go on."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from judge_server import JudgeServer, judge_server

from frailt import cli
from frailt.data.corpus import Corpus
from frailt.evaluation.loss import stream_loss
from frailt.files import sha256
from frailt.model.checkpoint import load_model
from frailt.paper.grid import GridConfig
from frailt.paper.grid_report import write_report
from frailt.paper.grid_results import GridResults
from frailt.studies.cells import cell_folder, steps_done
from frailt.studies.compare import compare
from frailt.studies.comparison import CompareConfig, Comparison
from frailt.studies.workers import work
from frailt.training.provenance import provenance
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import train

FROZEN = Path(__file__).parent / "frozen"
COMPLETE_NATS, CUT_NATS = 2627.7712059020996, 2510.5333728790283
CUT_WEIGHTS = "334f48167815ee89162b5abe6a2b0759f464b42c4e1f90d9ef808728f4437a83"
"""Of ``run-cut`` when the version that began it has finished it: see the README there."""

NATS = {"1": 3005.307903289795, "1^2": 2875.439784049988, "1^2:none": 2963.9773054122925, "2": 2981.0627584457397}
"""Of ``compare`` and ``grid``, which train alike."""


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(FROZEN / "data")


def copied(name: str, folder: Path) -> RunFolder:
    shutil.copytree(FROZEN / name, folder)
    return RunFolder(folder)


def test_a_model_has_the_loss_that_it_had(corpus: Corpus) -> None:
    model = load_model(FROZEN / "run-complete")
    loss = stream_loss(model, corpus.valid.tokens, text_bytes=728)
    assert loss.nats == pytest.approx(COMPLETE_NATS, rel=1e-5)


def test_a_model_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(FROZEN / "run-complete")]) == 0
    printed = capsys.readouterr().out
    assert "shape 1^3+2: effective depth 5, width 16" in printed
    assert "validation loss 4.8305 after 3,008 tokens" in printed


def test_no_curve_is_promised_where_none_was_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--resume --shape 1^3+2 --dim 16 --heads 2 --kv-heads 1 --context 32 --batch 2 --evaluations 2"
    words += " --tokens 3000 --optimizer adamw --schedule cosine --lr 0.002 --precision float32"
    run = copied("run-complete", tmp_path / "run")
    command = ["train", *words.split(), "--data", str(FROZEN / "data"), "--out", str(run.path)]
    assert cli.main(command) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.endswith(" after 3,008 tokens\n")
    (run.path / "loss.png").touch()
    assert cli.main(command) == 0
    assert capsys.readouterr().out.endswith(f" after 3,008 tokens; loss curve in {run.path}/loss.png\n")


def test_a_complete_run_is_not_trained_again(corpus: Corpus, tmp_path: Path) -> None:
    run = copied("run-complete", tmp_path / "run")
    before = sha256(run.path / "model.safetensors")
    result = train(run.config(), corpus, run.path, resume=True)
    assert (result.loss.nats, result.tokens) == (COMPLETE_NATS, 3008)
    assert result.story_nats.sum() == pytest.approx(COMPLETE_NATS, rel=1e-5), "measured now; that version kept none"
    assert sha256(run.path / "model.safetensors") == before


def test_a_run_goes_on_where_it_was_stopped(corpus: Corpus, tmp_path: Path) -> None:
    run = copied("run-cut", tmp_path / "run")
    result = train(run.config(), corpus, run.path, resume=True)
    assert result.loss.nats == pytest.approx(CUT_NATS, rel=1e-5)
    assert [line.step for line in run.metrics()][:4] == [10, 20, 28, 30]


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As many as ``run-cut`` was made with."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_run_that_goes_on_has_the_weights_bit_for_bit(corpus: Corpus, tmp_path: Path) -> None:
    record, here = RunFolder(FROZEN / "run-cut").record(), provenance(torch.device("cpu"))
    if (record.torch, record.machine) != (here["torch"], here["machine"]):
        pytest.skip(f"made with torch {record.torch} on {record.machine}; this is {here['torch']} on {here['machine']}")
    run = copied("run-cut", tmp_path / "run")
    train(run.config(), corpus, run.path, resume=True)
    assert sha256(run.path / "model.safetensors") == CUT_WEIGHTS


def test_a_run_stands_in_a_comparison(corpus: Corpus, tmp_path: Path) -> None:
    run = copied("run-complete", tmp_path / "runs" / "1x3_2-s0")
    before = sha256(run.path / "model.safetensors")
    config = CompareConfig(shapes=("1^3+2",), base=run.config())
    (row,) = compare(config, corpus, tmp_path).rows
    assert row.losses[0].nats == pytest.approx(COMPLETE_NATS, rel=1e-5)
    assert sha256(run.path / "model.safetensors") == before


def test_a_comparison_is_read_and_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    out = copied("compare", tmp_path / "compare").path
    before = {path: sha256(path) for path in out.glob("runs/*/model.safetensors")}
    stored = Comparison.read(out / "compare.json")
    assert {row.name: row.losses[0].nats for row in stored.rows} == NATS
    more = compare(replace(stored.config, shapes=("1^2", "4")), corpus, out)
    assert [row.name for row in more.rows] == ["1^2", "4", "1", "1^2:none", "2"]
    assert {row.name: row.losses[0].nats for row in more.rows if row.name != "4"} == pytest.approx(NATS)
    assert before == {path: sha256(path) for path in before}


def test_a_grid_is_read_and_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    out = copied("grid", tmp_path / "grid").path
    stored = GridResults.read(out / "grid.json")
    assert [run.model for run in stored.runs] == ["1", "1^2:passes=random", "2"]
    grid = GridConfig(widths=(8,), shapes=("1", "1^2:passes=random", "2", "1^2"), base=stored.protocol)
    assert {steps_done(cell, cell_folder(cell, corpus, out)) for cell in grid.cells()} == {10, 4}
    work(grid.cells(), corpus.folder, out, lambda: False)
    assert len(list(out.glob("runs/*/run.json"))) == 4
    write_report(grid, corpus, out)
    written = GridResults.read(out / "grid.json")
    assert written.runs[:3] == stored.runs
    assert written.losses.table[8]["1^2"] == pytest.approx(NATS["1^2"] / 544, rel=1e-5)


# Judge

GRADE = ("judge", "grade", "run-complete", "--prompt", "prompt.txt")
OFFLINE = ("judge", "offline", "run-complete")
STORIES = "--out judged --beginnings beginnings.txt --completions 4 --max-tokens 12 --seed 3"


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of results; the model that it is about lies beside it, in the working folder."""
    home = copied("judge", tmp_path / "judge").path
    copied("run-complete", home / "run-complete")
    monkeypatch.chdir(home)
    return home / "judged"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    with judge_server() as server:
        for name, value in {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": server.url, "NO_PROXY": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        yield server


def test_what_was_written_and_graded_is_read(
    judged: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {
        path: path.read_bytes() for path in judged.rglob("*.json*") if path.name not in ("judge.json", "offline.json")
    }
    before = {name: json.loads((judged / name).read_text()) for name in ("judge.json", "offline.json")}
    for command in (GRADE, OFFLINE):
        assert cli.main([*command, *STORIES.split()]) == 0, capsys.readouterr().err
    assert server.requests == []
    assert len(kept) == 2, "completions and replies"
    assert {path: path.read_bytes() for path in kept} == kept
    assert list((judged / "completions").iterdir()) == [path for path in kept if path.parent.name == "completions"]
    for name, there in before.items():
        now = json.loads((judged / name).read_text())
        assert {key: now[key] for key in ("stories", "models")} == {key: there[key] for key in ("stories", "models")}


def test_a_setting_that_a_version_did_not_have_stood_at_its_default(
    judged: Path, server: JudgeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("judge.json", "offline.json"):
        report = json.loads((judged / name).read_text())
        del report["stories"]["held_out"], report["stories"]["sampling"]["top_k"]
        (judged / name).write_text(json.dumps(report))
    for command in (GRADE, OFFLINE):
        assert cli.main([*command, *STORIES.split(), "--top-k", "3"]) == 2
        assert "was made without --top-k; do the same, or choose another --out" in capsys.readouterr().err
        assert cli.main([*command, *STORIES.split()]) == 0, capsys.readouterr().err
    assert server.requests == []
