"""Damaged and hostile files of every kind: each gives a result or one clear line, in bounded time and memory.

A kind is a file in a folder of valid ones, and what reads it. A case depends on its kind and its number alone.
"""

import contextlib
import copy
import gzip
import io
import json
import lzma
import os
import random
import resource
import shutil
import signal
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard
from corpora import make_corpus
from judge_server import judge_server

import frailt
from frailt import ModelConfig, PrepareConfig, TrainConfig, cli
from frailt.data.storyworld import stories
from frailt.errors import InputError
from frailt.evaluation.judge.beginnings import read_beginnings
from frailt.evaluation.judge.prompt import read_prompt
from frailt.options import parse

SECONDS = 20
"""What a case may take on a busy machine; most take milliseconds."""
MEMORY = 3 << 30
"""Bytes of address space that a case may add to those of the process."""
LONGEST_LINE = 700


# Mutations


def flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[draw.randrange(len(changed))] = draw.choice((0, 255, draw.randrange(256)))
    return bytes(changed)


def flip_in_header(data: bytes, draw: random.Random) -> bytes:
    return flip(data[:64], draw) + data[64:]


def cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.choice((0, 1, 7, draw.randrange(len(data) + 1)))]


def extend(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice((b"\0", b"\n{", draw.randbytes(100), data, b"\xff" * 5000))


def splice(data: bytes, draw: random.Random) -> bytes:
    at, start = draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)
    return data[:at] + data[start : start + draw.randrange(200)] + data[at:]


