"""The command line as a user meets it: its help, its output, its complaints, and the README's word."""

import json
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from corpora import make_corpus
from safetensors.torch import load_file, save_file

import frailt
from frailt import cli, options
from frailt.data.storyworld import stories
from frailt.data.tokenizer import Tokenizer
from frailt.evaluation.loss import stream_loss
from frailt.evaluation.text import encode_text
from frailt.inference.cpu.packing import Weights
from frailt.model.checkpoint import load_model
from frailt.models import BEST
from frailt.options import parse, write
from frailt.training.config import TrainConfig
from frailt.training.loop import Training

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TINY = ("--dim", "16", "--heads", "2", "--context", "32")
"""Sizes of a model that trains at once."""
ONE_STEP = ("--tokens", "100", "--vocab-size", "300", "--evaluations", "1", *TINY)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process: its status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = cli.main(list(args))
        except SystemExit as left:  # After --help.
            status = int(left.code or 0)
        found = capsys.readouterr()
        return status, found.out, found.err

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data, a trained model, stories, and models with something wrong."""
    home = tmp_path_factory.mktemp("home")
    make_corpus(home / "data")
    mine = home / "runs" / "mine"
    assert cli.main(["train", "--data", str(home / "data"), "--out", str(mine), "--shape", "1^3", *ONE_STEP]) == 0
    text = "".join(f"{story.text}\n<|endoftext|>\n" for story in stories(3, seed=9))
    (home / "held-out.txt").write_text(text, encoding="utf-8")
    bad = {
        name: Path(shutil.copytree(mine, home / "bad" / name))
        for name in ("cut-config", "odd-key", "cut-weights", "nan", "no-tokenizer", "other-tokenizer", "cut-state")
    }
    config = (mine / "config.json").read_text()
    (bad["cut-config"] / "config.json").write_text(config[:50])
    (bad["odd-key"] / "config.json").write_text(config.replace('"dim"', '"width"'))
    weights = (mine / "model.safetensors").read_bytes()
    (bad["cut-weights"] / "model.safetensors").write_bytes(weights[:-10])
    tensors = load_file(mine / "model.safetensors")
    save_file(tensors | {"norm.weight": tensors["norm.weight"] * torch.nan}, bad["nan"] / "model.safetensors")
    (bad["no-tokenizer"] / "tokenizer.json").unlink()
    Tokenizer.train([text], vocab_size=280).save(bad["other-tokenizer"] / "tokenizer.json")
    (bad["cut-state"] / "resume.pt").write_bytes(b"PK")
    (bad["cut-state"] / "metrics.jsonl").write_text("")
    (home / "latin.txt").write_bytes("Es war ein schöner Tag.".encode("latin-1"))
    (home / "empty.txt").write_text("")
    return home


@pytest.fixture
def home(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder as the current one."""
    monkeypatch.chdir(made)
    return made


# The package's face


def test_exports_are_sorted_and_there() -> None:
    assert sorted(frailt.__all__) == frailt.__all__
    assert set(frailt.__all__) == set(frailt._HOMES)
    for name in frailt.__all__:
        assert getattr(frailt, name) is getattr(import_module(frailt._HOMES[name]), name)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = frailt.lode  # pyright: ignore[reportAttributeAccessIssue]


