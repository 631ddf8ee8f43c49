"""Files: written so that a reader, or a crash, never meets half of one; read so that a damaged one is named."""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from frailt.errors import InputError, excerpt

LARGEST_JSON = 256 << 20
"""Bytes of the largest JSON file that is read."""


class BusyError(InputError):
    """Another process holds the lock."""


def user_cache() -> Path:
    """Where this package keeps what it can make again. The folder may be missing, or not be writable."""
    path = platformdirs.user_cache_path("frailt", appauthor=False)
    # Without a home folder it begins with a literal "~". Nothing can be written below this file, nor read.
    return path if path.is_absolute() else Path(os.devnull, "no home folder")


def hold(path: Path, message: str) -> filelock.BaseFileLock:
    """Take the lock file at ``path``, until ``release()`` or the end of this process, however it ends.

    The lock file stays: one that is deleted or replaced could be locked twice.

    Raises:
        BusyError: another process has it; it says ``message``.
        InputError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # No file in place of a lock: after a kill it would stay, and say "busy" for ever.
    lock = filelock.FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BusyError(message) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            raise
        raise InputError(
            f"{path.parent} lies on a file system without locks; choose a folder elsewhere, "
            "or have it mounted with them (Lustre: -o flock)"
        ) from None
    return lock


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it becomes ``path`` in one step.

    If the body raises, ``path`` is as it was and the temporary file is gone. What a kill leaves is removed by
    ``remove_leftovers``.

    Raises:
        OSError: the folder cannot be written or the disk is full; it names ``path``, which is untouched.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
        # As open() makes it, so its mode needs no chmod, which some mounts refuse. Nobody else's file is opened.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            with temporary.open("r+b") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the system within that names no file, or a temporary one, is raised with the name of ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno is None and "requested and" in str(error):  # NumPy's, of a write that stopped half-way.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if error.errno is not None and (error.filename is None or str(error.filename).endswith(".tmp")):
            error.filename = str(path)
            del error.filename2  # Set to None, it would be printed.
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed writers left in ``folder``. Call it while holding the folder's lock."""
    for path in folder.glob(".*.tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write ``data``, atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically. Bytes of a file name that are not UTF-8 become JSON's escapes of them."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing, is not JSON, or holds something else than an object.
    """
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise InputError(f"{path} is larger than {LARGEST_JSON >> 20} MiB, too large for such a file")
        value = parse_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a JSON {type(value).__name__}, not an object; restore it or make it again")
    return value


def parse_json(text: str | bytes, source: str) -> Any:
    """A JSON value, strictly: no NaN, no numbers of thousands of digits, no nesting without end.

    Args:
        text: what to parse; bytes are UTF-8.
        source: where it comes from, for messages.

    Raises:
        InputError: it is not JSON.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON number")

    try:
        return json.loads(text if isinstance(text, str) else text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors.
        raise InputError(f"{source} is not valid JSON ({excerpt(str(error))}); restore it or make it again") from None


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
