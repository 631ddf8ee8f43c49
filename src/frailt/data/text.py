"""Stories out of text files, one at a time, whatever the size of the files."""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import zstandard

from frailt.errors import InputError, excerpt
from frailt.files import naming

SEPARATOR = b"<|endoftext|>"
LONGEST = 1 << 20
"""Bytes after which a record without a separator is cut, so that memory stays bounded."""
_BLOCK = 1 << 18
_MEMORY = 128 << 20
"""Bytes that unpacking may take: enough for ``xz -9`` (65 MiB) and zstandard's own limit."""


def read_stories(paths: Sequence[Path]) -> Iterator[str]:
    """The stories of text files, in order: ``StoryReader`` without the count of bytes."""
    return iter(StoryReader(paths))


class StoryReader:
    """Iterates over the stories of UTF-8 text files, plain or packed by xz, gzip, zstandard or bzip2; a pipe, once.

    Stories are separated by ``<|endoftext|>``, on a line of its own in the TinyStories files; the
    last story may lack it. White space around a story is dropped, as are empty stories, and
    ``\\r\\n`` counts as ``\\n``. A record longer than 1 MiB is cut into stories at its last line end
    within the first MiB; where that has none, at its last space, and else between two characters.

    ``done`` of ``total`` says how far an iteration got, in bytes of the files as they lie on the disk.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Name the files to read.

        Raises:
            InputError: one of ``paths`` does not exist or is a folder.
        """
        self.paths = tuple(paths)
        for path in self.paths:
            if path.is_dir():
                raise InputError(f"{path} is a folder; name the text files in it")
            if not path.exists():
                raise InputError(f"{path} does not exist")
        self.total = sum(path.stat().st_size for path in self.paths)
        self.done = 0

    def __iter__(self) -> Iterator[str]:
        """Yield the stories.

        Raises:
            InputError: a file is damaged, is not UTF-8 text, is of a kind that is not read, or holds no story.
        """
        self.done = 0
        for path in self.paths:
            stories = 0
            try:
                for record in _records(_text_blocks(path, self._read(path))):
                    story = _clean(record)
                    if story:
                        stories += 1
                        yield story
            except _NotTextError as error:
                raise InputError(
                    f"{path} is not UTF-8 text ({error}after {stories} stories); convert it with iconv"
                ) from None
            if stories == 0:
                raise InputError(f"{path} holds no story; give a text file with stories")

    def _read(self, path: Path) -> Iterator[bytes]:
        """The bytes of a file as they lie on the disk."""
        try:
            file = path.open("rb", buffering=0)
        except PermissionError:
            raise InputError(f"{path} may not be read; change its permissions") from None
        with file, naming(path):
            while block := file.read(_BLOCK):
                self.done += len(block)
                yield block


class _NotTextError(Exception):
    """What there is instead of UTF-8 text."""


def _clean(record: bytes) -> str:
    if b"\0" in record:
        raise _NotTextError("NUL bytes ")
    try:
        text = record.decode("utf-8")
    except UnicodeDecodeError:
        raise _NotTextError from None
    # A file may begin with a byte order mark, and joined files have one in the middle.
    return text.replace("\r\n", "\n").strip().removeprefix("\ufeff").strip()


