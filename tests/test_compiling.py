"""Compiled code on disk, and the word to whoever waits for it."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numba
import platformdirs
import pytest
from numba.core.event import register, unregister

from frailt import compiling
from frailt.compiling import Announcer, compiled


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    compiling._cannot_keep.cache_clear()
    return tmp_path / "cache"


def outer(folder: Path, more: int = 1) -> Any:
    """A compiled function as a new process would have it, of a file that calls another, which adds ``more``."""
    modules = {}
    for name, text in (
        ("inner", f"import numba\n\n\n@numba.njit\ndef inner(x):\n    return x + {more}\n"),
        ("outer", "def outer(x):\n    return inner(x)\n"),
    ):
        (folder / f"{name}.py").write_text(text)
        spec = spec_from_file_location(name, folder / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        modules[name] = module_from_spec(spec)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        spec.loader.exec_module(modules[name])
        sys.dont_write_bytecode = before
    modules["outer"].__dict__["inner"] = modules["inner"].inner
    return compiled(modules["inner"])(modules["outer"].outer)


def called(function: Any) -> tuple[int, int]:
    """What it gives for 1, and how often code came from the disk."""
    return function(1), function.stats.cache_hits.total()


def test_code_on_disk_is_used_until_what_it_calls_changes(tmp_path: Path, cache: Path) -> None:
    assert [called(outer(tmp_path, more)) for more in (1, 1, 2, 2)] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    [function] = (cache / "frailt").iterdir()
    assert len(list(function.iterdir())) == 1, "nothing is left of earlier sources"


@pytest.mark.parametrize(("owner", "name"), [(sys.implementation, "cache_tag"), (sys, "prefix")])
def test_pythons_that_share_a_cache_leave_each_other_their_code(
    tmp_path: Path, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = []
    for value in ("one", "other", "one", "other"):
        monkeypatch.setattr(owner, name, value)
        functions.append(outer(tmp_path))
    assert [called(function) for function in functions] == [(2, 0), (2, 0), (2, 1), (2, 1)]


@pytest.mark.parametrize("damage", ["empty", "cut", "one bit", "another file"])
def test_damaged_code_counts_as_none_and_is_written_anew(tmp_path: Path, cache: Path, damage: str) -> None:
    assert called(outer(tmp_path)) == (2, 0)
    [file] = (path for path in cache.rglob("*") if path.is_file())
    good = file.read_bytes()
    flipped = good[:-99] + bytes([good[-99] ^ 1]) + good[-98:]
    file.write_bytes({"empty": b"", "cut": good[:500], "one bit": flipped, "another file": b"%PDF" * 100}[damage])
    assert [called(outer(tmp_path)) for _ in range(2)] == [(2, 0), (2, 1)]


@pytest.mark.parametrize("where", ["a file", "full", "no home"])
def test_where_code_cannot_be_kept_it_runs(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", {"a file": f"{tmp_path}/file", "full": "/dev/full", "no home": ""}[where])
    if where == "no home":
        monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/frailt"))
    assert [called(outer(tmp_path)) for _ in range(2)] == [(2, 0), (2, 0)]
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("compiled code cannot be kept (")
    assert line.endswith("set NUMBA_CACHE_DIR to a folder that can be written")
    assert not Path("~").exists()


def test_compiling_is_announced_once_to_whoever_waits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    announcer = Announcer()
    register("numba:compile", announcer)
    try:
        said = []
        for terminal in (False, True, True):
            monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
            numba.njit(lambda x: x + 1)(1)
            said.append(capsys.readouterr().err)
    finally:
        unregister("numba:compile", announcer)
    assert (said[0], said[2]) == ("", "")
    # A command that ran before in this process may have an announcer of its own.
    assert set(said[1].splitlines()) == {"compiling for this processor, once (some seconds)"}
