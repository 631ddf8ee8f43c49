"""Training: schedule, optimizer groups, trajectories that must agree, and runs that are cut off."""

import dataclasses
import io
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from corpora import make_chain, make_corpus
from safetensors.torch import load_file

from frailt.configs import from_json
from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.evaluation.loss import token_losses
from frailt.files import BusyError, hold
from frailt.model.checkpoint import load_model
from frailt.model.config import ModelConfig
from frailt.model.frailt import FraiLT
from frailt.training.checkpoint import parameter_order
from frailt.training.config import OptimizerConfig, TrainConfig
from frailt.training.depth import mean_depth, passes_at
from frailt.training.device import choose_precision
from frailt.training.loop import Training
from frailt.training.metrics import Metrics
from frailt.training.optimizers import learning_rate, make_optimizers
from frailt.training.presets import PRESETS, Preset
from frailt.training.ranks import Ranks
from frailt.training.run_folder import RunFolder
from frailt.training.trainer import Progress, train

TINY = TrainConfig(
    model=ModelConfig(shape="1^3", dim=16, heads=2, vocab_size=300, context=32),
    tokens=20 * 4 * 32,
    evaluations=1,
    checkpoint_seconds=0.0,
    precision="float32",
)

LONGER = replace(TINY, tokens=24 * 4 * 32)
"""Reports at the steps 10, 20 and 24: what fails at 20 has a state of 10 to go on from."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("data") / "world")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def losses(folder: Path) -> list[float]:
    return [line.loss for line in RunFolder(folder).metrics() if line.loss is not None]


class Interrupting:
    """A reporter that raises at a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def __call__(self, progress: Progress) -> None:
        if progress.step >= self.step:
            raise self.error


def test_a_run_folder_holds_everything(corpus: Corpus, tmp_path: Path) -> None:
    result = train(TINY, corpus, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "run.json",
        "config.json",
        "metrics.jsonl",
        "model.safetensors",
        "tokenizer.json",
        "loss.png",
        "story_nats.npy",
        ".lock",
    }
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["data"]["train"] == corpus.digest["train"]
    assert {"frailt", "torch", "numpy", "python", "commit", "machine"} <= record.keys()
    assert RunFolder(tmp_path / "run").config() == TINY
    assert result.tokens == 20 * 4 * 32
    assert result.loss.nats_per_token < math.log(300)
    assert load_model(tmp_path / "run").config == TINY.model


def test_equal_configs_give_equal_weights(corpus: Corpus, tmp_path: Path) -> None:
    train(TINY, corpus, tmp_path / "a")
    train(TINY, corpus, tmp_path / "b")
    train(replace(TINY, seed=1), corpus, tmp_path / "c")
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def test_the_last_validation_keeps_the_nats_of_each_story(corpus: Corpus, tmp_path: Path) -> None:
    result = train(TINY, corpus, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert run.is_complete
    tokens = np.asarray(corpus.valid.tokens)
    losses = token_losses(load_model(tmp_path / "run"), tokens)
    starts = [*np.flatnonzero(tokens == corpus.manifest.bos), len(tokens)]
    slow = [losses[max(a - 1, 0) : b - 1].sum() for a, b in pairwise(starts)]
    assert run.story_nats() == pytest.approx(slow, rel=1e-12)
    assert np.array_equal(result.story_nats, run.story_nats())
    assert result.story_nats.sum() == pytest.approx(result.loss.nats, rel=1e-12)
    # A run of an earlier version has no such file: it is measured when the run is met again.
    (tmp_path / "run" / "story_nats.npy").unlink()
    assert not run.is_complete
    again = train(TINY, corpus, tmp_path / "run", resume=True)
    assert run.is_complete
    assert np.array_equal(again.story_nats, result.story_nats)


def npy(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"",
        lambda good: npy(good)[:-8],
        lambda good: npy(good) + bytes(8),
        lambda good: npy(good).replace(b"'descr'", b"'descr(", 1),
        lambda good: npy(good).replace(b"(", b"(9", 1),
        lambda good: npy(good.astype("<f4")),
        lambda good: npy(good[None]),
        lambda good: npy(np.append(good[1:], np.nan)),
        lambda good: npy(good * 1.01),
        lambda good: npy(np.zeros(100_000)),
    ],
)
def test_damaged_nats_of_stories_give_one_clear_line(
    corpus: Corpus, tmp_path: Path, damage: Callable[[np.ndarray], bytes]
) -> None:
    run = RunFolder(tmp_path)
    run.log(Metrics(step=1, tokens=1, valid_loss=2.0, nats=200.0, targets=100, final=True))
    run.save_story_nats(np.full(10, 20.0))
    assert run.story_nats().sum() == 200.0
    (tmp_path / "story_nats.npy").write_bytes(damage(np.full(10, 20.0)))
    with pytest.raises(InputError, match=r"story_nats.npy is damaged or of another run; delete it"):
        run.story_nats()