def test_help_needs_no_torch() -> None:
    script = (
        "import sys, frailt, frailt.cli; frailt.cli.main(['--help']); frailt.cli.main(['--version']); "
        "print(sorted({'torch', 'numpy', 'matplotlib', 'openai', 'pydantic', 'yaml'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert found.stderr == ""


# Help

STORIES = "completions beginnings held-out temperature top-k top-p min-p max-tokens seed"
JUDGE = "judge base-url judge-temperature concurrency timeout max-calls"
TRAINING = (
    "tokens batch accumulate passes late precision compile device seed evaluations eval-tokens checkpoint-seconds "
    "shape dim heads kv-heads hidden-dim multiple-of vocab-size context encoding no-tied rope-theta norm-eps optimizer "
    "lr muon-lr momentum beta1 beta2 weight-decay looped-decay clip warmup schedule cooldown"
)
OPTIONS = {
    "prepare": "out text valid hub world seed tokenizer vocab-size valid-fraction",
    "train": f"preset start data out sharding resume {TRAINING}",
    "sweep": f"vary preset data out plan report minutes jobs on {TRAINING}",
    "compare": "shapes dim tokens seeds data out optimizer lr batch context heads kv-heads precision compile device",
    "reproduce": "widths shapes seeds budget data out plan report minutes jobs on optimizer lr batch context heads "
    "precision compile device",
    "evaluate": "text tokenizer passes device json",
    "story": "model tokenizer passes exit temperature top-k top-p min-p max-tokens seed device weights",
    "judge grade": f"out prompt estimate again valid tokenizer device {STORIES} {JUDGE}",
    "judge calibrate": f"out prompt estimate again stories held-out {JUDGE}",
    "judge pairwise": f"out estimate again tokenizer device {STORIES} {JUDGE}",
    "judge offline": f"out text reference probes valid tokenizer device {STORIES}",
    "plan": "shape dim heads kv-heads hidden-dim multiple-of vocab-size context encoding no-tied rope-theta norm-eps",
    "info": "",
    "export": "to out tokenizer passes weights",
}
REQUIRED = {"prepare": 1, "evaluate": 2, "info": 1, "export": 3}


@pytest.mark.parametrize("command", OPTIONS)
def test_help_names_every_option(run: Run, command: str) -> None:
    verb, *second = command.split()
    status, out, err = run(verb, *second, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: frailt {command} ")
    assert second or f"\n\n{cli.COMMANDS[command].__doc__}\n\n" in out
    named = set(re.findall(r"^[│ ] +(?:-h, )?--([a-z][\w-]*)", out, re.MULTILINE))
    assert named == {"help", *OPTIONS[command].split()}
    assert out.count("(required)") == REQUIRED.get(command, 0)
    assert max(map(len, out.splitlines()[1:])) <= 80


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_general_help(run: Run, args: tuple[str, ...]) -> None:
    status, out, err = run(*args)
    assert (status, err) == (0, "")
    assert set(cli.COMMANDS) == {command.split()[0] for command in OPTIONS}
    for name, command in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.__doc__ or '')}$", out, re.MULTILINE)


def test_help_of_the_judge_names_its_commands(run: Run) -> None:
    status, out, err = run("judge", "--help")
    assert (status, err) == (0, "")
    commands = {command.split()[1] for command in OPTIONS if command.startswith("judge ")}
    assert set(re.findall(r"^  (\w+)  ", out, re.MULTILINE)) == commands
    assert max(map(len, out.splitlines())) <= 80


