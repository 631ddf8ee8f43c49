"""Files that are replaced whole or not at all."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from frailt.errors import InputError
from frailt.files import (
    hold,
    naming,
    read_json,
    remove_leftovers,
    replacing,
    sha256,
    user_cache,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_content_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path, "only within a file system is a rename one step"
    assert path.read_text() == "half"
    assert names(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")

    def fail(path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]
    with pytest.raises(error):
        fail(tmp_path / "new.txt")
    assert names(tmp_path) == ["note.txt"]


def test_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "note.txt", "hé")
    assert (tmp_path / "a" / "b" / "note.txt").read_bytes() == "hé".encode()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "note.txt", "")
        (tmp_path / "plain.txt").write_text("")
    finally:
        os.umask(before)
    assert (tmp_path / "note.txt").stat().st_mode == (tmp_path / "plain.txt").stat().st_mode


def test_no_chmod_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gcsfuse, S3 and other mounts have none."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, refuse)
    write_text(tmp_path / "note.txt", "x")
    assert names(tmp_path) == ["note.txt"]


def test_an_error_without_a_number_is_not_told_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a gzipped file") as caught, naming(tmp_path / "a.gz"):
        raise OSError("not a gzipped file")
    assert caught.value.errno is None


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.ENOSPC, "No space left on device", "/folder/.note.txt.1234.tmp"),
        OSError("16384 requested and 5656 written"),
    ],
)
def test_a_full_disk_names_the_file(tmp_path: Path, error: OSError) -> None:
    path = tmp_path / "note.txt"

    def fail() -> None:
        with replacing(path):
            raise error

    with pytest.raises(OSError, match="No space left on device") as caught:
        fail()
    assert caught.value.filename == str(path)
    assert str(caught.value).endswith(f"No space left on device: '{path}'")


def test_without_a_home_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/frailt"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotADirectoryError, match="no home folder"):
        write_text(user_cache() / "note.txt", "")
    assert names(tmp_path) == []


def test_another_file_keeps_its_name_in_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with replacing(tmp_path / "note.txt"):
            (tmp_path / "absent.txt").read_bytes()

    with pytest.raises(FileNotFoundError) as caught:
        fail()
    assert caught.value.filename == str(tmp_path / "absent.txt")


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 255), "x")
    assert names(tmp_path) == ["n" * 255]


def test_what_a_kill_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from frailt.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as path: path.write_text('half'); os._exit(9)"
    )
    path = tmp_path / "note.txt"
    path.write_text("old")
    (tmp_path / ".hidden").write_text("mine")
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    assert len(names(tmp_path)) == 3
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "note.txt"]
    assert path.read_text() == "old"


def test_a_lock_is_for_one_process_and_ends_with_it(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from frailt.files import BusyError, hold\n"
        "try: hold(Path(sys.argv[1]), 'busy')\nexcept BusyError as error: sys.exit(str(error))"
    )
    lock = hold(tmp_path / "new" / ".lock", "busy")
    command = [sys.executable, "-c", script, str(tmp_path / "new" / ".lock")]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (1, "busy\n")
    lock.release()
    for _ in range(2):
        assert subprocess.run(command, check=False).returncode == 0


def test_a_name_that_is_not_utf8_comes_back(tmp_path: Path) -> None:
    value = {"name": os.fsdecode(b"caf\xe9.txt")}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None], "é": {"b": "ü"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


def test_a_number_that_json_lacks_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "x.json does not exist"),
        (b'{"a": 1', r"x.json is not valid JSON .*; restore it or make it again"),
        (b"", "x.json is not valid JSON"),
        (b'{"a": "\xff"}', "x.json is not valid JSON"),
        (b"[1, 2]", "x.json holds a JSON list, not an object"),
        (b'{"a": NaN}', "x.json is not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "x.json is not valid JSON"),
        (b"[" * 100_000, "x.json is not valid JSON"),
    ],
)
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


def test_sha256(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "x.bin").write_bytes(content)
    assert sha256(tmp_path / "x.bin") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_is_named(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lustre without -o flock, NFS without its lock service. A file in place of a lock would outlive a kill."""

    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    with pytest.raises(InputError, match=r"lies on a file system without locks; .* \(Lustre: -o flock\)"):
        hold(tmp_path / "a" / ".lock", "busy")
