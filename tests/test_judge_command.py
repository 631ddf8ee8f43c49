"""`frailt judge` from its command line to its files, against a server on this machine."""

import json
import re
import shutil
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import Handler, JudgeServer, arguments, error, grade, judge_server
from models import tiny

from frailt import cli
from frailt import console as progress
from frailt.data.storyworld import stories
from frailt.data.tokenizer import Tokenizer
from frailt.evaluation.judge import asking as judge_run
from frailt.evaluation.judge.checks import REAL, SPOILED, both_orders, calibration, preference
from frailt.evaluation.judge.grading import METRICS
from frailt.files import write_json
from frailt.inference.storyteller import Storyteller, Token
from frailt.model.checkpoint import save_model
from frailt.paper import grades_report
from frailt.reports import html_page
from frailt.training.metrics import Metrics
from frailt.training.run_folder import RunFolder

KEY = "sk-test-0123456789abcdef"
WRITE = ("--completions", "5", "--max-tokens", "12")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small models, as runs leave them, and text."""
    home = tmp_path_factory.mktemp("home")
    text = "".join(f"{story.text}\n<|endoftext|>\n" for story in stories(30, seed=9))
    (home / "held-out.txt").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.train([text], vocab_size=300)
    for shape, name in (("1", "plain"), ("1^2", "frailt")):
        folder = home / "runs" / name
        save_model(tiny(shape, vocab_size=300, context=64), folder)
        tokenizer.save(folder / "tokenizer.json")
        write_json(folder / "run.json", {"config": {}, "data": {"name": "some-data", "train": "", "valid": ""}})
        RunFolder(folder).log(Metrics(step=9, tokens=9, valid_loss=1.75, nats=3.5, targets=2, final=True))
    return home


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, models: Path) -> Iterator[JudgeServer]:
    monkeypatch.chdir(models)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with judge_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield server


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, at half a second a report, only for the test that looks at them."""
    if request.function is not test_models_are_graded_from_start_to_report:
        for name in ("draw_figure_6", "draw_figure_7"):
            monkeypatch.setattr(grades_report, name, lambda ours, paper, path: path.write_bytes(b""))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main(["judge", *args])
        found = capsys.readouterr()
        return status, found.out, found.err

    return run


def strict(handler: Handler) -> None:
    """Grades that follow from the length of the exercise alone, and a preference for what stands first."""
    text = handler.request_json["messages"][0]["content"]
    if handler.request_json["tool_choice"]["function"]["name"] == "choose_completion":
        arguments({"assessment": "Close.", "better": "first"})(handler)
        return
    grade(**{metric: 1 + zlib.crc32((metric + text).encode()) % 10 for metric in METRICS})(handler)


