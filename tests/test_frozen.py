"""Folders that an earlier version wrote: they load, mean the same, and go on."""

import shutil
from pathlib import Path

import pytest
import torch

from frailt import cli
from frailt.data.corpus import Corpus
from frailt.evaluation.loss import stream_loss
from frailt.files import sha256
from frailt.model.checkpoint import load_model
from frailt.studies.compare import compare
from frailt.studies.comparison import CompareConfig
from frailt.training.provenance import provenance
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import train

FROZEN = Path(__file__).parent / "frozen"
COMPLETE_NATS, CUT_NATS = 2627.7712059020996, 2510.5333728790283
CUT_WEIGHTS = "334f48167815ee89162b5abe6a2b0759f464b42c4e1f90d9ef808728f4437a83"
"""Of ``run-cut`` when the version that began it has finished it: see the README there."""


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
    record, here = RunFolder(FROZEN / "run-cut").record(), provenance(torch.device("cpu"))
    if (record.torch, record.machine) == (here["torch"], here["machine"]):
        assert sha256(run.path / "model.safetensors") == CUT_WEIGHTS


def test_a_run_stands_in_a_comparison(corpus: Corpus, tmp_path: Path) -> None:
    run = copied("run-complete", tmp_path / "runs" / "1x3_2-s0")
    before = sha256(run.path / "model.safetensors")
    config = CompareConfig(shapes=("1^3+2",), base=run.config())
    (row,) = compare(config, corpus, tmp_path).rows
    assert row.losses[0].nats == pytest.approx(COMPLETE_NATS, rel=1e-5)
    assert sha256(run.path / "model.safetensors") == before
