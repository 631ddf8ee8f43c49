"""Stories out of files: every form gives the same stories, and bad files one clear line."""

import bz2
import gzip
import lzma
import os
import re
import struct
import tarfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import zstandard
from damage import check_refusals, damaged_bytes
from hypothesis import example, given
from hypothesis import strategies as st
from shared_data import STORIES, needs_shared

from frailt.data import text
from frailt.data.text import LONGEST, StoryReader, read_stories
from frailt.errors import InputError

STORY_LIST = ["One day, Lily ran.\nShe was happy.", "Ben said, “Hi!” 🙂", "The end."]
CONTENT = "".join(f"{story}\n<|endoftext|>\n" for story in STORY_LIST).encode()

packers: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda content: content,
    "xz": lzma.compress,
    "gz": gzip.compress,
    "zst": zstandard.ZstdCompressor().compress,
    "zst in frames": lambda content: b"".join(map(zstandard.compress, (content[:40], content[40:]))),
    "gz in members": lambda content: gzip.compress(content[:40]) + gzip.compress(content[40:]),
    "xz in streams": lambda content: lzma.compress(content[:40]) + lzma.compress(content[40:]),
    "bz2": bz2.compress,
    "lzma": lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
    "padded xz streams": lambda content: (
        lzma.compress(content[:40]) + bytes(4) + lzma.compress(content[40:]) + bytes(8)
    ),
    "padded gz members": lambda content: (
        gzip.compress(content[:40]) + bytes(3) + gzip.compress(content[40:]) + bytes(9)
    ),
    "zst after a frame to skip": lambda content: struct.pack("<III", 0x184D2A50, 4, 9) + zstandard.compress(content),
    "unsized zst": lambda content: zstandard.ZstdCompressor(write_content_size=False).compress(content),
}


def stories(folder: Path, content: bytes, name: str = "stories") -> list[str]:
    (folder / name).write_bytes(content)
    return list(read_stories([folder / name]))


@pytest.mark.parametrize("form", packers)
def test_packed_files_are_known_by_content(tmp_path: Path, form: str) -> None:
    assert stories(tmp_path, packers[form](CONTENT), "stories.txt") == STORY_LIST


@pytest.mark.parametrize(
    "content",
    [
        CONTENT.removesuffix(b"<|endoftext|>\n"),
        CONTENT.removesuffix(b"\n<|endoftext|>\n"),
        CONTENT.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + CONTENT,
        CONTENT.replace(b"<|endoftext|>\n", b"\n<|endoftext|>\n\n\n"),
        CONTENT.replace(b"<|endoftext|>\n", b"<|endoftext|>\n<|endoftext|>\n \n<|endoftext|>\n"),
        CONTENT.replace(b"\n<|endoftext|>\n", b"<|endoftext|>"),
        CONTENT[:45] + CONTENT[45:].replace(b"<|endoftext|>\n", b"<|endoftext|>\n\xef\xbb\xbf", 1),
    ],
    ids=[
        "no last separator",
        "no last line end",
        "crlf",
        "bom",
        "blank lines",
        "empty stories",
        "inline",
        "joined",
    ],
)
def test_the_ways_people_write_story_files(tmp_path: Path, content: bytes) -> None:
    assert stories(tmp_path, content) == STORY_LIST


def test_files_follow_each_other_and_progress_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    (tmp_path / "b").write_bytes(lzma.compress(CONTENT))
    reader = StoryReader([tmp_path / "a", tmp_path / "b"])
    assert reader.total == sum((tmp_path / name).stat().st_size for name in "ab")
    assert reader.done == 0
    seen = []
    for _ in reader:
        seen.append(reader.done)
    assert seen == sorted(seen)
    assert seen[-1] == reader.total
    assert list(reader) == STORY_LIST * 2, "a reader can be read again"


@given(
    parts=st.lists(st.sampled_from(["a", "é", "🙂", "\n", " ", "<|endoftext|>", "<|endof", "text|>"])),
    block=st.integers(1, 20),
)
@example(parts=["<|endof"] * 4 + ["🙂"], block=1)
def test_stories_do_not_depend_on_how_the_file_is_read(parts: list[str], block: int) -> None:
    content = "".join(parts).encode()
    blocks = (content[at : at + block] for at in range(0, len(content), block))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "LONGEST", 30)
        whole = list(text._records(iter([content])))
        assert list(text._records(blocks)) == whole
        assert all(len(record) <= 30 for record in whole)
        assert b"".join(whole) == content.replace(b"<|endoftext|>", b"")
        for record in whole:
            record.decode()  # Nothing is cut inside a character.


