"""Two processes train what one trains.

One pair of processes, started by torchrun, does all the jobs of ``PAIR`` in a row, since to start them takes longer
than to train. The tests then look at what it left behind.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from corpora import make_chain
from safetensors.torch import load_file

from frailt import cli
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.model.frailt import ModelConfig
from frailt.training.config import TrainConfig
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import Progress, train

TINY = TrainConfig(
    model=ModelConfig(shape="1^3", dim=16, heads=2, vocab_size=300, context=32),
    tokens=10 * 4 * 32,
    evaluations=3,
    checkpoint_seconds=0.0,
    device="cpu",
    precision="float32",
)
SAME = {
    "1^3": TINY,
    "2": replace(TINY, model=replace(TINY.model, shape="2", tied=False)),
    "(2)^2+1": replace(TINY, model=replace(TINY.model, shape="(2)^2+1", encoding="sinusoidal", dim=20), accumulate=2),
    "muon": replace(TINY, optimizer=replace(TINY.optimizer, optimizer="muon", looped_decay=0.5, schedule="linear")),
    "random": replace(TINY, passes="random", precision="bfloat16"),
}
"""Runs that come out the same on two ranks. A width of 20 and a vocabulary of 300 do not split evenly everywhere."""
SHARDINGS = ("ddp", "fsdp")

PAIR = """
import json
import math
import os
import runpy
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch

from frailt.configs import from_json
from frailt.data.corpus import Corpus
from frailt.launch import rank_info
from frailt.model.frailt import FraiLT
from frailt.training import ranks, trainer
from frailt.training.config import TrainConfig

home = Path(sys.argv[1])
torch.set_num_threads(1)
corpus = Corpus(home / "data")
rank = rank_info().rank


def config(name, **change):
    stored = json.loads((home / "configs.json").read_text())[name]
    return replace(from_json(TrainConfig, stored, name), **change)
"""

JOBS = """
told = {}


def job(name, config, told=told, **options):
    try:
        trainer.train(config, corpus, home / name, **options)
        told[name] = None
    except BaseException as error:
        told[name] = [type(error).__name__, str(error)]


def power_failure(progress):
    if progress.step == 7:
        raise RuntimeError("power failure")


STEP = torch.optim.AdamW.step


def on_rank_1(step, call):
    # In an update, counted from 1, rank 1 does something with its optimizer.
    calls = []

    def wrapped(optimizer):
        calls.append(None)
        if len(calls) == step and rank == 1:
            call(optimizer)
        return STEP(optimizer)

    torch.optim.AdamW.step = wrapped


def ruin(optimizer):
    for group in optimizer.param_groups:
        group["lr"] = math.nan


