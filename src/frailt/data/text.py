"""Stories out of text files, one at a time, whatever the size of the files."""

import gzip
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import zstandard

from frailt.errors import InputError

SEPARATOR = b"<|endoftext|>"
LONGEST = 1 << 20
"""Bytes after which a record without a separator is cut, so that memory stays bounded."""
_BLOCK = 1 << 18


def read_stories(paths: Sequence[Path]) -> Iterator[str]:
    """The stories of text files, in order: ``StoryReader`` without the count of bytes."""
    return iter(StoryReader(paths))


class StoryReader:
    """Iterates over the stories of UTF-8 text files, plain or compressed (xz, gzip, zstandard).

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
            if not path.is_file():
                raise InputError(f"{path} does not exist")
        self.total = sum(path.stat().st_size for path in self.paths)
        self.done = 0

    def __iter__(self) -> Iterator[str]:
        """Yield the stories.

        Raises:
            InputError: a file is damaged, is not UTF-8 or holds no story.
        """
        self.done = before = 0
        for path in self.paths:
            stories = 0
            with _open(path) as raw:
                try:
                    for record in _records(_blocks(raw)):
                        self.done = before + raw.tell()
                        story = _clean(record)
                        if story:
                            stories += 1
                            yield story
                except UnicodeDecodeError:
                    where = f"after {stories} stories"
                    raise InputError(f"{path} is not UTF-8 text ({where}); convert it with iconv") from None
                except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, zstandard.ZstdError) as error:
                    raise InputError(f"{path} is a damaged archive ({error}); get it again") from None
                before += raw.tell()
            if stories == 0:
                raise InputError(f"{path} holds no story; give a text file with stories")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except PermissionError:
        raise InputError(f"{path} may not be read; change its permissions") from None


def _clean(record: bytes) -> str:
    # A file may begin with a byte order mark, and joined files have one in the middle.
    return record.decode("utf-8").replace("\r\n", "\n").strip().removeprefix("\ufeff").strip()


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


def _blocks(raw: BinaryIO) -> Iterator[bytes]:
    """The content of a file, unpacked if its first bytes say that it is packed."""
    start = raw.read(6)
    raw.seek(0)
    if start.startswith(b"\xfd7zXZ\0"):
        with lzma.LZMAFile(raw) as file:
            yield from iter(lambda: file.read(_BLOCK), b"")
    elif start.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=raw) as file:
            yield from iter(lambda: file.read(_BLOCK), b"")
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        yield from _zstandard(raw)
    else:
        yield from iter(lambda: raw.read(_BLOCK), b"")


def _zstandard(raw: BinaryIO) -> Iterator[bytes]:
    """Unpack zstandard frames and notice a missing end, which the library's own reader does not."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    # It unpacks all that it is given at once, and a few bytes can stand for 128 KiB.
    while packed := raw.read(64):
        while packed:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            block = frame.decompress(packed)
            packed = frame.unused_data
            if block:
                yield block
    if not frame.eof:
        raise EOFError("its end is missing")