def test_an_endless_record_is_cut_at_a_line_end_a_space_or_a_character(tmp_path: Path) -> None:
    line = "x" * 99 + "\n"
    found = stories(tmp_path, (line * (3 * LONGEST // 100)).encode())
    assert len(found) == 3 + 1
    assert all(set(story.split("\n")) == {"x" * 99} for story in found)
    word = "y" * 99 + " "
    found = stories(tmp_path, (word * (2 * LONGEST // 100)).encode())
    assert all(set(story.split(" ")) == {"y" * 99} for story in found)
    found = stories(tmp_path, ("z" + "é" * LONGEST).encode())
    assert "".join(found) == "z" + "é" * LONGEST
    assert len(found) == 3


@pytest.mark.parametrize("form", ["plain", "xz", "gz", "zst"])
@pytest.mark.parametrize("separated", [True, False], ids=["stories", "one endless record"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str, separated: bool) -> None:
    megabytes = 12
    story = b"Once upon a time there was a little fox who told this story again.\n" * 150
    record = story + b"<|endoftext|>\n" if separated else story
    content = record * (megabytes * 1_000_000 // len(record))
    fast = {
        "xz": lambda content: lzma.compress(content, preset=0),
        "gz": lambda content: gzip.compress(content, 1),
    }
    path = tmp_path / "long"
    path.write_bytes(fast.get(form, packers[form])(content))
    size = len(content)
    del content
    tracemalloc.start()
    read = sum(len(story) for story in read_stories([path]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read > 0.9 * size
    # At most one unpacked block, a record, its pieces and its text.
    assert peak < 8_000_000


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "blank").write_bytes(b"\n<|endoftext|>\n \n")
    (tmp_path / "latin").write_bytes("Un été.".encode("latin-1"))
    (tmp_path / "wide").write_bytes(CONTENT.decode().encode("utf-16"))
    (tmp_path / "good").write_bytes(CONTENT)
    for name, says in {
        "missing": "does not exist",
        "folder": "is a folder; name the text files in it",
        "empty": "holds no story",
        "blank": "holds no story",
        "latin": "is not UTF-8 text",
        "wide": "is not UTF-8 text",
    }.items():
        with pytest.raises(InputError, match=re.escape(f"{tmp_path / name} {says}")) as caught:
            list(read_stories([tmp_path / "good", tmp_path / name]))
        assert "\n" not in str(caught.value)


def tar(content: bytes) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("stories.txt")
        info.size = len(content)
        archive.addfile(info, BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tar(CONTENT), "is a tar archive; unpack it"),
        (gzip.compress(tar(CONTENT)), "is a tar archive; unpack it"),
        (b"PK\x03\x04" + CONTENT, r"is a zip archive; unpack it \(xz, gzip"),
        (b"7z\xbc\xaf\x27\x1c" + CONTENT, "is a 7-Zip"),
        (b"PAR1" + CONTENT, "is a Parquet file"),
        (b"%PDF-1.7\n" + CONTENT, "is a PDF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer"),
        (b'[\n  {"story": "One day."}]', "is JSON; write its stories to a text file"),
        (b'\xef\xbb\xbf{"text": "One day."}\n{"text": "Ben ran."}\n', "is JSON"),
        (b"\n<!DOCTYPE html>\n<title>404</title>", "is a web page"),
        (CONTENT + b"One day\0\n<|endoftext|>\n", r"is not UTF-8 text \(NUL bytes after 3 stories\)"),
        (CONTENT.decode().encode("utf-16-le"), r"is not UTF-8 text \(NUL bytes after 0 stories\)"),
        (zstandard.compress(bytes(64 << 20)), r"is not UTF-8 text \(NUL bytes after 0 stories\)"),
    ],
)
def test_what_is_not_text_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(InputError, match=f"stories {says}"):
        stories(tmp_path, content)


def test_unpacking_takes_bounded_memory(tmp_path: Path) -> None:
    text = b"Lily ran. " * 1000
    # Compressing with so large a dictionary would take its memory here, so the header is made to ask for it.
    xz = bytearray(lzma.compress(text, check=lzma.CHECK_NONE))
    assert xz[16] in range(41), "the size of the dictionary, as the format writes it"
    xz[16] = 37
    xz[20:24] = struct.pack("<I", zlib.crc32(xz[12:20]))
    frame = struct.pack("<I", 0xFD2FB528) + bytes([0, (30 - 10) << 3]) + b"\x01\x00\x00"
    for content in (bytes(xz), frame):
        with pytest.raises(InputError, match="takes more than 128 MiB of memory to unpack; unpack it, or pack it"):
            stories(tmp_path, content)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(gzip.compress(CONTENT),))
    writer.start()
    assert list(read_stories([tmp_path / "pipe"])) == STORY_LIST
    writer.join()


@pytest.mark.parametrize("form", ["xz", "gz", "zst", "unsized zst", "bz2"])
def test_damaged_archives_are_refused(tmp_path: Path, form: str) -> None:
    content = b"".join(b"Story %d of this book.\n<|endoftext|>\n" % number for number in range(9000))
    packed = packers[form](content)
    middle = len(packed) // 2
    damages = {
        "cut": packed[:middle],
        "cut at the end": packed[:-1],
        "cut at the start": packed[:8],
        "trailing": packed + b"garbage",
        "overwritten": packed[:middle] + bytes(200) + packed[middle + 200 :],
    }
    for damage, damaged in damages.items():
        with pytest.raises(InputError, match="stories is a damaged archive") as caught:
            stories(tmp_path, damaged)
        assert "\n" not in str(caught.value), damage


@pytest.mark.parametrize("form", ["plain", "xz", "gz", "zst", "bz2", "lzma"])
def test_damaged_text_is_read_or_refused_in_one_line(tmp_path: Path, form: str) -> None:
    contents = damaged_bytes(packers[form](CONTENT * 20), 100)
    check_refusals(tmp_path / "stories", contents, lambda path: list(read_stories([path])))


@needs_shared
def test_real_files_hold_the_stories_that_their_list_says() -> None:
    raw = lzma.decompress((STORIES / "valid_v1.txt.xz").read_bytes()).decode()
    expected = [story.strip() for story in raw.split("<|endoftext|>") if story.strip()]
    found = list(read_stories([STORIES / "valid_v1.txt.xz"]))
    assert len(found) == 455
    assert found == expected
