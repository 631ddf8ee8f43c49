"""Compiled code on disk, and the word to whoever waits for it."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.event import register, unregister

from frailt.compiling import Announcer


def test_code_on_disk_is_used_until_what_it_calls_changes(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text(
        "import inner\nfrom frailt.compiling import compiled\n\n\n"
        "@compiled(inner)\ndef outer(x):\n    return inner.inner(x)\n"
    )
    script = "from outer import outer; print(outer(1), outer.stats.cache_hits.total())"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": path}
    said = []
    for more in (1, 1, 2):
        (tmp_path / "inner.py").write_text(f"import numba\n\n\n@numba.njit\ndef inner(x):\n    return x + {more}\n")
        command = [sys.executable, "-B", "-c", script]
        run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=True)
        said.append(run.stdout.decode().strip())
    assert said == ["2 0", "2 1", "3 0"]


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