def test_version(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version") == (0, f"frailt {version('frailt')}\n", "")


# What is typed


@pytest.mark.parametrize(
    ("words", "tokens"),
    [
        ("--tokens 4M", 4_000_000),
        ("--tokens 250k", 250_000),
        ("--tokens 1.5m", 1_500_000),
        ("--tokens 6.55B", 6_550_000_000),
        ("--tokens 1234", 1234),
    ],
)
def test_token_counts_have_units(words: str, tokens: int) -> None:
    assert parse(TrainConfig, "train", words.split(), None).tokens == tokens


def test_options_may_be_written_with_an_equals_sign(run: Run, home: Path, tmp_path: Path) -> None:
    """And sizes that follow from others follow what is given, not what the preset had."""
    words = (
        f"train --preset=demo --data=data --out={tmp_path / 'run'} --tokens=0.1k --eval-tokens=2k --dim=16 --heads=2"
    )
    assert run(*words.split(), "--context=32", "--vocab-size=300")[0] == 0
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert (config["tokens"], config["eval_tokens"]) == (100, 2000)
    assert (config["batch"], config["evaluations"], config["model"]["shape"]) == (8, 5, "1^8"), "the preset's"
    sizes = frailt.load(tmp_path / "run").config
    assert (sizes.key_value_heads, sizes.feed_forward_dim) == (2, 44), "not those of width 64 and 8 heads"


NO_DEVICE = "cuda" if not torch.cuda.is_available() else "mps"

BAD = [
    ("tell", "there is no command 'tell'; choose one of prepare, train"),
    ("--verbose", "there is no command '--verbose'"),
    # Options
    ("plan --dmi 64", r"there is no option --dmi; perhaps --dim; see `frailt plan --help`"),
    ("plan --dim wide", r"--dim 'wide' is not a whole number; .*; see `frailt plan --help`"),
    ("plan --dim", r"--dim has no value"),
    (
        "train --tokens many",
        r"--tokens 'many' is not a whole number; write one like 8, 250k or 4M; see `frailt train --help`",
    ),
    ("train --preset huge", r"--preset 'huge' is not one of paper, llama2c, demo"),
    ("story --weights int4", r"--weights 'int4' is not one of"),
    ("story --device abacus", r"--device 'abacus' is not one of"),
    ("story Once upon a time", r"'upon' is not expected here; put a text or a name that has spaces in quotes"),
    ("story -Hello", r"there is no option -Hello; a text that begins with a dash goes last, after --"),
    ("prepare --text a.txt --out x --text b.txt", r"--text is given twice; give it once, with all its values after it"),
    ("prepare --valid a.txt --out x --valid=b.txt", r"--valid is given twice"),
    ("evaluate runs/mine --text ~nobody-here/a.txt", r"--text '~nobody-here/a.txt' names no user with a home folder"),
    (f"plan --dim {'9' * 4000}", r"--dim '9{79}…' is not a whole number"),
    (f"story {'x' * 4000} {'y' * 4000}", r"'y{79}…' is not expected here"),
    (f"plan --{'x' * 4000}", r"there is no option --x{77}…"),
    (f"plan --lr {'x' * 4000}", r"there is no option --lr"),
    ("evaluate", r"model and --text must be given; see `frailt evaluate --help`"),
    ("prepare --world 3", r"--out must be given; see"),
    # Values
    ("plan --shape 2^^4", r"shape '2\^\^4' is not understood at '2\^\^4'; write 8"),
    ("plan --shape 8", r"shape 8 is a standard model and has no twins"),
    ("plan --dim 7", r"dim 7 with 8 heads gives no even head width; make dim a multiple of 16"),
    ("train --lr nan", r"lr is nan; it must be above 0"),
    ("train --seed -1", r"seed is -1; it must be from 0"),
    ("story --top-k 0 --model runs/mine", r"top_k is 0; it must be at least 1"),
    ("story --passes 0 --model runs/mine", r"passes 0 do not fit shape 1\^3"),
    ("story --exit cos:0.1 --model runs/mine", r"exit 'cos:0.1' is not understood; write l2:0.05"),
    ("story --exit l2:0.1:1 --model runs/mine", r"least passes before an exit are 1; they must be at least 2"),
    ("prepare --out x", r"give exactly one source"),
    ("compare --data data --seeds 1,b", r"seeds '1,b' are not whole numbers joined by commas"),
    ("compare --data data --seeds 0,-1", r"seed is -1"),
    ("compare --data data --shapes 1,1", r"a shape or a seed is listed twice"),
    ("compare --data data --shapes 1,x", r"shape 'x' is not understood"),
    ("compare --data data --shapes 1^2:odd", r"model '1\^2:odd': encoding is 'odd', which is not of type"),
    ("compare --data data --heads 3", r"dim 64 with 3 heads gives no even head width"),
    ("sweep --data data", r"--vary must be given, like --vary lr=1e-3,2e-3"),
    ("sweep --vary depth=3", r"--vary 'depth=3' is not understood; write a setting and values, like lr=1e-3,2e-3"),
    ("sweep --vary lr=1e-3,x", r"--lr 'x' is not a number"),
    ("sweep --vary tied=true,no", r"tied is true or false, not 'true,no'"),
    ("sweep --vary lr=1e-3 --vary optimizer.lr=2e-3", r"a setting is varied twice"),
    ("sweep --vary lr=1e-3,0.001", r"lr has a value twice; list each once"),
    ("sweep --data data --vary batch=4,5 --accumulate 2", r"accumulate 2 must divide batch 5"),
    ("sweep --data data --vary seed=0 --out data", r"data holds other files and no "),
    (
        "reproduce --data data --budget soon",
        r"budget 'soon' is not understood; write tokens like 4M or 64:10M,256:4M, or min",
    ),
    ("reproduce --data data --budget 64:4M,64:5M", r"budget '64:4M,64:5M' has a width twice; list each once"),
    ("reproduce --data data --budget 64:4M,128", r"budget '64:4M,128' is not understood; write tokens like 4M or 64:"),
    ("reproduce --data data --budget 64:4M", r"the budget has no tokens for width 128; add 128:TOKENS"),
    ("reproduce --data data --budget 0", r"budget is 0; it must be above 0"),
    ("reproduce --data data --widths 64,x", r"widths '64,x' are not whole numbers joined by commas"),
    ("reproduce --data data --widths 64,100", r"dim 100 with 8 heads gives no even head width"),
    ("reproduce --data data --jobs 0", r"jobs is 0; it must be above 0"),
    (
        "reproduce --data data --report --out absent",
        r"absent holds no complete run of this protocol and data",
    ),
    ("reproduce --data data --out data", r"data holds other files and no study; choose another --out"),
    (f"evaluate runs/mine --text held-out.txt --device {NO_DEVICE}", rf"device {NO_DEVICE} is not available here"),
    ("export runs/mine --to onnx --out x", r"--to 'onnx' is not one of transformers, gguf"),
    ("export runs/mine --to gguf --out x --passes 0", r"passes 0 do not fit shape 1\^3"),
    ("export runs/mine --to gguf", r"--out must be given; see"),
    ("export runs/mine --to gguf --out x --passes 99999999", r"passes 99999999 make shape 1\^3 deeper than \d+ blocks"),
    ("story --model runs/mine --passes 99999999", r"passes 99999999 make shape 1\^3 deeper than \d+ blocks"),
    ("export runs/mine --to transformers --out x --weights int8", r"--weights is for gguf; leave it out"),
    # Files
    ("export nowhere --to gguf --out x", r"nowhere holds no model"),
    ("export runs/mine --to gguf --out held-out.txt", r"held-out.txt exists already; choose another --out"),
    ("export runs/mine --to transformers --out data", r"data exists already; choose another --out"),
    ("train --data nowhere", r"nowhere holds no manifest.json; make the folder with `frailt prepare`"),
    ("compare --data runs/mine", r"runs/mine holds no manifest.json"),
    (
        "train --data data --vocab-size 512",
        r"the model has vocab_size 512, the tokenizer of data has 300; set vocab_size to 300",
    ),
    ("info nowhere", r"nowhere holds no model; give a run folder"),
    ("info held-out.txt", r"held-out.txt holds no model"),
    ("story --model nowhere", r"nowhere holds no model"),
    ("info bad/cut-config", r"config.json is not valid JSON"),
    ("info bad/odd-key", r"config.json has a setting 'width' that this version of frailt does not know"),
    ("info bad/cut-weights", r"model.safetensors cannot be read"),
    ("evaluate bad/nan --text held-out.txt", r"bad/nan"),
    ("evaluate bad/nan --text held-out.txt --json", r"bad/nan"),
    ("story --model bad/no-tokenizer", r"no-tokenizer holds no tokenizer.json, tok\*.model or tok\*.bin"),
    (
        "story --model bad/other-tokenizer",
        r"other-tokenizer has a vocabulary of 300, its tokenizer 280; give the right one with",
    ),
    ("evaluate runs/mine --text absent.txt", r"absent.txt does not exist"),
    ("evaluate runs/mine --text latin.txt", r"latin.txt is not UTF-8 text"),
    ("evaluate runs/mine --text empty.txt", r"empty.txt holds no story"),
    ("evaluate runs/mine --text runs", r"runs is a folder; name the text files in it"),
    ("prepare --text absent.txt --out x", r"absent.txt does not exist"),
    ("prepare --world 3 --out runs", r"runs exists and is not a prepared folder; choose another"),
    ("prepare --world 3 --out x --tokenizer held-out.txt", r"held-out.txt is no tokenizer"),
    (
        f"train --data data --out runs/mine --shape 1^3 {shlex.join(ONE_STEP)}",
        r"mine holds a run already; add --resume",
    ),
    (
        f"train --data data --out runs/mine --shape 1^3 {shlex.join(ONE_STEP)} --seed 7 --resume",
        r"runs/mine holds a run with another seed \(0, now 7\); use its value or another --out",
    ),
    (f"train --data data --out data --shape 1^3 {shlex.join(ONE_STEP)}", r"data holds other files and no run"),
    (f"train --data data --out bad/cut-state --shape 1^3 {shlex.join(ONE_STEP)} --resume", r"resume.pt is damaged"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gives_one_clear_line(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.setattr(Training, "train_step", lambda _: pytest.fail("it is trained all the same"))
    before = sorted(home.rglob("*"))
    status, out, err = run(*shlex.split(line))
    assert (status, out) == (2, "")
    assert re.fullmatch(rf"frailt: (?:\S*/)?{message}.*\n", err), err
    assert sorted(home.rglob("*")) == before, "nothing is written"


def test_a_tyro_without_error_objects_prints_its_own_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "tyro_errors", None)
    status, out, err = run("plan", "--dmi", "64")
    assert (status, out) == (2, "")
    assert "--dmi" in err


def test_warnings_of_a_good_run_are_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Noisy:
        def __post_init__(self) -> None:
            print("mind this", file=sys.stderr)

    monkeypatch.setattr(cli.COMMANDS["info"], "run", lambda args: parse(Noisy, "info", args, None))
    assert run("info") == (0, "", "mind this\n")


def test_what_the_system_refuses_gives_one_line_too(run: Run, home: Path) -> None:
    status, out, err = run("prepare", "--world", "3", "--out", "held-out.txt/x")
    assert (status, out) == (1, "")
    assert re.fullmatch(r"frailt: [^:]+: held-out.txt/x\n", err), f"the folder as it was given: {err}"


# Commands


def test_evaluate_gives_what_the_python_api_gives(run: Run, home: Path) -> None:
    status, out, err = run("evaluate", "runs/mine", "--text", "held-out.txt", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    teller = frailt.load("runs/mine")
    tokens, size = encode_text([Path("held-out.txt")], teller.tokenizer)
    expected = stream_loss(load_model(Path("runs/mine")), tokens, text_bytes=size)
    assert found["nats_per_token"] == expected.nats_per_token
    assert found["bits_per_byte"] == expected.bits_per_byte
    assert (found["tokens"], found["bytes"]) == (expected.tokens, expected.bytes)
    status, out, _ = run("evaluate", "runs/mine", "--text", "held-out.txt")
    assert f"{expected.nats_per_token:.4f} nats/token, {expected.bits_per_byte:.4f} bits/byte" in out


def test_evaluate_with_passes_has_twice_as_many_as_trained(run: Run, home: Path) -> None:
    args = ("evaluate", "runs/mine", "--text", "held-out.txt", "--passes")
    found = json.loads(run(*args, "--json")[1])
    assert found["trained_passes"] == 3
    assert [row["passes"] for row in found["passes"]] == [1, 2, 3, 4, 5, 6]
    assert found["passes"][2]["nats_per_token"] == pytest.approx(found["nats_per_token"], rel=1e-6)
    assert found["passes"][0]["kl"] is None
    lines = run(*args)[1].splitlines()
    assert lines[1].split() == ["passes", "nats/token", "bits/byte", "relative", "L2", "KL"]
    assert [line.split()[0] for line in lines[2:]] == list("123456")
    assert [line.endswith("(as trained)") for line in lines[2:]] == [False, False, True, False, False, False]
    for line, row in zip(lines[2:], found["passes"], strict=True):
        assert line.split()[1] == f"{row['nats_per_token']:.4f}"
    assert max(map(len, lines)) <= 80


def test_story_tells_what_the_python_api_tells(run: Run, home: Path) -> None:
    teller = frailt.load("runs/mine")
    options = ("--max-tokens", "20", "--seed", "7", "--temperature", "0.9")
    sampling = frailt.Sampling(max_tokens=20, seed=7, temperature=0.9)
    status, out, err = run("story", "One day ", "--model", "runs/mine", *options)
    assert (status, err) == (0, "")
    assert out == "One day" + teller.generate(["One day"], sampling)[0] + "\n"
    fewer = run("story", "One day", "--model", "runs/mine", *options, "--passes", "1")[1]
    assert fewer == "One day" + teller.generate(["One day"], sampling, iterations=1)[0] + "\n"
    assert fewer != out
    rule = frailt.EarlyExit(threshold=1000)
    options, sampling = (*options, "--max-tokens", "200"), replace(sampling, max_tokens=200)
    early = run("story", "One day", "--model", "runs/mine", *options, "--exit", "l2:1000")[1]
    assert early == "One day" + teller.generate(["One day"], sampling, early_exit=rule)[0] + "\n"
    assert early != run("story", "One day", "--model", "runs/mine", *options)[1]
    assert run("story", "--model", "runs/mine", *options)[1].startswith("Once upon a time")


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_story_with_fewer_bits(run: Run, home: Path, weights: Weights) -> None:
    sampling = frailt.Sampling(max_tokens=20, temperature=0)
    expected = frailt.load("runs/mine", weights=weights).generate(["One day"], sampling)[0]
    options = ("--max-tokens", "20", "--temperature", "0", "--weights", weights)
    assert run("story", "One day", "--model", "runs/mine", *options) == (0, f"One day{expected}\n", "")


def test_story_needs_no_torch_on_a_cpu(home: Path) -> None:
    script = (
        "import sys; from frailt.cli import main; main(['story', '--model', 'runs/mine', '--max-tokens', '3']); "
        "sys.exit(sorted({'torch', 'scipy', 'matplotlib', 'zstandard'} & sys.modules.keys()) or None)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")


def test_export_says_what_it_wrote(run: Run, home: Path, tmp_path: Path) -> None:
    for to in ("transformers", "gguf"):
        status, out, err = run("export", "runs/mine", "--to", to, "--out", str(tmp_path / to))
        assert (status, err) == (0, "")
        assert re.fullmatch(rf".*/{to}: shape 1\^3 as a Llama of 3 layers, 0.\d\d MB, float32\n", out), out
    more = run("export", "runs/mine", "--to", "gguf", "--out", str(tmp_path / "more"), "--passes", "5")[1]
    assert "as a Llama of 5 layers" in more
    assert (tmp_path / "gguf").is_file()
    assert (tmp_path / "transformers" / "tokenizer_config.json").is_file()


def test_story_takes_the_newest_run(run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = run("story", "--max-tokens", "20")
    assert shipped[0] == 0
    assert shipped[1].startswith("Once upon a time, there was a ")
    assert shipped[2] == "no model in runs/: using tinystories-5x2, which comes with frailt\n"
    for name, written in (("runs/a", 1000), ("runs/compare/runs/b", 3000), ("runs/c", 2000)):
        folder = shutil.copytree(home / "runs" / "mine", tmp_path / name)
        weights = load_file(folder / "model.safetensors")
        weights["embedding.weight"] = weights["embedding.weight"] * (written / 500)
        save_file(weights, folder / "model.safetensors")
        os.utime(folder / "model.safetensors", (written, written))
    texts = {name: run("story", "--max-tokens", "20", "--model", f"runs/{name}")[1] for name in ("a", "c")}
    status, newest, err = run("story", "--max-tokens", "20")
    assert (status, err) == (0, "using runs/compare/runs/b\n")
    assert newest == run("story", "--max-tokens", "20", "--model", "runs/compare/runs/b")[1]
    assert newest not in texts.values()
    metrics = tmp_path / "runs" / "compare" / "runs" / "b" / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    assert run("story", "--max-tokens", "1")[2] == "using runs/compare/runs/b, whose training is not complete\n"
    metrics.write_bytes(b"\xff" + metrics.read_bytes())
    assert run("story", "--max-tokens", "1")[::2] == (0, "using runs/compare/runs/b, whose training is not complete\n")


def test_story_says_where_passes_go_beyond_the_shape(run: Run, home: Path) -> None:
    options = ("story", "--model", "runs/mine", "--max-tokens", "1", "--passes")
    assert run(*options, "3")[2] == ""
    assert run(*options, "4")[2].startswith("more passes than shape 1^3 has;")
    assert run(*options, "2", "--exit", "l2:0.15")[2].startswith(
        "--exit changes nothing: by this rule no token leaves 1^3"
    )


def test_story_says_where_exits_meet_a_model_that_did_not_learn_them(run: Run, home: Path, tmp_path: Path) -> None:
    saved = shutil.copytree(home / "runs" / "mine", tmp_path / "saved")
    options = ("story", "--model", str(saved), "--max-tokens", "1")
    note = "this model was trained with fixed passes; --exit is for those of --passes random\n"
    assert run(*options)[2] == ""
    assert run(*options, "--exit", "l2:0.15")[2] == note
    record = json.loads((saved / "run.json").read_text())
    del record["config"]["passes"]  # An early version had no others.
    (saved / "run.json").write_text(json.dumps(record))
    assert run(*options, "--exit", "l2:0.15")[2] == note
    record["config"]["passes"] = "random"
    (saved / "run.json").write_text(json.dumps(record))
    assert run(*options, "--exit", "l2:0.15")[2] == ""
    (saved / "run.json").unlink()
    assert run(*options, "--exit", "l2:0.15")[2] == ""


def test_info(run: Run, home: Path) -> None:
    status, out, err = run("info", "runs/mine")
    assert (status, err) == (0, "")
    model = load_model(Path("runs/mine"))
    assert "shape 1^3: effective depth 3, width 16, 2 heads" in out
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in out
    assert "trained on data, seed 0: validation loss" in out
    assert "not complete" in run("info", "bad/cut-state")[1]
    shutil.copytree("runs/mine", "runs/bare", ignore=shutil.ignore_patterns("run.json", "metrics.jsonl"))
    try:
        assert "trained" not in run("info", "runs/bare")[1]
    finally:
        shutil.rmtree("runs/bare")


@pytest.mark.parametrize("options", ["--shape 1^8 --dim 128", "--shape 2^4 --dim 1024", "--shape (2)^4 --dim 16"])
def test_plan_shows_whole_cells_on_a_narrow_terminal(run: Run, options: str) -> None:
    status, out, err = run("plan", *options.split())
    assert (status, err) == (0, "")
    for rule in ("the model", "shallow", "equal depth", "equal parameters", "equal FLOPs"):
        assert f"\n{rule}  " in out
    assert max(map(len, out.splitlines()[1:])) <= 80
    assert "…" not in out


def test_compare_shows_whole_cells_on_a_narrow_terminal(run: Run, home: Path, tmp_path: Path) -> None:
    shapes = "1, 1^8:none, 8"  # Spaces after commas are no part of a name.
    args = ("--shapes", shapes, *TINY, "--tokens", "100", "--data", "data", "--out", str(tmp_path / "c"))
    status, out, err = run("compare", *args)
    assert status == 0
    lines = out.splitlines()
    header = ["shape", "depth", "params", "MFLOPs", "loss", "bits/byte", "gap closed", "paper", "tok/s"]
    assert re.split(r"  +", lines[0]) == header
    assert [line.split()[0] for line in lines[1:4]] == ["1", "1^8:none", "8"]
    assert max(map(len, lines[:-1])) <= 80
    assert "…" not in out
    assert lines[-1] == (
        f"Figure: {tmp_path}/c/compare.png   Table: {tmp_path}/c/table.md   All figures: {tmp_path}/c/compare.json"
    )
    assert "Traceback" not in err


def test_reproduce_plans_then_trains_then_has_nothing_left_to_do(run: Run, home: Path, tmp_path: Path) -> None:
    small = ("--widths", "16", "--heads", "2", "--context", "32", "--shapes", "1,1^2", "--budget", "300", "--jobs", "1")
    args = ("reproduce", *small, "--data", "data", "--out", str(tmp_path / "grid"))
    status, out, err = run(*args, "--plan")
    assert (status, err) == (0, "measuring how fast this machine trains (some seconds)\n")
    lines = out.splitlines()
    assert lines[0].split() == ["model", "depth", "parameters", "MFLOPs", "memory", "time"]
    assert [line.split()[:2] for line in lines[1:3]] == [["d16-1x2-s0", "2"], ["d16-1-s0", "1"]]
    assert re.fullmatch(
        r"2 of 2 models to train, each with 384 tokens; up to 1 at once take about \d+:\d\d:\d\d on this machine, "
        r"by the fastest of some steps: other work beside them makes it longer",
        lines[3],
    )
    assert not (tmp_path / "grid").exists()
    status, out, err = run(*args)
    assert status == 0
    assert out.splitlines()[-1].startswith(f"Report: {tmp_path}/grid/report.html, {tmp_path}/grid/report.md, ")
    assert err.endswith("grid: 2/2 models, 100.0%, 0:00:00 left\n")
    status, out, err = run(*args, "--plan")
    assert (status, err) == (0, "")
    assert [line.split()[-1] for line in out.splitlines()] == ["time", "complete", "complete", "complete"]


def test_what_was_prepared_before_is_said_so(run: Run, tmp_path: Path) -> None:
    args = ("prepare", "--world", "20", "--valid-fraction", "0.3", "--vocab-size", "300", "--out", str(tmp_path / "d"))
    status, out, err = run(*args)
    assert (status, err) == (0, "")
    assert re.fullmatch(r".*/d: \d+ training stories \([\d,]+ tokens\), \d+ for validation \([\d,]+ tokens\)\n", out), (
        out
    )
    assert run(*args)[1] == out.replace(")\n", "), prepared before\n")


# Terminals, streams and names as they are


def test_what_a_terminal_cannot_show_is_replaced(home: Path) -> None:
    script = (
        "import sys; from frailt.cli import main; "
        "sys.exit(main(['story', 'H\u00e9llo', '--model', 'runs/mine', '--max-tokens', '2', '--temperature', '0']))"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    child = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert (child.returncode, child.stderr) == (0, b"")
    assert child.stdout.startswith(b"H?llo")


def test_control_characters_do_not_reach_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b[2J\x07\x08\x7f\x9b\tb\u00a0\U0001f469\u200d\U0001f680\n"
    write(text)
    assert capsys.readouterr().out == text, "a file or a pipe gets everything"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        write(text)
    assert capsys.readouterr().out == "a[2J\tb\u00a0\U0001f469\u200d\U0001f680\n"


@pytest.mark.parametrize("args", ["--version", f"info {BEST}", "info nowhere"])
def test_a_closed_stream_is_no_error(home: Path, args: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m frailt {args} >&-"
    child = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert child.returncode == (2 if "nowhere" in args else 0)
    assert child.stderr.count("\n") == child.returncode // 2
    assert subprocess.run(["sh", "-c", f"{command} 2>&-"], check=False).returncode == child.returncode


def test_a_file_name_need_not_be_utf8(run: Run, home: Path, tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.txt")
    try:
        shutil.copy("held-out.txt", name)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert run("evaluate", "runs/mine", "--text", name) == run("evaluate", "runs/mine", "--text", "held-out.txt")
    status, out, err = run("evaluate", "runs/mine", "--text", name + "x")
    assert (status, out) == (2, "")
    assert err.endswith("caf\N{REPLACEMENT CHARACTER}.txtx does not exist\n")
    Path(name).write_text("A cat ran home.\n<|endoftext|>\nA dog sat.\n", encoding="utf-8")
    prepare = (
        "prepare",
        "--text",
        name,
        "--valid",
        "held-out.txt",
        "--vocab-size",
        "280",
        "--out",
        str(tmp_path / "d"),
    )
    assert run(*prepare)[0] == 0
    assert run(*prepare)[1].endswith(", prepared before\n")
    assert run("story", os.fsdecode(b"caf\xe9"), "--model", "runs/mine", "--max-tokens", "1")[1].startswith("caf?")


def test_a_tilde_is_the_home_folder(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    assert run("info", "~/runs/mine") == run("info", "runs/mine")
    assert run("evaluate", "runs/mine", "--text=~/absent.txt")[2] == f"frailt: {home}/absent.txt does not exist\n"


def test_a_value_after_an_equals_sign_may_begin_with_a_dash(run: Run, home: Path) -> None:
    assert run("evaluate", "runs/mine", "--text=-x")[2] == "frailt: -x does not exist\n"
    assert run("story", "--model=runs/mine", "--max-tokens=1", "--", "--Hello")[1].startswith("--Hello")


def test_a_notebooks_matplotlib_backend_has_no_say(home: Path, tmp_path: Path) -> None:
    """`!frailt train` in a notebook inherits a backend that this environment may not have."""
    environment = {**os.environ, "MPLBACKEND": "module://no_such_package.backend_inline"}
    script = (
        "import sys; from pathlib import Path; from frailt.training.metrics import draw_losses, read_metrics; "
        "draw_losses(read_metrics(Path('runs/mine/metrics.jsonl')), Path(sys.argv[1]), title='mine')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "loss.png")]
    child = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert child.returncode == 0, child.stderr
    assert (tmp_path / "loss.png").is_file()


@pytest.mark.parametrize(
    "error", [RuntimeError("broken\nby a kernel"), RecursionError("too deep"), KeyError("x" * 999)]
)
def test_an_error_that_nobody_foresaw_is_one_line_and_a_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: list[str]) -> None:
        raise error

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cli.COMMANDS["info"], "run", fail)
    status, out, err = run("info", "x")
    assert (status, out) == (70, "")
    assert err.count("\n") == 1
    assert len(err) < 500
    assert err.startswith(f"frailt: an error in frailt: {type(error).__name__}: ")
    [file] = tmp_path.iterdir()
    assert f" {file}\n" in err
    assert "in fail\n    raise error" in file.read_text(encoding="utf-8")
    monkeypatch.setenv("FRAILT_DEBUG", "1")
    assert "in fail\n    raise error" in run("info", "x")[2]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_the_machine_lacks_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: list[str]) -> None:
        raise MemoryError

    monkeypatch.setattr(cli.COMMANDS["info"], "run", fail)
    status, _, err = run("info", "x")
    assert status == 1
    assert re.fullmatch(r"frailt: there is not enough memory for this; .*\n", err)


def test_a_message_is_one_line_whatever_it_quotes(run: Run) -> None:
    status, _, err = run("info", "a\nb\x1b[2J" + "x" * 5000)
    assert status in (1, 2)
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert len(err) < 700


# Being stopped


@pytest.mark.parametrize(
    ("command", "advice"),
    [("train", "; add --resume to go on"), ("compare", "; the same command goes on from here")],
)
def test_ctrl_c_gives_one_line(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, advice: str
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    args = {"train": ("--shape", "1^3", *ONE_STEP), "compare": ("--tokens", "100", *TINY)}[command]
    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_step", stop)
        status, out, err = run(command, "--data", "data", "--out", str(tmp_path / "run"), *args)
    assert (status, out) == (130, "")
    assert err == f"\nfrailt: stopped{advice}\n"


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    """As in `frailt story | head -c 1`, with the pipe closed from the start so that no chance is in it."""
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    for args in (["--help"], ["plan", "--help"], ["story", "--model", "runs/mine", "--max-tokens", "3"]):
        script = f"import sys; from frailt.cli import main; sys.exit(main({args!r}))"
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as out:
            child = subprocess.run(
                [sys.executable, "-c", script],
                env=environment,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (child.returncode, child.stderr) == (1, ""), args


# The README


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_a_newcomer_needs_two_commands() -> None:
    install, try_out = ([shlex.split(line, comments=True) for line in block.splitlines()] for block in blocks("sh")[:2])
    assert install == [["pip", "install", "."]]
    assert try_out == [["make", "demo"], ["make", "test"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for _, target in try_out:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_command_of_the_readme_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "\n<|endoftext|>\n".join(story.text for story in stories(300, seed=0))
    Path("stories.txt.xz").write_bytes(lzma.compress(text.encode()))
    Path("held-out.txt").write_text(text[:2000], encoding="utf-8")
    small = {"4M": ["100"], "64": [TINY[1], *TINY[2:]]}
    seen = []
    for line in "".join(blocks("sh")[2:]).splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "frailt"
        words = [word for given in words for word in small.get(given, [given])]
        status, out, err = run(*words)
        assert status == 0, (line, err)
        assert out, line
        seen.append(words[0])
    assert set(seen) == set(cli.COMMANDS)
    [snippet] = blocks("python")
    exec(compile(snippet, "README.md", "exec"), {})