@pytest.mark.parametrize(
    "settings", [{}, {"passes": "random"}, {"optimizer": OptimizerConfig(optimizer="muon", schedule="linear")}]
)
def test_a_resumed_run_equals_an_uninterrupted_one(corpus: Corpus, tmp_path: Path, settings: dict[str, Any]) -> None:
    config = replace(LONGER, **settings)
    train(config, corpus, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="power"):
        train(config, corpus, tmp_path / "cut", report=Interrupting(20, RuntimeError("power failure")))
    assert (tmp_path / "cut" / "resume.pt").exists()
    train(config, corpus, tmp_path / "cut", resume=True)
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")
    assert not (tmp_path / "cut" / "resume.pt").exists()


def test_kill_9_and_resume(corpus: Corpus, tmp_path: Path) -> None:
    """A process that is killed outright leaves a state from which the run ends as if it had not been."""
    config = replace(TINY, tokens=40 * 4 * 32)
    # Seeded with the tokens' path only: the child rebuilds the config, and kills itself at step 30.
    script = f"""
import os, signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
import torch
torch.set_num_threads({torch.get_num_threads()})
from frailt.data.corpus import Corpus
from frailt.configs import from_json
from frailt.training.config import TrainConfig
from frailt.training.trainer import train
import json
config = from_json(TrainConfig, json.loads(Path({str(tmp_path / "config.json")!r}).read_text()), "test")
def kill(progress):
    if progress.step >= 30:
        os.kill(os.getpid(), signal.SIGKILL)
train(config, Corpus(Path({str(corpus.folder)!r})), Path({str(tmp_path / "cut")!r}), report=kill)
"""
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    child = subprocess.run([sys.executable, "-c", script], env={**os.environ}, capture_output=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    train(config, corpus, tmp_path / "whole")
    train(config, corpus, tmp_path / "cut", resume=True)
    assert same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("where", "number"),
    [(where, signal.SIGINT) for where in ("forward", "update", "report", "last report")]
    + [("update", signal.SIGTERM), ("update", signal.SIGHUP)],
)
def test_ctrl_c_ends_between_steps_and_is_resumed_exactly(
    corpus: Corpus, tmp_path: Path, where: str, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, checkpoint_seconds=3600.0)
    train(config, corpus, tmp_path / "whole")
    calls = Counter[str]()

    def interrupting(name: str, after: int, call: Callable) -> Callable:
        def wrapped(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            if name == where and calls[name] == after:
                os.kill(os.getpid(), number)
            return call(*args, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(FraiLT, "forward", interrupting("forward", 7, FraiLT.forward))
        patch.setattr(torch.optim.AdamW, "step", interrupting("update", 7, torch.optim.AdamW.step))
        report = interrupting("report", 1, interrupting("last report", 2, lambda _: None))
        with pytest.raises(KeyboardInterrupt):
            train(config, corpus, tmp_path / "run", report=report)
    if where != "last report":
        state = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
        assert state["step"] == {"forward": 7, "update": 7, "report": 10}[where]
    train(config, corpus, tmp_path / "run", resume=True)
    assert same(tmp_path / "whole", tmp_path / "run")
    assert losses(tmp_path / "whole") == losses(tmp_path / "run"), "a stop leaves no trace in the metrics"
    assert not (tmp_path / "run" / "resume.pt").exists()


def test_a_second_ctrl_c_ends_at_once(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(*args: Any, **options: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(torch.optim.AdamW, "step", twice)
    with pytest.raises(KeyboardInterrupt):
        train(replace(TINY, checkpoint_seconds=3600.0), corpus, tmp_path / "run")
    assert not (tmp_path / "run" / "resume.pt").exists(), "the step has been finished"


def test_a_closed_terminal_is_ignored_where_nohup_says_so(corpus: Corpus, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        train(TINY, corpus, tmp_path / "run", report=lambda _: os.kill(os.getpid(), signal.SIGHUP))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stop_saves_before_it_reports(corpus: Corpus, tmp_path: Path) -> None:
    """The terminal that a report goes to may be what has ended the run."""
    report = Interrupting(0, OSError("no terminal"))
    with pytest.raises(KeyboardInterrupt):
        train(replace(TINY, checkpoint_seconds=3600.0), corpus, tmp_path / "run", report=report, stop=later(10))
    assert RunFolder(tmp_path / "run").saved == 10


def later(step: int) -> Callable[[], bool]:
    """True from the ``step``-th time on."""
    calls = iter([False] * (step - 1))
    return lambda: next(calls, True)


@pytest.mark.parametrize("bad_step", [12, 19])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad_step: int
) -> None:
    """Also where only the weights after the last step are ruined, and no loss has shown it."""
    real, steps = torch.optim.AdamW.step, iter(range(20))

    def ruin(optimizer: torch.optim.AdamW, *args: Any, **options: Any) -> None:
        real(optimizer, *args, **options)
        if next(steps) == bad_step:
            optimizer.param_groups[1]["params"][-1].data[0] = math.nan

    monkeypatch.setattr(torch.optim.AdamW, "step", ruin)
    with pytest.raises(
        InputError, match=r"at step 20 and training has diverged; the state of step 10 is kept.*Lower lr"
    ):
        train(TINY, corpus, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    state = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert state["step"] == 10
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_a_full_disk_keeps_the_last_state(corpus: Corpus, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the system refuses the write in the same way."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress: Progress) -> None:
        if progress.step == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    try:
        with pytest.raises(OSError, match="File too large"):
            train(replace(TINY, tokens=2 * TINY.tokens), corpus, tmp_path / "run", report=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(tmp_path / "run" / "resume.pt", weights_only=True)["step"] == 10
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_a_damaged_state_gives_one_clear_line(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        train(LONGER, corpus, tmp_path / "run", report=Interrupting(20, RuntimeError()))
    state = tmp_path / "run" / "resume.pt"
    for damage in (state.read_bytes()[:-200], b"not a state", b""):
        state.write_bytes(damage)
        with pytest.raises(InputError, match=r"resume.pt is damaged .*delete it to train this run from its start"):
            train(LONGER, corpus, tmp_path / "run", resume=True)


def test_a_state_of_another_optimizer_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    muon = replace(LONGER, optimizer=OptimizerConfig(optimizer="muon"))
    for config, folder in ((LONGER, "adamw"), (muon, "muon")):
        with pytest.raises(RuntimeError):
            train(config, corpus, tmp_path / folder, report=Interrupting(20, RuntimeError()))
    shutil.copy(tmp_path / "adamw" / "resume.pt", tmp_path / "muon" / "resume.pt")
    with pytest.raises(InputError, match=r"resume.pt is damaged"):
        train(muon, corpus, tmp_path / "muon", resume=True)


def test_a_run_is_not_overwritten_nor_mixed_with_another(corpus: Corpus, tmp_path: Path) -> None:
    first = train(TINY, corpus, tmp_path / "run")
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        train(TINY, corpus, tmp_path / "run")
    with pytest.raises(InputError, match=r"another seed \(0, now 5\)"):
        train(replace(TINY, seed=5), corpus, tmp_path / "run", resume=True)
    other = make_corpus(tmp_path / "other", stories=61)
    with pytest.raises(InputError, match="trained on other data"):
        train(TINY, other, tmp_path / "run", resume=True)
    assert train(TINY, corpus, tmp_path / "run", resume=True) == first
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "poem.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files and no run"):
        train(TINY, corpus, tmp_path / "notes")


def test_a_folder_is_trained_by_one_process_at_a_time(corpus: Corpus, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.open(TINY, corpus, torch.device("cpu"), resume=False)
    with pytest.raises(InputError, match="being trained by another process"):
        train(TINY, corpus, tmp_path / "run", resume=True)
    run.unlock()
    train(TINY, corpus, tmp_path / "run", resume=True)


def test_accumulated_parts_give_the_whole_batch_gradient(corpus: Corpus, tmp_path: Path) -> None:
    train(TINY, corpus, tmp_path / "whole")
    train(replace(TINY, accumulate=4), corpus, tmp_path / "parts")
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in a)


def test_golden_losses(tmp_path: Path) -> None:
    """Twenty steps end where they did when this was written: a change to the computation shows here."""
    config = replace(TINY, tokens=60 * 4 * 32, optimizer=OptimizerConfig(lr=0.03, clip=0.5))
    train(config, make_chain(tmp_path / "chain"), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx([4.0456, 2.9491, 2.9416, 2.9139, 2.9036, 2.8956], abs=3e-4)


def test_precision_is_what_the_device_is_fast_at(monkeypatch: pytest.MonkeyPatch) -> None:
    has: dict[str, bool] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    cpu, cuda, mps = map(torch.device, ("cpu", "cuda", "mps"))
    assert choose_precision("auto", cpu) == "float32"
    for name in ("amx_bf16", "avx512_bf16"):
        has.clear()
        has[name] = True
        assert choose_precision("auto", cpu) == "bfloat16"
        assert choose_precision("auto", mps) == "float32"
        assert choose_precision("float32", cpu) == "float32"
    for fast in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation, fast=fast: fast)
        assert choose_precision("auto", cuda) == ("bfloat16" if fast else "float32")


def test_a_run_goes_on_where_another_precision_is_fast(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the device: what it began with stands in its record, and is no part of what it is."""
    config = replace(TINY, precision="auto")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    with pytest.raises(KeyboardInterrupt):
        train(config, corpus, tmp_path / "run", stop=lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    train(config, corpus, tmp_path / "run", resume=True)
    assert RunFolder(tmp_path / "run").record().precision == "bfloat16"
    assert RunFolder(tmp_path / "run").config().precision == "auto"


def test_bfloat16_trains_nearly_the_same(corpus: Corpus, tmp_path: Path) -> None:
    train(TINY, corpus, tmp_path / "f32")
    train(replace(TINY, precision="bfloat16"), corpus, tmp_path / "bf16")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "f32"), abs=0.03)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "f32")


def test_data_and_vocabulary_must_fit(corpus: Corpus, tmp_path: Path) -> None:
    config = replace(TINY, model=replace(TINY.model, vocab_size=512))
    with pytest.raises(InputError, match="set vocab_size to 300"):
        train(config, corpus, tmp_path / "run")


def rates(schedule: Literal["cosine", "linear", "constant"]) -> list[float]:
    """Of 1000 steps, with a peak of 2."""
    config = OptimizerConfig(warmup=0.1, schedule=schedule, cooldown=0.4)
    return [learning_rate(step, 1000, config, 2.0) for step in range(1000)]


@pytest.mark.parametrize(
    ("schedule", "halfway", "at_800"), [("cosine", 1.0, 0.234), ("linear", 1.0, 0.444), ("constant", 2.0, 1.0)]
)
def test_a_rate_climbs_to_its_peak_and_falls_to_0(
    schedule: Literal["cosine", "linear", "constant"], halfway: float, at_800: float
) -> None:
    of = rates(schedule)
    assert of[0] == pytest.approx(2 / 101)
    assert max(of) == of[100] == 2.0
    assert of[550] == pytest.approx(halfway)
    assert of[800] == pytest.approx(at_800, abs=1e-3)
    assert 0 < of[-1] < 0.006
    assert of[100:] == sorted(of[100:], reverse=True)


def test_a_cooldown_must_fit_behind_the_warmup() -> None:
    with pytest.raises(InputError, match=r"cooldown 0\.95 and warmup 0\.1 are more than the whole run"):
        OptimizerConfig(cooldown=0.95, warmup=0.1, schedule="constant")
    OptimizerConfig(warmup=0.9)  # Of other schedules it is no part.


def test_tensors_that_decay_come_first_even_where_nothing_decays() -> None:
    """The first versions numbered the saved state of AdamW in this order."""
    model = FraiLT(ModelConfig(shape="1^2", dim=16, heads=2))
    orders = [parameter_order(model, make_optimizers(model, OptimizerConfig(weight_decay=d))[0]) for d in (0.0, 0.1)]
    assert orders[0] == orders[1]


def test_only_matrices_decay_and_encodings_do_not() -> None:
    assert decays(OptimizerConfig(weight_decay=0.1)) == {torch.optim.AdamW: {"plain": 0.1, "looped": 0.1, "other": 0.1}}


def test_muon_has_the_matrices_inside_blocks_and_adamw_the_rest() -> None:
    found = decays(OptimizerConfig(optimizer="muon", weight_decay=0.1, looped_decay=0.5))
    assert found == {torch.optim.Muon: {"plain": 0.1, "looped": 0.05}, torch.optim.AdamW: {"other": 0.1}}


def decays(config: OptimizerConfig) -> dict[type, dict[str, float]]:
    """Weight decay by optimizer: of a plain block's matrices, a looped block's, and other tensors that decay."""
    model = FraiLT(ModelConfig(shape="1+1^3", dim=16, heads=2))
    names = {id(p): name for name, p in model.named_parameters()}
    found = defaultdict[type, dict[str, float]](dict)
    seen = list[str]()
    for optimizer in make_optimizers(model, config):
        for group in optimizer.param_groups:
            for name in (names[id(p)] for p in group["params"]):
                seen.append(name)
                if "norm" in name or "encoding" in name:
                    assert type(optimizer) is torch.optim.AdamW
                    assert group["weight_decay"] == 0.0, name
                    continue
                kind = "plain" if name.startswith("groups.0") else "looped" if name.startswith("groups.1") else "other"
                assert found[type(optimizer)].setdefault(kind, group["weight_decay"]) == group["weight_decay"], name
    assert sorted(seen) == sorted(names.values())
    return dict(found)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name: Preset) -> None:
    config = PRESETS[name]()
    assert from_json(TrainConfig, json.loads(json.dumps(dataclasses.asdict(config))), "test") == config


def test_unknown_keys_are_refused() -> None:
    stored = dataclasses.asdict(TINY)
    stored["model"]["depth"] = 3
    with pytest.raises(InputError, match="a setting 'depth' that this version"):
        from_json(TrainConfig, stored, "run.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens is 0"),
        ({"batch": 4, "accumulate": 3}, "accumulate 3 must divide batch 4"),
        ({"seed": -1}, "seed is -1"),
        ({"passes": "random", "model": ModelConfig(shape="8")}, "only one pass"),
    ],
)
def test_bad_settings(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **change)


def test_random_passes_have_the_shapes_mean_and_an_upper_end() -> None:
    config = replace(TINY, passes="random", model=replace(TINY.model, shape="2+1^5"))
    drawn = []
    for step in range(2000):
        passes = passes_at(config, step)
        assert passes is not None
        assert passes == passes_at(config, step)
        assert passes[0] == 1
        drawn.append(passes[1])
    assert sum(drawn) / len(drawn) == pytest.approx(5, abs=0.15)
    assert min(drawn) >= 1
    assert len(set(drawn)) > 5
    # Seed and step decide them.
    other = [passes_at(replace(config, seed=1), step) for step in range(20)]
    assert other != [passes_at(config, step) for step in range(20)]
    two = replace(config, model=replace(TINY.model, shape="1^2"))
    most = max(passes[0] for step in range(20_000) if (passes := passes_at(two, step)) is not None)
    assert most == 1 + 3 * 2, "Poisson(1) is 7 or more in one of 12,000 draws"
    assert passes_at(TINY, 0) is None


def test_late_passes_begin_after_their_share_of_the_steps() -> None:
    config = replace(TINY, passes="late", late=0.25, model=replace(TINY.model, shape="2+1^5"))
    assert config.steps == 20
    assert [passes_at(config, step) for step in range(20)] == [(1, 1)] * 5 + [None] * 15
    assert mean_depth(config, 0, 20) == pytest.approx((5 * 3 + 15 * 7) / 20)
    assert (mean_depth(config, 3, 4), mean_depth(config, 5, 6), mean_depth(config, 4, 6)) == (3, 7, 5)
    assert mean_depth(replace(config, passes="fixed"), 0, 20) == 7


def test_a_batch_goes_to_the_device_whole_and_is_sliced_there(corpus: Corpus) -> None:
    """Slices are not contiguous: they would be copied once more, into memory that is not pinned."""
    training = Training(replace(TINY, accumulate=2), corpus, Ranks(torch.device("cpu")))
    inputs: list[torch.Tensor] = []

    class Device(torch.nn.Module):
        def forward(self, tokens: torch.Tensor, **_: Any) -> None:
            inputs.append(tokens)
            raise InterruptedError

    training.device, training.wrapped = torch.device("meta"), Device()
    with pytest.raises(InterruptedError):
        training.train_step()
    assert (inputs[0].device.type, inputs[0].shape, inputs[0].stride()) == ("meta", (2, 32), (33, 1))
    assert inputs[0].untyped_storage().nbytes() == 4 * 33 * 8, "the whole batch, int64"


def test_a_run_begins_from_a_saved_model(corpus: Corpus, tmp_path: Path) -> None:
    train(LONGER, corpus, tmp_path / "before")
    begun = tmp_path / "begun"
    with pytest.raises(RuntimeError):
        train(LONGER, corpus, begun, start=tmp_path / "before", report=Interrupting(20, RuntimeError()))
    assert losses(begun)[0] < losses(tmp_path / "before")[0] - 0.1, "it begins where the other has ended"
    train(LONGER, corpus, tmp_path / "whole", start=tmp_path / "before")
    with pytest.raises(InputError, match="began from fresh weights; leave out --start"):
        train(LONGER, corpus, tmp_path / "before", resume=True, start=tmp_path / "before")
    with pytest.raises(InputError, match=r"began from the model .*before; leave out --start"):
        train(LONGER, corpus, begun, resume=True, start=tmp_path / "whole")
    other = replace(LONGER, model=replace(LONGER.model, shape="1^4"))
    with pytest.raises(InputError, match=r"encoding.table is 3 x 16 there and 4 x 16 here"):
        train(other, corpus, tmp_path / "other", start=tmp_path / "before")
    assert not (tmp_path / "other").exists()


def test_a_run_goes_on_without_the_model_that_it_began_from(corpus: Corpus, tmp_path: Path) -> None:
    """Its record says which one that was. The weights are needed until a first state is saved."""
    before, moved, begun = (tmp_path / name for name in ("before", "moved", "begun"))
    train(LONGER, corpus, before)
    train(LONGER, corpus, tmp_path / "whole", start=before)
    with pytest.raises(RuntimeError):
        train(LONGER, corpus, begun, start=before, report=Interrupting(0, RuntimeError()))
    before.rename(moved)
    with pytest.raises(InputError, match="before holds no model to begin from; say with --start where it is"):
        train(LONGER, corpus, begun, resume=True)
    shutil.copytree(tmp_path / "whole", before)
    with pytest.raises(InputError, match=r"before has changed since .*begun began from it"):
        train(LONGER, corpus, begun, resume=True)
    with pytest.raises(KeyboardInterrupt):
        train(LONGER, corpus, begun, resume=True, start=moved, stop=later(10))
    shutil.rmtree(before)
    shutil.rmtree(moved)
    with pytest.raises(KeyboardInterrupt):
        train(LONGER, corpus, begun, resume=True, start=before, stop=later(5))
    train(LONGER, corpus, begun, resume=True)
    assert same(begun, tmp_path / "whole")


def test_the_last_report_has_the_last_validation(corpus: Corpus, tmp_path: Path) -> None:
    reports: list[Progress] = []
    result = train(replace(TINY, evaluations=2), corpus, tmp_path / "run", report=reports.append)
    assert reports[-1].valid_loss == result.loss.nats_per_token
    assert reports[0].valid_loss == RunFolder(tmp_path / "run").metrics()[1].valid_loss
    assert (reports[-1].step, reports[-1].seconds_left) == (20, 0)


def test_validation_is_in_float32(corpus: Corpus, tmp_path: Path) -> None:
    result = train(replace(TINY, precision="bfloat16"), corpus, tmp_path / "run")
    nats = token_losses(load_model(tmp_path / "run"), np.asarray(corpus.valid.tokens)).sum()
    assert result.loss.nats == pytest.approx(nats, rel=1e-7)


def test_a_complete_or_locked_run_makes_no_model(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(TINY, corpus, tmp_path / "run")
    monkeypatch.setattr(FraiLT, "__init__", lambda *_: pytest.fail("a model is made"))
    assert train(TINY, corpus, tmp_path / "run", resume=True) == done
    lock = hold(tmp_path / "busy" / ".lock", "busy")
    with pytest.raises(BusyError):
        train(TINY, corpus, tmp_path / "busy", resume=True)
    lock.release()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you tried"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_one_line_and_other_errors_are_themselves(
    corpus: Corpus, tmp_path: Path, error: Exception
) -> None:
    with pytest.raises(InputError, match=r"out of memory on cpu with batch 4: lower --batch or raise --accumulate"):
        train(TINY, corpus, tmp_path / "run", report=Interrupting(0, error))
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        train(TINY, corpus, tmp_path / "other", report=Interrupting(0, RuntimeError("a mistake of ours")))


def test_compile_without_a_compiler_is_one_line(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nonexistent")
    with pytest.raises(InputError, match=r"finds no C\+\+ compiler \(/nonexistent\); .* or leave out --compile"):
        train(replace(TINY, compile=True, device="cpu"), corpus, tmp_path / "run")


def test_what_a_kill_left_is_removed_at_the_next_start(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".resume.pt.x1.tmp").write_bytes(b"half")
    train(TINY, corpus, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: s | {"step": -1},
        lambda s: s | {"step": 10**9},
        lambda s: s | {"step": True},
        lambda s: s | {"more": 1},
        lambda s: s | {"model": {}},
        lambda s: s | {"model": s["model"] | {"norm.weight": torch.zeros(16, device="meta")}},
        lambda s: s | {"model": s["model"] | {"norm.weight": torch.zeros(17)}},
        lambda s: s | {"model": s["model"] | {"norm.weight": torch.full((16,), math.nan)}},
        lambda s: s | {"optimizer": None},
        lambda s: s | {"optimizer": s["optimizer"] | {"norm.weight": {}}},
        lambda s: with_moment(s, "exp_avg", torch.zeros(3)),
        lambda s: with_moment(s, "exp_avg", torch.zeros(16, dtype=torch.float64)),
        lambda s: with_moment(s, "exp_avg_sq", -torch.ones(16)),
        lambda s: with_moment(s, "step", torch.tensor(3.0)),
        lambda s: s | {"losses": torch.zeros(2, 2)},
    ],
)
def test_a_state_that_is_not_this_run_s_is_refused_before_anything_changes(
    corpus: Corpus, tmp_path: Path, cut: Path, damage: Callable[[dict], dict]
) -> None:
    run = Path(shutil.copytree(cut, tmp_path / "run"))
    torch.save(damage(torch.load(run / "resume.pt", weights_only=True)), run / "resume.pt")
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"resume.pt is damaged"):
        train(LONGER, corpus, run, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == before


def with_moment(state: dict, name: str, value: torch.Tensor) -> dict:
    moments = state["optimizer"]["norm.weight"] | {name: value}
    return state | {"optimizer": state["optimizer"] | {"norm.weight": moments}}


@pytest.fixture(scope="module")
def cut(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after ten steps, and killed later."""
    folder = tmp_path_factory.mktemp("cut") / "run"
    with pytest.raises(RuntimeError):
        train(LONGER, corpus, folder, report=Interrupting(20, RuntimeError()))
    return folder


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"5", "not an object"),
        (b'{"step": 20}', "lacks tokens"),
        (b'{"step": 20, "tokens": 5}', "either a loss or a valid_loss"),
        (b'{"step": 20, "tokens": 5, "loss": NaN, "lr": 1, "tokens_per_second": 1}', "not valid JSON"),
        (b'{"step": -1, "tokens": 5, "valid_loss": 1}', "step is -1"),
        (b'{"step": 1, "tokens": 5, "valid_loss": 1}', "step 1 follows step 20"),
        (b'{"step": 20, "tokens": 5, "valid_loss": 1, "final": true}', "the final line must have"),
        (b'{"step": "20", "tokens": 5, "valid_loss": 1}', "step is '20'"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 10_000, "not valid JSON"),
    ],
)
def test_damaged_metrics_are_one_line_and_nothing_changes(
    corpus: Corpus, tmp_path: Path, cut: Path, line: bytes, message: str
) -> None:
    run = Path(shutil.copytree(cut, tmp_path / "run"))
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(InputError, match=message) as caught:
        train(LONGER, corpus, run, resume=True)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 250
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"config": 5}', '{"config": {}, "data": 5}', '{"config": {}, "data": {}}']
)
def test_a_damaged_record_is_one_line(corpus: Corpus, tmp_path: Path, cut: Path, text: str) -> None:
    run = Path(shutil.copytree(cut, tmp_path / "run"))
    (run / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run.json"):
        train(LONGER, corpus, run, resume=True)