for sharding in ("ddp", "fsdp"):
    for name in ("1^3", "2", "(2)^2+1", "muon"):
        job(f"{sharding} {name}", config(name), sharding=sharding)
    job(f"{sharding} goes on", config("1^3"), sharding=sharding, resume=True)
    job(f"{sharding} muon goes on", config("muon"), sharding=sharding, resume=True)
    job(f"{sharding} begins", config("1^3"), sharding=sharding, start=home / "alone 1^3" if rank == 0 else "nowhere")
    on_rank_1(6, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    job(f"{sharding} stopped", config("1^3", checkpoint_seconds=3600.0), sharding=sharding)
    torch.optim.AdamW.step = STEP
    torch.compile, kept = partial(torch.compile, backend="eager"), torch.compile
    job(f"{sharding} compiled", config("1^3", compile=True), sharding=sharding)
    torch.compile = kept

job("random", config("random"), sharding="fsdp")
job("cut", config("1^3"), report=power_failure)
# Only what rank 1 holds is ruined, and no loss has shown it yet.
on_rank_1(10, ruin)
job("ruined", config("1^3"), sharding="fsdp")
torch.optim.AdamW.step = STEP
job("uneven", config("1^3", batch=6, accumulate=2))
job("unlike", config("1^3", seed=rank))
again = {}
job("ddp 1^3", config("1^3"), told=again)
told["again"] = again["ddp 1^3"]

model = FraiLT(config("(2)^2+1").model)
ranks.Shards(torch.device("cpu"), rank_info()).wrap(model)
told["units"] = [name for name, module in model.named_modules() if type(module).__name__.startswith("FSDP")]
(home / f"told-{rank}.json").write_text(json.dumps(told))

sizes = "--shape 1^2 --dim 16 --heads 2 --context 32 --tokens 300 --evaluations 1 --device cpu"
sys.argv = ["frailt", "train", "--data", str(home / "data"), "--out", str(home / "command"), *sizes.split()]
runpy.run_module("frailt", run_name="__main__")  # It ends the process.
"""

HUNG = """
real = torch.optim.AdamW.step


def hang(optimizer):
    if rank == 1:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pause()
    return real(optimizer)


(home / f"here-{rank}").touch()
while not (home / f"here-{1 - rank}").exists():  # Once both are here they are about equally fast.
    pass
ranks.TIMEOUT = timedelta(seconds=10)
torch.optim.AdamW.step = hang
trainer.train(config("1^3"), corpus, home / "hung")
"""


def torchrun(home: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run ``PAIR`` and ``body`` on two ranks, with ``home`` as the argument."""
    path = home / "script.py"
    path.write_text(PAIR + body)
    one = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", path, home]
    return subprocess.run(command, env={**os.environ, **one}, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and configs."""
    home = tmp_path_factory.mktemp("ranks")
    make_chain(home / "data")
    (home / "configs.json").write_text(json.dumps({name: dataclasses.asdict(c) for name, c in SAME.items()}))
    return home


@pytest.fixture(scope="module")
def home(empty: Path) -> Path:
    """The same after all jobs; the runs of one process are in ``alone NAME``."""
    corpus = Corpus(empty / "data")
    for name, config in SAME.items():
        train(config, corpus, empty / f"alone {name}")
    train(TINY, corpus, empty / "alone begins", start=empty / "alone 1^3")
    for sharding in SHARDINGS:
        with pytest.raises(RuntimeError):
            train(TINY, corpus, empty / f"{sharding} goes on", report=power_failure)
        with pytest.raises(RuntimeError):
            train(SAME["muon"], corpus, empty / f"{sharding} muon goes on", report=power_failure)
    done = torchrun(empty, JOBS)
    assert done.returncode == 0, done.stderr
    (empty / "said.json").write_text(json.dumps({"out": done.stdout, "err": done.stderr}))
    return empty


def power_failure(progress: Progress) -> None:
    if progress.step == 7:
        raise RuntimeError("power failure")


@pytest.fixture
def told(home: Path) -> list[dict[str, Any]]:
    """What became of each job, on each rank."""
    return [json.loads((home / f"told-{rank}.json").read_text()) for rank in (0, 1)]


def losses(folder: Path) -> list[float]:
    return [loss for line in RunFolder(folder).metrics() for loss in (line.loss, line.valid_loss) if loss is not None]


def assert_same(a: Path, b: Path) -> None:
    assert losses(a) == pytest.approx(losses(b), abs=1e-4)
    assert RunFolder(a).story_nats() == pytest.approx(RunFolder(b).story_nats(), rel=1e-4)
    assert_same_weights(a, b)


def assert_same_weights(a: Path, b: Path) -> None:
    left, right = (load_file(folder / "model.safetensors") for folder in (a, b))
    assert left.keys() == right.keys()
    for name in left:
        if "muon" in a.name:
            # It rounds its products to bfloat16, so gradients that differ in their last bits may move a single weight
            # otherwise. Updates of split matrices move all of them.
            assert float((left[name] - right[name]).abs().mean()) < 2e-4, name
            continue
        torch.testing.assert_close(left[name], right[name], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("name", ["1^3", "2", "(2)^2+1", "muon"])
def test_two_ranks_equal_one_process(home: Path, told: list[dict[str, Any]], sharding: str, name: str) -> None:
    job = f"{sharding} {name}"
    assert [t[job] for t in told] == [None, None]
    assert_same(home / job, home / f"alone {name}")
    assert {path.name for path in (home / job).iterdir()} == {path.name for path in (home / f"alone {name}").iterdir()}


def test_random_passes_in_bfloat16_are_nearly_the_same(home: Path, told: list[dict[str, Any]]) -> None:
    assert [t["random"] for t in told] == [None, None]
    assert losses(home / "random") == pytest.approx(losses(home / "alone random"), abs=0.01)


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_ranks_go_on_from_one_process(home: Path, told: list[dict[str, Any]], sharding: str) -> None:
    assert [t[f"{sharding} goes on"] for t in told] == [None, None]
    assert [t[f"{sharding} muon goes on"] for t in told] == [None, None]
    assert_same(home / f"{sharding} goes on", home / "alone 1^3")
    assert_same(home / f"{sharding} muon goes on", home / "alone muon")


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_ranks_compile(home: Path, told: list[dict[str, Any]], sharding: str) -> None:
    assert [t[f"{sharding} compiled"] for t in told] == [None, None]
    assert_same(home / f"{sharding} compiled", home / "alone 1^3")


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_two_ranks_begin_from_a_model_that_rank_0_has(home: Path, told: list[dict[str, Any]], sharding: str) -> None:
    assert [t[f"{sharding} begins"] for t in told] == [None, None]
    assert_same(home / f"{sharding} begins", home / "alone begins")


@pytest.mark.parametrize(("job", "step"), [("cut", 3), ("ddp stopped", 6), ("fsdp stopped", 6)])
def test_one_process_goes_on_from_two_ranks(home: Path, job: str, step: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(home / job, run)
    assert torch.load(run / "resume.pt", weights_only=True)["step"] == step
    train(TINY, Corpus(home / "data"), run, resume=True)
    assert_same_weights(run, home / "alone 1^3")


def test_what_ends_one_rank_ends_all(told: list[dict[str, Any]]) -> None:
    """A signal to rank 1, a failure on rank 0, and ruined weights on rank 1."""
    first, second = told
    for sharding in SHARDINGS:
        assert first[f"{sharding} stopped"][0] == second[f"{sharding} stopped"][0] == "KeyboardInterrupt"
    assert first["cut"] == ["RuntimeError", "power failure"]
    assert second["cut"] == ["InputError", "rank 0 has ended the run: power failure"]
    assert first["ruined"] == second["ruined"]
    assert first["ruined"][0] == "InputError"
    assert "at step 10 and training has diverged; the state of step 7 is kept" in first["ruined"][1]


def test_a_looped_group_is_gathered_as_one_and_plain_blocks_one_by_one(told: list[dict[str, Any]]) -> None:
    assert told[0]["units"] == ["", "groups.0", "groups.1.blocks.0"]


def test_misuse_is_one_clear_line(told: list[dict[str, Any]]) -> None:
    first, second = told
    uneven = "batch 6 cannot be split over 2 processes in 2 parts each; make it a multiple of 4"
    unlike = "the processes have different options or data; start all of them with the same command"
    assert first["uneven"] == second["uneven"] == ["InputError", uneven]
    assert first["unlike"] == second["unlike"] == ["InputError", unlike]
    assert "holds a run already; add --resume" in first["again"][1]
    assert "rank 0 has ended the run: " in second["again"][1]


def test_shards_need_several_processes(empty: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sharding fsdp needs several processes; start them with torchrun"):
        train(TINY, Corpus(empty / "data"), tmp_path / "run", sharding="fsdp")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train --batch 5", "batch 5 cannot be split over 2 processes"),
        ("info nowhere", "info runs in one process; only `frailt train` can be started with torchrun"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_speaks_for_all(
    empty: Path, words: str, message: str, rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Both come before the ranks meet, so that they can be tried without a second process."""
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    data = ["--data", str(empty / "data")] if words.startswith("train") else []
    assert cli.main([*words.split(), *data]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == (1 if rank == 0 else 0)
    assert message in said or rank == 1


@pytest.mark.parametrize("changed", [{"RANK": "x"}, {"WORLD_SIZE": "9" * 5000}, {"RANK": "2"}, {"LOCAL_RANK": "-1"}])
def test_variables_that_torchrun_does_not_set_are_refused(
    changed: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name, value in ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"} | changed).items():
        monkeypatch.setenv(name, value)
    assert cli.main(["train", "--tokens", "300"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == ("LOCAL_RANK" not in changed)
    assert "use torchrun" in said or "LOCAL_RANK" in changed
    assert len(said) < 300


def test_the_command_under_torchrun(home: Path) -> None:
    said = json.loads((home / "said.json").read_text())
    assert said["out"].count("validation loss") == 1
    assert said["err"].count("step 3/3") == 1
    assert RunFolder(home / "command").result is not None


def test_a_hung_rank_does_not_hold_the_others_for_ever(empty: Path) -> None:
    done = torchrun(empty, HUNG)
    assert done.returncode != 0
    assert "Timed out" in done.stderr or "timeout" in done.stderr
    assert (empty / "hung" / "run.json").is_file()
