"""Files that are replaced whole or not at all."""

import hashlib
import os
from pathlib import Path

import pytest

from frailt.errors import InputError
from frailt.files import read_json, replacing, sha256, write_json, write_text


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