def _records(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What lies between separators, cut where it is too long; the same for any size of blocks."""
    rest = b""
    for block in blocks:
        *complete, rest = (rest + block).split(SEPARATOR)
        for record in complete:
            yield from _cut(record, LONGEST)
        # The end of `rest` may be the start of a separator: only what is surely too long is cut.
        *complete, rest = _cut(rest, LONGEST + len(SEPARATOR))
        yield from complete
    yield from _cut(rest, LONGEST)


def _cut(record: bytes, longest: int) -> Iterator[bytes]:
    """Cut pieces of at most ``LONGEST`` bytes off, until at most ``longest`` are left."""
    while len(record) > longest:
        at = record.rfind(b"\n", 1, LONGEST)
        if at < 0:
            at = record.rfind(b" ", 1, LONGEST)
        if at < 0:
            at = LONGEST
            while record[at] & 0xC0 == 0x80 and at > LONGEST - 4:  # Inside a character of UTF-8.
                at -= 1
        yield record[:at]
        record = record[at:]
    yield record


_READ = "xz, gzip, zstandard and bzip2 are read, and plain text"
_OTHER_KINDS: dict[str, tuple[str, str]] = {
    r"PK\x03\x04": ("a zip archive", f"unpack it ({_READ})"),
    r"7z\xbc\xaf|Rar!\x1a": ("a 7-Zip or RAR archive", f"unpack it ({_READ})"),
    r".{257}ustar": ("a tar archive", f"unpack it and name the text files in it ({_READ})"),
    r"version https://git-lfs": ("a Git LFS pointer and not the file itself", "get the file with `git lfs pull`"),
    r"PAR1": ("a Parquet file", "write its stories to a text file, each followed by a line <|endoftext|>"),
    r"%PDF-": ("a PDF file", "give the text of its stories"),
    r"(\xef\xbb\xbf)?\s*(\{\s*\"|\[\s*[\"{])": (
        "JSON",
        "write its stories to a text file, each followed by a line <|endoftext|>",
    ),
    r"(\xef\xbb\xbf)?\s*<(!doctype html|html)": ("a web page", "get the text file that is meant"),
}
"""Patterns of the first bytes of what people take for a text file, what it is, and what to do."""


def _text_blocks(path: Path, packed: Iterator[bytes]) -> Iterator[bytes]:
    """The content of a file, unpacked if its first bytes say that it is packed.

    Raises:
        InputError: the archive is damaged or takes too much memory, or the content is of a kind that is not read.
    """
    try:
        blocks, start = _start(_unpacked(packed), 512)
        for pattern, (kind, advice) in _OTHER_KINDS.items():
            if re.match(pattern.encode(), start, re.IGNORECASE | re.DOTALL):
                raise InputError(f"{path} is {kind}; {advice}")
        yield from blocks
    except _DamagedError as error:
        if "memory" in str(error).lower():
            raise InputError(
                f"{path} takes more than {_MEMORY >> 20} MiB of memory to unpack; unpack it, or pack it with xz -9"
            ) from None
        raise InputError(f"{path} is a damaged archive ({excerpt(str(error))}); get it again") from None


class _DamagedError(Exception):
    """Why something cannot be unpacked."""


def _start(blocks: Iterator[bytes], size: int) -> tuple[Iterator[bytes], bytes]:
    """The blocks, and their first ``size`` bytes, or all where they are fewer."""
    start = b""
    for block in blocks:
        start += block
        if len(start) >= size:
            break
    return chain([start] if start else [], blocks), start[:size]


def _unpacked(packed: Iterator[bytes]) -> Iterator[bytes]:
    packed, start = _start(packed, 6)
    if start.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        return _streams(packed, partial(lzma.LZMADecompressor, memlimit=_MEMORY))
    if start.startswith(b"BZh"):
        return _streams(packed, bz2.BZ2Decompressor)
    if start.startswith(b"\x1f\x8b"):
        return _streams(packed, _GzipDecompressor)
    # Zstandard's files may begin with a frame to skip, as those of pzstd do.
    if start.startswith(b"\x28\xb5\x2f\xfd") or re.match(rb"[\x50-\x5f]\x2a\x4d\x18", start):
        return _zstandard(packed)
    return packed


def _streams(packed: Iterator[bytes], new: Callable[[], Any]) -> Iterator[bytes]:
    """Unpack one stream after the other, with padding by zeros after each, in blocks of bounded size.

    Python's own file objects take a padded second stream for garbage and end before it.
    """
    data = next(packed, b"")
    while data:
        stream = new()
        while not stream.eof:
            if stream.needs_input and not data:
                data = next(packed, b"")
            try:
                block = stream.decompress(data, _BLOCK)
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
                raise _DamagedError(str(error)) from None
            if block:
                yield block
            elif not data and stream.needs_input and not stream.eof:
                raise _DamagedError("its end is missing")
            data = b""
        data = stream.unused_data.lstrip(b"\0")
        while not data and (more := next(packed, b"")):
            data = more.lstrip(b"\0")


class _GzipDecompressor:
    """Gzip as an object with the interface of ``lzma.LZMADecompressor``."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


def _zstandard(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack zstandard frames and notice a missing end, which the library's own reader does not."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    for read in packed:
        # It unpacks all that it is given at once, and a few bytes can stand for 128 KiB.
        for at in range(0, len(read), 64):
            data = read[at : at + 64]
            while data:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                try:
                    block = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise _DamagedError(str(error)) from None
                data = frame.unused_data
                if block:
                    yield block
    if not frame.eof:
        raise _DamagedError("its end is missing")
