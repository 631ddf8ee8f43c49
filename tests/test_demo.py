"""`make demo` as far as make goes: which text it takes, and where it puts what it makes."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parents[1] / "Makefile"
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not on this machine")


def commands(folder: Path, **variables: str) -> dict[str, list[str]]:
    """The arguments of each ``frailt`` command that the demo would run, by its verb."""
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    command = ["make", "--dry-run", "--file", str(MAKEFILE), "demo"]
    environment = {"PATH": os.environ["PATH"], **variables}  # Without what a `make test` around it has set.
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
    lines = [shlex.split(line) for line in said.replace("\\\n", "").splitlines()]
    return {words[1]: words[2:] for words in lines if words and words[0].endswith("bin/frailt")}


def test_without_a_text_it_makes_stories_up(tmp_path: Path) -> None:
    made = commands(tmp_path)
    assert made["prepare"] == ["--world", "20000", "--out", "demo/data-story-world"]
    assert made["compare"][-4:] == ["--data", "demo/data-story-world", "--out", "demo/story-world-1M"]
    assert "demo/story-world-1M/runs/1x8-s0" in made["story"]


def test_a_path_may_have_spaces(tmp_path: Path) -> None:
    for name in ("my own stories.txt", "a.txt", "b.txt"):
        (tmp_path / name).touch()
    one = commands(tmp_path, FRAILT_DATA="my own stories.txt")
    assert one["prepare"] == ["--text", "my own stories.txt", "--out", "demo/data-my-own-stories.txt"]
    several = commands(tmp_path, FRAILT_DATA="a.txt b.txt")
    assert several["prepare"] == ["--text", "a.txt", "b.txt", "--out", "demo/data-a.txt-b.txt"]


def test_two_texts_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    mine, yours = (commands(tmp_path, FRAILT_DATA=f"{folder}/stories.txt") for folder in ("mine", "yours"))
    assert mine["prepare"][-1] == "demo/data-mine-stories.txt"
    assert yours["prepare"][-1] == "demo/data-yours-stories.txt"
    assert mine["compare"][-1] != yours["compare"][-1]