def huge_number(data: bytes, draw: random.Random) -> bytes:
    """Somewhere four bytes become a number that is far too large, or negative."""
    at = 4 * draw.randrange(max(1, len(data) // 4))
    number = draw.choice((2**31 - 1, -1, -(2**31), 2**30, 10_000_000, 0))
    return data[:at] + struct.pack("<i", number) + data[at + 4 :]


BYTES = (flip, flip, flip_in_header, cut, extend, splice, huge_number)

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, -0.0, 1e308, 10**30, 10**400, float("nan"), float("inf"), "", "x" * 5000,
    "\x1b[2J\x07", "\ud800", "<script>alert(1)</script>", "../../etc/passwd", "1^99999999", "nan", [], {}, [[]], [None],
    [0] * 3000, ["a"], {"a": 1}, {"": {}}, "64", 1e-320, -(10**9), 7, 2**31, 2**63, 10**7,
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys or indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def edit(value: Any, draw: random.Random) -> Any:
    """A JSON value with a field replaced, missing or new."""
    value = copy.deepcopy(value)
    spots = list(places(value))
    if not spots or draw.random() < 0.05:
        return draw.choice(NASTY)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        container, key = draw.choice(spots)
        what = draw.random()
        with contextlib.suppress(KeyError, IndexError):
            if what < 0.7:
                container[key] = draw.choice(NASTY)
            elif what < 0.9:
                del container[key]
            elif isinstance(container, dict):
                container[draw.choice(("extra", "", "x" * 300))] = draw.choice(NASTY)
    return value


def edit_json(data: bytes, draw: random.Random) -> bytes:
    what = draw.random()
    if what < 0.03:
        return b"[" * 100_000 + b"]" * 100_000
    if what < 0.06:
        return b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    if what < 0.09:
        digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()] or [0]
        at = draw.choice(digits)
        return data[:at] + b"9" * 10_000 + data[at:]
    return json.dumps(edit(json.loads(data), draw)).encode(errors="replace")


def edit_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    what = draw.random()
    if what < 0.7:
        lines[at] = edit_json(lines[at], draw) + b"\n"
    elif what < 0.8:
        del lines[at]
    elif what < 0.9:
        lines.insert(at, draw.choice((b"5\n", b"\n", b"null\n", b"\xff\xfe\n", b"[]\n", lines[0])))
    else:
        draw.shuffle(lines)
    return b"".join(lines)


def edit_header(data: bytes, draw: random.Random) -> bytes:
    """safetensors: eight bytes of length, and JSON."""
    length = int.from_bytes(data[:8], "little")
    header = edit_json(data[8 : 8 + length], draw)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def edit_text(data: bytes, draw: random.Random) -> bytes:
    odd = (
        b"\0" * 300,
        b"\xff",
        b"- ",
        b": ",
        b"&a [*a, *a]",
        b"=" * 60_000,
        b"\t",
        b"\xed\xa0\x80",
        b"<|endoftext|>" * 200,
    )
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(odd) + data[at:]


# Kinds


@dataclass(frozen=True)
class Kind:
    """A file and what reads it: commands, or functions."""

    path: str
    readers: tuple[str | Callable[[], object], ...]
    mutations: tuple[Callable[[bytes, random.Random], bytes], ...]
    count: int = 10
    """Cases in the default suite."""


JSON = (edit_json, edit_json, edit_json, edit_json, flip, cut)
LINES = (edit_lines, edit_lines, edit_lines, flip, cut)
TEXT = (flip, cut, splice, edit_text, edit_text)
STORY = "story Hi --max-tokens 1 --temperature 0 --model"
SIZES = "--data data --shape 1^2 --tokens 640 --batch 2 --evaluations 2 --dim 16 --heads 2 --context 32"
TRAIN = f"train {SIZES} --resume --out"
PLAIN = f"{STORY} plain.bin --tokenizer"
JUDGE = "judge grade run --judge m --base-url URL --completions 2 --beginnings b.yaml --max-tokens 4 --out judged"
EVALUATE = "evaluate run --text"

KINDS = {
    "config": Kind("run/config.json", ("info run", f"{STORY} run", "export run --to gguf --out fresh"), JSON),
    "weights": Kind("run/model.safetensors", ("info run", f"{STORY} run"), (*BYTES, edit_header, edit_header)),
    "tokenizer": Kind("run/tokenizer.json", (f"{STORY} run",), JSON),
    "run": Kind("run/run.json", ("info run", f"{TRAIN} run"), JSON),
    "metrics": Kind("run/metrics.jsonl", ("info run", f"{TRAIN} run"), LINES),
    "story-losses": Kind("run/story_nats.npy", (f"{TRAIN} run",), BYTES),
    "resume": Kind("cut/resume.pt", (f"{TRAIN} cut",), BYTES),
    "manifest": Kind("data/manifest.json", (f"{TRAIN} run",), JSON),
    "tokens": Kind("data/train.bin", (f"{TRAIN} run",), BYTES),
    "llama2c": Kind("plain.bin", ("info plain.bin", f"{PLAIN} tok.bin"), BYTES),
    "llama2c-tokens": Kind("tok.bin", (f"{PLAIN} tok.bin",), BYTES),
    "sentencepiece": Kind("tok.model", (f"{PLAIN} tok.model",), BYTES),
    "text": Kind("text.txt", (f"{EVALUATE} text.txt",), TEXT, 5),
    "xz": Kind("text.txt.xz", (f"{EVALUATE} text.txt.xz",), BYTES, 5),
    "zst": Kind("text.txt.zst", (f"{EVALUATE} text.txt.zst",), BYTES, 5),
    "gz": Kind("text.txt.gz", (f"{EVALUATE} text.txt.gz",), BYTES, 5),
    "beginnings-yaml": Kind("b.yaml", (lambda: read_beginnings(Path("b.yaml")),), TEXT),
    "beginnings-json": Kind("b.json", (lambda: read_beginnings(Path("b.json")),), JSON),
    "prompt": Kind("prompt.txt", (lambda: read_prompt(Path("prompt.txt")),), TEXT),
    "replies": Kind("judged/replies.jsonl", (JUDGE,), LINES, 2),
    "completions": Kind("judged/completions/*.json", (JUDGE,), JSON, 4),
    "judge-report": Kind("judged/judge.json", (JUDGE,), JSON, 2),
}

COMPARE = "compare --data data --dim 16 --heads 2 --context 32 --batch 2 --tokens 640 --shapes 1,1^2 --out compared"
GRID = "reproduce --data data --widths 16 --heads 2 --context 32 --shapes 1,1^2 --budget 640 --jobs 1 --out grid"

STUDIES = {
    f"{folder}-{name}": Kind(f"{folder}/runs/*1x2*/{name}", (command,), mutations)
    for folder, command in (("compared", COMPARE), ("grid", f"{GRID} --report"))
    for name, mutations in (
        ("run.json", JSON),
        ("metrics.jsonl", LINES),
        ("story_nats.npy", BYTES),
        ("config.json", JSON),
    )
} | {"budgets": Kind("grid/budgets.json", (GRID.replace("640", "0.2min") + " --plan",), JSON)}
"""Read by whole studies, which take a second each."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a valid file of each kind, as the current one."""
    folder = tmp_path_factory.mktemp("fuzz")
    before = Path.cwd()
    os.chdir(folder)
    make_corpus(folder / "data", stories=30)
    for name in ("run", "cut"):
        steps = 0

        def stop(name: str = name) -> bool:
            nonlocal steps
            steps += 1
            return name == "cut" and steps > 5

        config = frailt.TrainConfig(
            model=frailt.ModelConfig(shape="1^2", dim=16, heads=2, context=32, vocab_size=300),
            tokens=640, batch=2, evaluations=2, device="cpu",
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            frailt.train(config, frailt.Corpus(folder / "data"), folder / name, stop=stop)
    pieces = frailt.load("run").tokenizer.pieces
    write_llama2c(folder / "plain.bin", len(pieces))
    write_llama2c_tokens(folder / "tok.bin", pieces)
    write_sentencepiece(folder / "tok.model", pieces)
    text = "".join(f"{story.text}\n<|endoftext|>\n" for story in stories(3, seed=9))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    (folder / "text.txt.xz").write_bytes(lzma.compress(text.encode()))
    (folder / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "text.txt.zst").write_bytes(zstandard.compress(text.encode()))
    (folder / "b.yaml").write_text("- Once upon a time\n- One day, a cat\n", encoding="utf-8")
    (folder / "b.json").write_text('["Once upon a time", "One day, a cat"]', encoding="utf-8")
    (folder / "prompt.txt").write_text("Grade this story:\n{story}\n", encoding="utf-8")
    try:
        with judge_server() as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", "key")
            patch.setenv("FUZZ_URL", server.url)
            assert run(JUDGE)[0] == 0
            shutil.copytree(folder, folder.with_name("pristine"))
            yield folder
    finally:
        os.chdir(before)


def write_llama2c(path: Path, vocab_size: int) -> None:
    """llama2.c's first format: one block of width 8, tied."""
    dim, hidden, layers, heads, context = 8, 12, 1, 2, 16
    count = vocab_size * dim + layers * (2 * dim + 4 * dim * dim + 3 * dim * hidden) + dim + context * (dim // heads)
    draw = random.Random(0)
    header = struct.pack("<7i", dim, hidden, layers, heads, heads, vocab_size, context)
    path.write_bytes(header + struct.pack(f"<{count}f", *(draw.gauss(0, 0.3) for _ in range(count))))


def write_llama2c_tokens(path: Path, pieces: list[str]) -> None:
    """llama2.c's tokenizer: the longest piece, then score, length and bytes of each."""
    texts = [piece.replace("▁", " ").encode() for piece in pieces]
    records = [struct.pack("<fi", -float(i), len(text)) + text for i, text in enumerate(texts)]
    path.write_bytes(struct.pack("<i", max(map(len, texts))) + b"".join(records))


def write_sentencepiece(path: Path, pieces: list[str]) -> None:
    """A SentencePiece model as protobuf: field 1 for each piece, with text, score and type; field 2, a BPE."""

    def field(number: int, data: bytes) -> bytes:
        length, size = b"", len(data)
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + data

    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(pieces) - 259)]
    records = [
        field(1, field(1, piece.encode()) + b"\x15" + struct.pack("<f", -float(i)) + b"\x18" + bytes([kind]))
        for i, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
    ]
    path.write_bytes(b"".join(records) + field(2, b"\x18\x02"))


# The test


def run(command: str | Callable[[], object]) -> tuple[int, str]:
    """Run a command in this process, or call a function as if it were one: its status, and what it says on stderr."""
    if callable(command):
        try:
            command()
        except (InputError, OSError) as error:
            return 2, f"frailt: {error}"
        return 0, ""
    words = [os.environ["FUZZ_URL"] if word == "URL" else word for word in command.split()]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(words)
    return status, err.getvalue()


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Within, time and memory have an end."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else None
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        if pages is not None:
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def try_case(home: Path, kind: Kind, number: int) -> str | None:
    """What is wrong with how the case ends, if anything."""
    target = min(home.glob(kind.path))  # A grid has several runs.
    draw = random.Random(f"{kind.path} {number}")
    command = draw.choice(kind.readers)
    target.write_bytes(draw.choice(kind.mutations)(target.read_bytes(), draw))
    try:
        with bounded(), warnings.catch_warnings():
            warnings.simplefilter("error")
            status, said = run(command)
    except Exception as error:
        restore(home)
        return f"{command}: {type(error).__name__}: {error}"
    changed = [name for name in restore(home) if name != target and not name.name.startswith(".")]
    lines = said.splitlines() or [""]
    if status not in (0, 1, 2) or "not enough memory" in said or "no end after" in said:
        return f"{command}: status {status}, {said}"
    if status and not lines[-1].startswith("frailt: "):
        return f"{command}: status {status} without a message, {said}"
    if max(map(len, lines)) > LONGEST_LINE:
        return f"{command}: a line of {max(map(len, lines))} characters: {said[:200]}"
    if status == 2 and changed:
        return f"{command}: refused, and it changed {', '.join(map(str, changed))}; {said}"
    return None


def restore(home: Path) -> list[Path]:
    """Make everything as it was; the files that were not."""
    pristine = home.with_name("pristine")
    changed = []
    for path in sorted(home.rglob("*"), reverse=True):
        if not (pristine / path.relative_to(home)).exists():
            changed.append(path)
            path.rmdir() if path.is_dir() else path.unlink()
    for path in pristine.rglob("*"):
        copied = home / path.relative_to(pristine)
        if path.is_file() and (not copied.exists() or copied.read_bytes() != path.read_bytes()):
            changed.append(copied)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
    return changed


# The arguments


def test_odd_arguments_are_parsed_or_refused() -> None:
    flags = [
        "--dim",
        "--shape",
        "--tokens",
        "--seed",
        "--lr",
        "--out",
        "--text",
        "--valid",
        "--world",
        "--",
        "-x",
        "--no-tied",
    ]
    values = [*(str(value)[:5000] for value in NASTY), "9" * 5000, "~", "~x/y", "4M", "\udce9"]
    words = [*flags, *values, *(f"{flag}={value}" for flag in flags for value in values)]
    for number in range(50):
        draw = random.Random(number)
        args = [draw.choice(words) for _ in range(draw.randrange(6))]
        kind = draw.choice((TrainConfig, ModelConfig, PrepareConfig))
        with bounded():
            _, said = run(lambda args=args, kind=kind: parse(kind, "verb", args, None))
        assert len(said) < LONGEST_LINE, args


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_gives_a_result_or_one_line(home: Path, name: str) -> None:
    try_many(home, KINDS[name], KINDS[name].count)


@pytest.fixture(scope="module")
def studied(home: Path) -> Path:
    """The folder with a comparison and a grid in it too."""
    for command in (COMPARE, GRID, GRID.replace("640", "0.2min")):
        status, said = run(command)
        assert status == 0, said
    pristine = home.with_name("pristine")
    shutil.rmtree(pristine)
    shutil.copytree(home, pristine)
    return home


def try_many(home: Path, kind: Kind, count: int) -> None:
    cases = range(int(os.environ.get("FRAILT_FUZZ_CASES", count)))
    failures = {n: wrong for n in cases if (wrong := try_case(home, kind, n)) is not None}
    assert not failures, f"{len(failures)} of {len(cases)}\n" + "\n".join(f"case {n}: {w}" for n, w in failures.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_thousands_of_damaged_files(home: Path, name: str) -> None:
    try_many(home, KINDS[name], 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_damaged_files_in_studies(studied: Path, name: str) -> None:
    try_many(studied, STUDIES[name], 50)