def test_models_are_graded_from_start_to_report(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    server.usual = strict
    out = tmp_path / "judged"
    args = ("runs/plain", "runs/frailt", "--out", str(out), *WRITE)
    status, shown, err = run(*args)
    assert status == 0
    assert len(server.requests) == 10
    found = json.loads((out / "judge.json").read_text())
    lines = [json.loads(line) for line in (out / "replies.jsonl").read_text().splitlines()]
    assert [model["name"] for model in found["models"]] == ["plain", "frailt"]
    for model in found["models"]:
        own = [line["answer"] for line in lines if line["source"] == model["name"]]
        assert len(own) == 5
        for metric in METRICS:
            grades = model["grades"][metric]
            assert grades["value"] == pytest.approx(sum(answer[metric] for answer in own) / 5)
            assert grades["interval"][0] <= grades["value"] <= grades["interval"][1]
        assert model["grades"]["average"]["value"] == pytest.approx(
            sum(model["grades"][metric]["value"] for metric in METRICS) / 4
        )
    assert found["models"][0]["loss"] == 1.75
    assert found["models"][0]["loss_of"] == "its run, on some-data"
    assert found["prompt"]["version"] == lines[0]["prompt"]["version"]
    assert found["provenance"]["frailt"]
    assert found["power_laws"]["own"]["average"]["all"] is None, "both lie above a loss of 1.0"
    assert round(found["power_laws"]["paper"]["average"]["all"]["exponent"], 2) == -1.88
    text = (out / "judge.md").read_text(encoding="utf-8")
    for heading in ("## Table 4", "## Table 5", "figure-6.png", "figure-7.png", "## The paper's claims"):
        assert heading in text
    assert "| 16 | 1 / 1^8 |" in text
    for figure in ("figure-6.png", "figure-7.png"):
        assert (out / figure).read_bytes().startswith(b"\x89PNG")
    assert shown.splitlines()[0].split()[:3] == ["model", "shape", "width"]
    assert "not measured: " in shown
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    # Again: nothing is asked, nothing is written anew, and the figures are the same.
    again = run(*args)
    assert again[:2] == (0, shown)
    assert len(server.requests) == 10
    assert json.loads((out / "judge.json").read_text())["models"] == found["models"]
    assert KEY not in err + shown + again[2]
    for path in out.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_an_estimate_asks_nothing(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "judged"
    args = ("runs/plain", "--out", str(out), *WRITE)
    status, shown, _ = run(*args, "--estimate")
    assert status == 0
    assert shown.startswith("5 calls, about ")
    assert shown.endswith("price unknown\n")
    assert server.requests == []
    assert not out.exists()
    assert run(*args, "--valid", "held-out.txt")[0] == 0
    assert json.loads((out / "judge.json").read_text())["models"][0]["loss_of"] == "held-out.txt"
    assert run(*args, "--estimate")[1].startswith("0 calls, about 0 tokens")
    assert run("calibrate", "--out", str(out), "--stories", "3", "--estimate")[1].startswith("33 calls")
    line = run("pairwise", "runs/plain", "runs/frailt", "--out", str(out), *WRITE, "--estimate")[1]
    assert line.startswith("10 calls")


def test_a_bounded_run_says_how_to_go_on(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    args = ("runs/plain", "--out", str(tmp_path), *WRITE)
    server.script = [grade(plot=11)] * 3
    status, shown, err = run(*args, "--max-calls", "5", "--concurrency", "1")
    assert status == 0
    assert err.splitlines()[-1] == (
        "2 of 5 questions answered; 1 failed: plot: less_than_equal (1); add --again to ask them again; "
        "2 not asked: --max-calls 5 reached; give the same command again to go on"
    )
    assert shown.splitlines()[1].split()[-1] == "2"
    assert run(*args)[0] == 0
    assert len(server.requests) == 5 + 2
    assert json.loads((tmp_path / "judge.json").read_text())["run"]["failed"] == 1


def test_a_refusal_is_one_line_without_the_key(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    server.usual = error(401, f"Incorrect API key provided: {KEY}")
    status, shown, err = run("runs/plain", "--out", str(tmp_path), *WRITE)
    assert (status, shown) == (2, "")
    [line] = [line for line in err.splitlines() if line.startswith("frailt: ")]
    assert "status 401: Incorrect API key provided: [key]" in line
    assert KEY not in err
    assert not any(KEY in path.read_text() for path in tmp_path.rglob("*.json*"))


def test_two_models_side_by_side(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    server.usual = strict
    status, shown, _ = run("pairwise", "runs/plain", "runs/frailt", "--out", str(tmp_path), *WRITE)
    assert status == 0
    assert len(server.requests) == 10
    found = json.loads((tmp_path / "pairwise.json").read_text())
    assert [model["name"] for model in found["models"]] == ["plain", "frailt"]
    assert found["pairs"] == 5
    assert [found[name]["value"] for name in ("a", "b", "agree", "first")] == [0, 0, 0, 1], "it always says first"
    assert "A: plain   B: frailt" in shown
    assert (tmp_path / "pairwise.md").read_text().startswith("# plain (A) beside frailt (B)")


def test_a_judge_is_calibrated(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    server.usual = strict
    args = ("calibrate", "--held-out", "held-out.txt", "--out", str(tmp_path), "--stories", "6")
    status, shown, _ = run(*args)
    assert status == 0
    assert len(server.requests) == 6 * (2 + 3 + 6)
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert set(found["grades"]) == {REAL, *SPOILED}
    assert found["verdict"] == "not ordered rightly"
    assert [found["repeated"][metric]["value"] for metric in METRICS] == [1, 1, 1, 1]
    for pairs in found["pairs"].values():
        assert pairs["first"]["value"] == 1
        assert pairs["agree"]["value"] == 0
    assert "Endings: not ordered rightly." in shown
    assert "**not ordered rightly**" in (tmp_path / "calibration.md").read_text()
    before = len(server.requests)
    assert run(*args)[0] == 0
    assert len(server.requests) == before


def test_measures_without_a_judge(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    args = ("offline", "runs/plain", "runs/frailt", "--out", str(tmp_path), *WRITE)
    more = ("--text", "held-out.txt", "--reference", "runs/frailt", "--probes", "4", "--held-out", "held-out.txt")
    status, shown, err = run(*args, *more)
    assert status == 0, err
    assert server.requests == []
    found = json.loads((tmp_path / "offline.json").read_text())
    assert "none of them is a grade" in found["what"]
    assert (found["reference"], found["training_text"], found["probes"]) == ("frailt", ["held-out.txt"], 4)
    assert [model["name"] for model in found["models"]] == ["plain", "frailt"]
    assert all(model["facts"]["kept"]["count"] == 4 for model in found["models"])
    real = found["other_texts"]["(the real endings)"]
    assert real["seen"]["value"] == 1, "they were cut from that very text"
    assert found["models"][0]["measures"]["seen"] is None or found["models"][0]["measures"]["seen"]["value"] < 1
    assert "None of these figures is a grade." in shown
    text = (tmp_path / "offline.md").read_text()
    assert "under frailt" in text
    assert "facts kept" in text
    status, _, err = run(*args)
    assert status == 2
    without = ("--held-out held-out.txt", "--text held-out.txt (", "--reference frailt (", "--probes 4")
    assert all(f" with {option}" in err for option in without), err
    assert err.endswith("; do the same, or choose another --out\n")
    assert run(*args[:3], "--out", str(tmp_path / "bare"), *WRITE)[0] == 0
    bare = (tmp_path / "bare" / "offline.md").read_text()
    assert "perplexity" not in bare
    assert "ROUGE" not in bare


BAD = [
    ("", "name at least one model, before options that take several files"),
    ("grade --valid held-out.txt runs/plain", "name at least one model, before options that take several files"),
    ("offline --held-out held-out.txt runs/plain", "name at least one model, before options that take several files"),
    (
        "offline --text runs/plain --held-out held-out.txt",
        "name at least one model, before options that take several files",
    ),
    ("runs/plain --calibrate", "--calibrate is a command now: write `frailt judge calibrate ...`"),
    ("calibrate runs/plain", "'runs/plain' is not expected here"),
    ("runs/plain --text held-out.txt", "there is no option --text"),
    ("offline runs/plain --estimate", "there is no option --estimate"),
    ("pairwise runs/plain runs/frailt --prompt held-out.txt", "there is no option --prompt"),
    ("pairwise runs/plain", "name two models"),
    ("offline runs/plain --text absent.txt", "absent.txt does not exist"),
    ("offline runs/plain --reference nowhere", "nowhere"),
    ("runs/plain --prompt held-out.txt", "held-out.txt has 0 places {story}"),
    ("runs/plain --beginnings a.yaml --held-out held-out.txt", "give --beginnings or --held-out, not both"),
    ("runs/plain --beginnings absent.yaml", "absent.yaml does not exist"),
    ("calibrate --held-out held-out.txt --stories 400", "beginnings, not 400; give more stories, or ask for fewer"),
    ("pairwise runs/plain ./runs/plain", "a model is named twice"),
    ("runs/plain --completions 0", "completions is 0"),
    ("runs/plain --base-url localhost:11434", "base_url is not an address"),
    ("runs/plain --out runs", "runs holds other files and no results of a judge; choose another --out"),
    ("runs/nowhere", "runs/nowhere"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gives_one_clear_line(server: JudgeServer, run: Run, models: Path, line: str, message: str) -> None:
    before = sorted(models.rglob("*"))
    status, shown, err = run(*line.split())
    assert (status, shown) == (2, "")
    [complaint] = [text for text in err.splitlines() if text.startswith("frailt: ")]
    assert message in complaint
    assert "Traceback" not in err
    assert server.requests == []
    assert sorted(models.rglob("*")) == before, "nothing is written"


def test_a_missing_key_is_said_before_anything_is_done(
    server: JudgeServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    out = tmp_path / "judged"
    for args in (["runs/plain", *WRITE], ["calibrate"], ["pairwise", "runs/plain", "runs/frailt", *WRITE]):
        status, shown, err = run(*args, "--out", str(out))
        assert (status, shown) == (2, "")
        [line] = err.splitlines()
        assert "the judge needs a key: set OPENAI_API_KEY in the environment, or name another server" in line
        assert not out.exists(), "no model has written"
    assert run("runs/plain", "--out", str(out), *WRITE, "--estimate")[0] == 0
    assert run("offline", "runs/plain", "--out", str(out), *WRITE)[0] == 0
    assert run("runs/plain", "--out", str(out), *WRITE, "--base-url", server.url)[0] == 0


# What one sees meanwhile


def test_writing_and_asking_say_how_far_they_are(
    server: JudgeServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("runs/plain", "runs/frailt", "--out", str(tmp_path), *WRITE)
    quiet = run(*args)[2].splitlines()
    assert quiet == ["writing: frailt: 5/5 stories", "asking: 10/10 answered, 0 failed, 10 calls, 3,400 tokens"]
    shutil.rmtree(tmp_path)
    monkeypatch.setattr(progress, "LOG_SECONDS", -1)
    lines = run(*args)[2].splitlines()
    first = [lines.index(f"writing: {name}: 0/5 stories, token 1 of at most 12") for name in ("plain", "frailt")]
    assert first == sorted(first)
    assert lines.index("writing: plain: 5/5 stories") < first[1]


def test_a_model_s_stories_outlive_a_ctrl_c(
    server: JudgeServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("runs/plain", "runs/frailt", "--out", str(tmp_path), *WRITE)
    write, started = Storyteller.write, list[Storyteller]()

    def cut_off(self: Storyteller, *args: Any, **options: Any) -> Iterator[Token]:
        started.append(self)
        if len(started) == 2:
            raise KeyboardInterrupt
        return write(self, *args, **options)

    monkeypatch.setattr(Storyteller, "write", cut_off)
    status, _, err = run(*args)
    assert status == 130
    assert "the same command goes on from here" in err
    assert run(*args)[0] == 0
    assert len(started) == 3, "the first model wrote once"


# A server that is down


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address at which no server listens."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_a_server_that_is_down_is_named_and_ends_in_an_error(
    server: JudgeServer, nobody: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_run, "FIRST_PAUSE", 0.0)
    args = ("runs/plain", "--out", str(tmp_path), *WRITE)
    assert run(*args, "--max-calls", "2", "--concurrency", "1")[0] == 0
    status, shown, err = run(*args, "--base-url", nobody)
    assert status == 1
    trouble = f"the judge at {nobody} does not answer (connection refused)"
    said = [line for line in err.splitlines() if line.startswith(trouble)]
    assert said == [f"{trouble}; trying again in 0 s, for 300 s at most"], "once, though every call fails"
    last = err.splitlines()[-1]
    assert last.startswith(f"frailt: 3 of 5 questions are open: {trouble}; what was answered is kept")
    assert "--base-url" in last
    assert "give the same command again" not in shown
    assert "3 not asked (--max-calls 2 reached)" in (tmp_path / "judge.md").read_text(), "a failed run leaves it be"
    assert run(*args)[0] == 0
    assert len(server.requests) == 5


def test_calls_that_a_lost_connection_used_up_end_in_an_error(
    nobody: str, run: Run, models: Path, tmp_path: Path
) -> None:
    args = ("pairwise", str(models / "runs/plain"), str(models / "runs/frailt"), "--out", str(tmp_path), *WRITE)
    status, _, err = run(*args, "--base-url", nobody, "--max-calls", "1", "--concurrency", "1")
    assert status == 1
    trouble = f"--max-calls 1 reached; the judge at {nobody} does not answer (connection refused)"
    assert err.splitlines()[-1].startswith(f"frailt: 10 of 10 questions are open: {trouble}")


# A report that is there


def test_a_report_is_not_replaced_by_one_on_something_else(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path))
    assert run("runs/plain", *out, *WRITE)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    report = tmp_path / "judge.md"
    refused = {
        ("runs/frailt", *WRITE): f"{report} reports on runs/plain too; name all models",
        (
            "runs/plain",
            *WRITE,
            "--judge",
            "other",
        ): f"{report} was made with --judge gpt-4-1106-preview; do the same, or",
        ("runs/plain", "--completions", "4"): f"{report} was made with --completions 5 and with --max-tokens 12; do",
        ("runs/plain", *WRITE, "--top-k", "3"): f"{report} was made without --top-k; do the same, or choose another",
    }
    for args, message in refused.items():
        status, shown, err = run(*args, *out)
        assert (status, shown) == (2, "")
        [line] = err.splitlines()
        assert message in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert run("runs/frailt", *out, *WRITE, "--estimate")[1].startswith("5 calls"), "an estimate replaces nothing"
    assert run("runs/frailt", "runs/plain", *out, *WRITE)[0] == 0
    assert [model["name"] for model in json.loads((tmp_path / "judge.json").read_text())["models"]] == [
        "frailt",
        "plain",
    ]


def test_without_a_grade_there_is_no_report(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    args = ("runs/plain", "--out", str(tmp_path), *WRITE, "--judge", "mistyped")
    status, shown, err = run(*args, "--max-calls", "0")
    assert (status, shown) == (1, "")
    assert "none of 5 questions has an answer: 5 not asked: --max-calls 0 reached" in err
    assert not (tmp_path / "judge.md").exists()
    assert run("runs/frailt", "--out", str(tmp_path), *WRITE)[0] == 0


SCRIPT = "<script>alert(1)</script>|`x`[a](javascript:b)\x1b[2J"


def test_foreign_words_are_text_in_every_report(server: JudgeServer, run: Run, models: Path, tmp_path: Path) -> None:
    """Wherever they enter: the judge's name, paths, names in records, the server's words, beginnings, file names."""
    server.usual = strict
    model, text = models / "runs" / "<script>a|b", models / "<script>held|out.txt"
    shutil.copytree(models / "runs/plain", model)
    write_json(model / "run.json", {"config": {}, "data": {"name": SCRIPT, "train": "", "valid": ""}})
    shutil.copy(models / "held-out.txt", text)
    beginnings = tmp_path / "given.txt"
    beginnings.write_text(f"{SCRIPT.replace(chr(27), '')}\nOne day\n", encoding="utf-8")
    pair = (str(model), "runs/frailt")
    write = ("--completions", "2", "--max-tokens", "4", "--beginnings", str(beginnings))
    out = ("--out", str(tmp_path / "out"))
    server.script = [error(400, SCRIPT)]
    assert run("grade", *pair, *out, *write, "--judge", SCRIPT, "--concurrency", "1")[0] == 0
    assert run("calibrate", *out, "--stories", "3", "--held-out", str(text), "--judge", SCRIPT)[0] == 0
    assert run("pairwise", *pair, *out, *write, "--judge", SCRIPT)[0] == 0
    offline = ("--text", str(text), "--reference", str(model), "--valid", str(text))
    assert run("offline", *pair, *out, *write, *offline)[0] == 0
    pages = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.md")}
    assert set(pages) == {"judge.md", "calibration.md", "pairwise.md", "offline.md"}
    for page in pages.values():
        assert "<script" not in page
        assert "&lt;script" in page
        assert not re.search(r"(?<!\\)\]\(javascript", page)
        assert "\x1b" not in page
        for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1, (
                "rows are as wide as heads"
            )
        assert "<script" not in html_page(page, title="x")
    shutil.rmtree(model)
    text.unlink()


def test_the_report_names_the_servers_of_its_replies(
    server: JudgeServer, run: Run, nobody: str, tmp_path: Path
) -> None:
    args = ("runs/plain", "--out", str(tmp_path), *WRITE)
    assert run(*args)[0] == 0
    assert run(*args, "--base-url", nobody)[0] == 0, "nothing is asked"
    assert json.loads((tmp_path / "judge.json").read_text())["judge"]["servers"] == [server.url]
    assert nobody not in (tmp_path / "judge.md").read_text()


def test_failed_questions_can_be_asked_again(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    args = ("runs/plain", "--out", str(tmp_path), *WRITE)
    server.usual = grade(plot=11)
    status, shown, err = run(*args)
    assert (status, shown) == (1, "")
    assert err.splitlines()[-1] == (
        "frailt: none of 5 questions has an answer: 5 failed: plot: less_than_equal (5); add --again to ask them again"
    )
    server.usual = grade()
    assert run(*args)[0] == 1
    assert run(*args, "--again")[0] == 0


def test_reports_are_not_replaced_by_others_on_something_else(server: JudgeServer, run: Run, tmp_path: Path) -> None:
    """Nor read if they are damaged."""
    server.usual = strict
    out = ("--out", str(tmp_path))
    calls = {
        "calibration": ("calibrate", *out, "--stories", "3"),
        "pairwise": ("pairwise", "runs/plain", "runs/frailt", *out, *WRITE),
        "offline": ("offline", "runs/plain", *out, *WRITE),
    }
    others = {
        "calibration": [("--judge", "other"), ("--stories", "4")],
        "pairwise": [("--judge", "other"), ("--seed", "1")],
        "offline": [("--seed", "1"), ("--probes", "2")],
    }
    for name, args in calls.items():
        assert run(*args)[0] == 0
        before = (tmp_path / f"{name}.md").read_bytes(), (tmp_path / f"{name}.json").read_bytes()
        for more in others[name]:
            rest = [word for word in args if word not in ("--stories", "3")] if more[0] == "--stories" else args
            status, _, err = run(*rest, *more)
            assert status == 2
            assert re.search(
                rf"{name}\.md was made with(out)? {more[0]}\b.*; do the same, or choose another --out$", err
            )
        after = (tmp_path / f"{name}.md").read_bytes(), (tmp_path / f"{name}.json").read_bytes()
        assert after == before
    swapped = run("pairwise", "runs/frailt", "runs/plain", *out, *WRITE)
    assert "was made with the models runs/plain runs/frailt; do the same" in swapped[2]
    path = tmp_path / "calibration.json"
    new = path.read_text()
    path.write_text(json.dumps(json.loads(new) | {"stories": 3}))
    assert "was made with --held-out (which, that version did not say); do" in run(*calls["calibration"])[2]
    path.write_text(new)
    for name, args in calls.items():
        path = tmp_path / f"{name}.json"
        whole = json.loads(path.read_text())
        for damage in ({"stories": []}, {"models": [[]]}, {"judge": 3}, {"run": {"answered": "x"}}):
            path.write_text(json.dumps(whole | damage))
            status, _, err = run(*args)
            assert (status, err.splitlines()[-1]) == (
                2,
                f"frailt: {path} is damaged; delete it, or choose another --out",
            )


# What a calibration says


def graded(source: str, index: int, beginning: str, **grades: int) -> dict:
    return {"source": source, "index": index, "beginning": beginning, **dict.fromkeys(METRICS, 8), **grades}


def test_a_good_judge_is_called_good() -> None:
    answers = []
    for i in range(10):
        answers += [graded(REAL, 0, str(i)), graded(REAL, 1, str(i), plot=8 - i % 2)]
        answers += [graded(name, 0, str(i), **{metric: 2 + i % 3}) for name, metric in SPOILED.items()]
    found = calibration(answers, [], 10)
    assert found.verdict == "ordered rightly"
    assert {name: cost.metric for name, cost in found.costs.items()} == SPOILED
    for cost in found.costs.values():
        assert cost.expected.value == pytest.approx(5.1)
        assert cost.average.value == pytest.approx(5.1 / 4)
        assert cost.right.value == 1
    assert found.repeated["plot"].value == 0.5
    assert found.moved["plot"].value == 0.5
    assert found.repeated["grammar"].value == 1
    assert found.grades[REAL]["average"].value == 8


def test_a_judge_that_misses_one_kind_is_not() -> None:
    answers = []
    for i in range(10):
        answers += [graded(REAL, 0, str(i))]
        answers += [graded(name, 0, str(i), grammar=2) for name in SPOILED]
    found = calibration(answers, [], 10)
    assert found.verdict == "not ordered rightly", "words shuffled cost grammar, but another ending no consistency"
    assert calibration(answers[:5], [], 10).verdict == "not measured"
    assert calibration([], [], 10).verdict == "not measured"
    assert calibration([], [], 10).costs == {}


def test_a_preference_counts_only_in_both_orders() -> None:
    def answered(index: int, first: str, second: str) -> list[dict]:
        pair = both_orders("x", "Once", f"a{index}", f"b{index}", index)
        return [
            {"beginning": q.beginning, "index": q.index, "completions": q.completions, "better": better}
            for q, better in zip(pair, (first, second), strict=True)
        ]

    choices = [("first", "second"), ("second", "first"), ("first", "first"), ("neither", "neither")]
    answers = [one for i, (first, second) in enumerate(choices) for one in answered(i, first, second)]
    found = preference([*answers, *answered(9, "first", "second")[:1]])
    assert found.pairs == 4
    assert found.a is not None
    assert found.b is not None
    assert found.agree is not None
    assert found.first is not None
    assert (found.a.value, found.b.value, found.agree.value) == (0.25, 0.25, 0.75)
    assert found.first.value == pytest.approx(5 / 7)
    empty = preference([])
    assert (empty.pairs, empty.a, empty.first) == (0, None, None)
