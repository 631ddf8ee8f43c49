"""The prepared folder: what is in it, and that it is there completely or not at all."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_data import STORIES, TOK512, needs_shared

from frailt.data import hub, shards
from frailt.data import prepare as module
from frailt.data.bpe import BOS, BPE
from frailt.data.corpus import Corpus
from frailt.data.manifest import Manifest, token_type
from frailt.data.prepare import PrepareConfig, embedded, prepare
from frailt.data.sources import Sources
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.files import BusyError


def some_stories(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    names, things = ["Lily", "Ben", "Tom", "Mia", "Zoë"], ["ball", "cat", "tree", "red hat", "big dog", "🙂"]
    return [
        f"{draw.choice(names)} saw a {draw.choice(things)}.\n"
        + " ".join(f"It was {draw.randrange(1000)} days old." for _ in range(draw.randrange(1, 5)))
        for _ in range(count)
    ]


def write(path: Path, stories: list[str]) -> Path:
    path.write_text("".join(f"{story}\n<|endoftext|>\n" for story in stories), encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    text = write(tmp_path / "stories.txt", some_stories(2000))
    return PrepareConfig(text=(text,), out=tmp_path / "out", vocab_size=320, valid_fraction=0.1)


def stories_in(folder: Path, side: str) -> list[str]:
    tokens = np.fromfile(folder / f"{side}.bin", dtype="<u2")
    assert tokens[0] == BOS
    tokenizer = Tokenizer.load(folder)
    starts = [*np.flatnonzero(tokens == BOS), len(tokens)]
    return [tokenizer.decode(tokens[a:b].tolist()) for a, b in pairwise(starts)]


def test_every_story_is_on_one_side_in_order(config: PrepareConfig) -> None:
    prepare(config)
    train, valid = stories_in(config.out, "train"), stories_in(config.out, "valid")
    stories = some_stories(2000)
    assert len(set(stories)) < len(stories), "the test needs stories that come twice"
    assert not set(train) & set(valid)
    assert train == [story for story in stories if story in set(train)]
    assert valid == [story for story in stories if story in set(valid)]
    assert len(train) + len(valid) == len(stories)
    assert 0.05 < len(valid) / len(stories) < 0.15


def test_the_manifest_says_what_is_there(config: PrepareConfig) -> None:
    made = prepare(config)
    manifest = json.loads((config.out / "manifest.json").read_text())
    assert Manifest.read(config.out) == made.manifest
    assert made.fresh
    assert {path.name for path in config.out.iterdir()} == {
        ".prepare.lock",
        "train.bin",
        "valid.bin",
        "tokenizer.json",
        "manifest.json",
    }
    assert manifest["vocab_size"] == 320
    assert manifest["tokenizer"] == Tokenizer.load(config.out).digest
    assert manifest["dropped"] == 0
    assert (manifest["dtype"], manifest["bos"], manifest["ends"]) == ("uint16", 1, [1, 2])
    source = config.text[0].read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    assert manifest["sources"] == [{"use": "text", "name": "stories.txt", "sha256": digest, "bytes": len(source)}]
    assert str(config.out.parent) not in json.dumps(manifest)
    for side in ("train", "valid"):
        content = (config.out / f"{side}.bin").read_bytes()
        stories = stories_in(config.out, side)
        assert manifest[side] == {
            "stories": len(stories),
            "tokens": len(content) // 2,
            "bytes": sum(len(story.encode()) for story in stories),
            "sha256": hashlib.sha256(content).hexdigest(),
        }


def test_the_side_of_a_story_does_not_depend_on_the_others(config: PrepareConfig, tmp_path: Path) -> None:
    prepare(config)
    stories = some_stories(2000)
    random.Random(1).shuffle(stories)
    text = write(tmp_path / "shuffled.txt", stories[:1000])
    other = replace(config, text=(text,), out=tmp_path / "other")
    prepare(other)
    assert set(stories_in(other.out, "valid")) <= set(stories_in(config.out, "valid"))


def test_training_stories_that_are_validation_stories_are_dropped(config: PrepareConfig, tmp_path: Path) -> None:
    stories = some_stories(2000)
    held_out = [*stories[:50], "Only here."]
    made = prepare(replace(config, valid=(write(tmp_path / "valid.txt", held_out),)))
    assert stories_in(config.out, "valid") == held_out
    expected = [story for story in stories if story not in held_out]
    assert stories_in(config.out, "train") == expected
    assert made.manifest.dropped == len(stories) - len(expected) >= 50
    assert [source.use for source in made.manifest.sources] == ["text", "valid"]


def test_validation_stories_do_not_train_the_tokenizer(config: PrepareConfig, tmp_path: Path) -> None:
    odd = [f"{story} {'żŵ' * 500}" for story in some_stories(50, seed=1)]
    text = write(tmp_path / "more.txt", [*some_stories(2000), *odd])
    prepare(replace(config, text=(text,), valid=(write(tmp_path / "valid.txt", odd),)))
    assert not any("ż" in piece or "ŵ" in piece for piece in Tokenizer.load(config.out).pieces)


def test_chunks_change_nothing(config: PrepareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(config).manifest
    monkeypatch.setattr(shards, "_CHUNK", 5000)
    assert prepare(replace(config, out=tmp_path / "chunks")).manifest == whole


def test_a_script_without_a_main_guard_and_more_text_than_a_chunk(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import frailt\n"
        "from frailt.data import shards\n"
        "shards._CHUNK = 1000\n"
        "frailt.prepare(frailt.PrepareConfig(world=200, out='out', vocab_size=300))\n"
    )
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {path.name for path in tmp_path.iterdir()} == {"script.py", "out"}


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path: Path) -> None:
    small = BPE.train(some_stories(100), vocab_size=300)
    large = BPE([*small.pieces, *(chr(0x4E00 + i) + chr(0x4E00 + k) for i in range(256) for k in range(256))], [])
    assert large.vocab_size > 1 << 16
    sides = ["train", "valid"] * 30
    parts = shards.write_tokens(zip(sides, some_stories(60), strict=True), large, tmp_path, advanced=lambda: None)
    manifest = Manifest(
        vocab_size=large.vocab_size,
        dtype=token_type(large.vocab_size),
        train=parts["train"],
        valid=parts["valid"],
    )
    manifest.write(tmp_path)
    corpus = Corpus(tmp_path)
    assert corpus.manifest == manifest
    assert corpus.train.tokens.dtype == np.dtype("<u4")
    expected = [token for story in some_stories(60)[::2] for token in (BOS, *large.encode(story))]
    assert corpus.train.tokens.tolist() == expected
    assert corpus.train.rows(1, batch=2, context=8, seed=0).shape == (2, 9)


def test_a_tokenizer_can_be_given(config: PrepareConfig, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(some_stories(100, seed=5), vocab_size=300)
    tokenizer.save(tmp_path / "given.json")
    made = prepare(replace(config, tokenizer=tmp_path / "given.json"))
    assert made.manifest.vocab_size == 300
    assert made.manifest.tokenizer == Tokenizer.load(config.out).digest == tokenizer.digest


def test_a_complete_folder_is_recognised(config: PrepareConfig, tmp_path: Path) -> None:
    first = prepare(config)
    times = {path: path.stat().st_mtime_ns for path in config.out.iterdir()}
    renamed = config.text[0].rename(tmp_path / "renamed.txt")
    second = prepare(replace(config, text=(renamed,)))
    assert not second.fresh
    assert second.manifest == first.manifest
    assert times == {path: path.stat().st_mtime_ns for path in config.out.iterdir()}


def test_other_settings_are_refused(config: PrepareConfig, tmp_path: Path) -> None:
    prepare(config)
    before = {path.name: path.read_bytes() for path in config.out.iterdir()}
    Tokenizer.load(config.out).save(tmp_path / "given.json")
    text = write(tmp_path / "more.txt", some_stories(10))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"vocab_size": 321}, "vocab_size 320, now 321"),
        ({"valid_fraction": 0.2}, "valid_fraction 0.1, now 0.2"),
        ({"tokenizer": tmp_path / "given.json"}, "tokenizer None, now"),
        ({"text": (text,)}, "sources"),
        ({"valid": (text,)}, "sources"),
    ]
    for change, says in changes:
        with pytest.raises(InputError, match=says) as caught:
            prepare(replace(config, **change))
        assert "choose another folder or delete it" in str(caught.value)
    assert before == {path.name: path.read_bytes() for path in config.out.iterdir()}


def test_a_damaged_or_foreign_folder_is_refused(config: PrepareConfig, tmp_path: Path) -> None:
    config.out.mkdir()
    (config.out / "train.bin").write_bytes(b"someone else's")
    with pytest.raises(InputError, match="is not a prepared folder"):
        prepare(config)
    assert (config.out / "train.bin").read_bytes() == b"someone else's"
    with pytest.raises(InputError, match="is not a prepared folder"):
        prepare(replace(config, out=config.text[0]))

    made = replace(config, out=tmp_path / "made")
    prepare(made)
    content = (made.out / "train.bin").read_bytes()
    (made.out / "train.bin").write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"train\.bin is missing or damaged"):
        prepare(made)
    (made.out / "train.bin").write_bytes(content)
    (made.out / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"lost its tokenizer\.json"):
        prepare(made)


def test_an_empty_folder_is_filled_in_place(config: PrepareConfig) -> None:
    """A mount point can be neither replaced nor removed, and its parent may not be writable."""
    config.out.mkdir()
    inode = config.out.stat().st_ino
    bad = replace(config, text=(write(config.out.parent / "bad.txt", ["one"]),))
    with pytest.raises(InputError, match="single story"):
        prepare(bad)
    assert list(config.out.iterdir()) == []
    assert prepare(config).fresh
    assert config.out.stat().st_ino == inode
    assert len(list(config.out.iterdir())) == 5


def test_the_lock_of_a_prepared_folder_stays(config: PrepareConfig) -> None:
    """Deleted while others wait for it, it could be held by two."""
    prepare(config)
    inode = (config.out / ".prepare.lock").stat().st_ino
    assert not prepare(config).fresh
    assert (config.out / ".prepare.lock").stat().st_ino == inode


def test_a_pipe_cannot_be_prepared(config: PrepareConfig, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is a pipe, and stories are read twice; write them to a file"):
        prepare(replace(config, text=(tmp_path / "pipe",)))
    assert not config.out.exists()


SCRIPT = """
import sys
from pathlib import Path
from frailt.data import prepare as module
module.EMBEDDED = 300
if sys.argv[1:]:
    config = module.PrepareConfig(text=sys.argv[1:2], out=sys.argv[2], tokenizer=sys.argv[3])
    print(module.prepare(config).fresh)
else:
    print(module.embedded())
"""


def python(*args: str | Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, *map(str, args)]
    pipe = subprocess.PIPE
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True)


def test_of_two_at_once_one_waits_for_the_other(config: PrepareConfig, tmp_path: Path) -> None:
    Tokenizer.train(some_stories(100), vocab_size=300).save(tmp_path / "tokenizer.json")
    both = [python(config.text[0], config.out, tmp_path / "tokenizer.json") for _ in range(2)]
    answers = [process.communicate(timeout=60) for process in both]
    assert sorted(out for out, _ in answers) == ["False\n", "True\n"]
    # The second may also have come when all was done.
    assert {errors for _, errors in answers} <= {"", f"waiting for another process that prepares {config.out}\n"}
    assert len(list(config.out.iterdir())) == 5


def test_who_waits_for_another_says_so(
    config: PrepareConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, busy = module.hold, iter([True, True])

    def hold(path: Path, message: str) -> Any:
        if next(busy, False):
            raise BusyError(message)
        return real(path, message)

    monkeypatch.setattr(module, "hold", hold)
    assert prepare(config).fresh
    assert capsys.readouterr().err == f"waiting for another process that prepares {config.out}\n"


def test_what_a_killed_process_leaves_is_cleared(config: PrepareConfig, tmp_path: Path) -> None:
    write(config.text[0], some_stories(1000) * 200)
    Tokenizer.train(some_stories(100), vocab_size=300).save(tmp_path / "tokenizer.json")
    with python(config.text[0], config.out, tmp_path / "tokenizer.json") as process:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in tmp_path.glob("out/train.bin")):
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.kill()
    left = {path.name for path in config.out.iterdir()}
    assert left == {".prepare.lock", "train.bin", "valid.bin", "tokenizer.json"}
    (config.out / ".manifest.json.abc.tmp").touch()
    (config.out / "mine.txt").touch()
    write(config.text[0], some_stories(1000))
    with pytest.raises(InputError, match=r"holds mine\.txt and is not a prepared folder"):
        prepare(config)
    (config.out / "mine.txt").unlink()
    assert prepare(config).fresh
    assert len(list(config.out.iterdir())) == 5


def test_the_embedded_world_is_made_once_by_processes_that_start_together(tmp_path: Path) -> None:
    together = [python(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    folder = tmp_path / "frailt" / "story-world-300"
    answers = [process.communicate(timeout=60) for process in together]
    assert {out for out, _ in answers} == {f"{folder}\n"}
    assert {errors for _, errors in answers} <= {"", f"waiting for another process that prepares {folder}\n"}
    assert Corpus(folder).manifest.valid.stories >= 1


def test_where_no_cache_can_be_written_the_world_is_temporary(tmp_path: Path) -> None:
    process = python(XDG_CACHE_HOME="/dev/null", TMPDIR=str(tmp_path))
    out, errors = process.communicate(timeout=60)
    assert Path(out.strip()).parent == tmp_path
    assert errors.startswith("/dev/null/frailt/story-world-300 cannot be written (")
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_complete_world_is_used_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EMBEDDED", 100)
    monkeypatch.setattr(module, "user_cache", lambda: tmp_path)
    folder = embedded()

    def refuse(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module, "hold", refuse)
    assert embedded() == folder


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interruption_leaves_nothing_and_a_rerun_succeeds(
    config: PrepareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    expected = prepare(replace(config, out=tmp_path / "expected")).manifest
    before = set(tmp_path.iterdir())
    monkeypatch.setattr(shards, "_CHUNK", 5000)
    calls = 0
    add = shards._ShardWriter.add

    def failing(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise error
        add(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shards._ShardWriter, "add", failing)
        with pytest.raises(type(error)) as caught:
            prepare(config)
    assert caught.value is error
    assert set(tmp_path.iterdir()) == before
    assert prepare(config).manifest == expected


def test_ctrl_c_ends_it_and_leaves_nothing(config: PrepareConfig, tmp_path: Path) -> None:
    write(config.text[0], some_stories(1000) * 400)
    Tokenizer.train(some_stories(100), vocab_size=300).save(tmp_path / "tokenizer.json")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from frailt.data.prepare import PrepareConfig, prepare\n"
        "text, out, tokenizer = map(Path, sys.argv[1:])\n"
        "prepare(PrepareConfig(text=(text,), out=out, tokenizer=tokenizer))\n"
    )
    files = [script, config.text[0], config.out, tmp_path / "tokenizer.json"]
    command = [sys.executable, *map(str, files)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in tmp_path.glob("out/train.bin")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT or process.returncode == 130
    assert "KeyboardInterrupt" in errors
    assert {path.name for path in tmp_path.iterdir()} == {"script.py", "stories.txt", "tokenizer.json"}


def test_of_few_stories_one_is_held_out(config: PrepareConfig, tmp_path: Path) -> None:
    stories = sorted(set(some_stories(30)))
    text = write(tmp_path / "few.txt", [*stories, *stories])
    prepare(replace(config, text=(text,), valid_fraction=1e-9))
    held_out = stories_in(config.out, "valid")
    assert len(held_out) == 2
    assert len(set(held_out)) == 1
    assert stories_in(config.out, "train") == [story for story in [*stories, *stories] if story != held_out[0]]
    other = write(tmp_path / "other.txt", stories[::-1])
    prepare(replace(config, text=(other,), out=tmp_path / "other", valid_fraction=1e-9))
    assert stories_in(tmp_path / "other", "valid") == held_out[:1], "whatever their order"
    prepare(replace(config, text=(text,), out=tmp_path / "most", valid_fraction=1 - 1e-9))
    assert len(set(stories_in(tmp_path / "most", "train"))) == 1


def test_of_many_stories_a_few_are_read_to_know_that_both_sides_have_some() -> None:
    sources = Sources((), (), world=(10_000, 0), valid_fraction=0.1)
    assert sources.limit == int(0.1 * 2**64)
    assert sources.text.done < 200


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
def test_a_single_story_is_refused(config: PrepareConfig, tmp_path: Path, fraction: float) -> None:
    text = tmp_path / "few.txt"
    text.write_text("One story.\nAnother one, but nothing parts them.\n")
    config = replace(config, valid_fraction=fraction)
    with pytest.raises(
        InputError,
        match=r"few.txt: this is a single story, and none is left to hold out; put a line <\|endoftext\|> after each",
    ):
        prepare(replace(config, text=(text,)))
    with pytest.raises(InputError, match="world is 1; give at least 2"):
        prepare(replace(config, text=(), world=1))
    with pytest.raises(InputError, match="all stories are validation stories and none is left to train on; give other"):
        prepare(replace(config, text=(text,), valid=(text,)))
    assert not config.out.exists()
    prepare(replace(config, text=(text,), valid=(write(tmp_path / "valid.txt", ["Of my own."]),)))
    assert len(stories_in(config.out, "train")) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": ()}, "exactly one source"),
        ({"world": 3}, "exactly one source"),
        ({"hub": "v2"}, "exactly one source"),
        ({"text": (), "hub": "v1", "valid": (Path("v"),)}, "leave valid out"),
        ({"text": (), "world": 0}, "world is 0"),
        ({"valid_fraction": 0.0}, "valid_fraction is 0.0"),
        ({"valid_fraction": 1.0}, "valid_fraction is 1.0"),
        ({"vocab_size": 259}, "vocab_size is 259"),
        ({"vocab_size": 2_000_000}, "from 260 to 1048576"),
    ],
)
def test_settings_that_mean_nothing_are_refused(config: PrepareConfig, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(config, **change)


def test_the_story_world_needs_no_file(tmp_path: Path) -> None:
    config = PrepareConfig(world=300, seed=3, out=tmp_path / "a", vocab_size=300, valid_fraction=0.1)
    made = prepare(config)
    assert made.manifest.train.stories + made.manifest.valid.stories == 300
    assert not prepare(config).fresh
    assert prepare(replace(config, out=tmp_path / "b")).manifest == made.manifest
    with pytest.raises(InputError, match="sources"):
        prepare(replace(config, seed=4))


def test_the_hub_gives_both_sides(config: PrepareConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    valid = write(tmp_path / "valid.txt", some_stories(20, seed=9))
    monkeypatch.setattr(hub, "fetch", lambda version: (config.text[0], valid))
    prepare(replace(config, text=(), hub="v2"))
    assert stories_in(config.out, "valid") == some_stories(20, seed=9)


def test_progress_is_reported(config: PrepareConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_CHUNK", 50_000)
    reports = list[tuple[str, float, float, str]]()
    prepare(config, report=lambda *report: reports.append(report))
    assert [name for name, _ in groupby(name for name, *_ in reports)] == ["training the tokenizer", "encoding"]
    shares = [done / total for name, done, total, _ in reports if name == "encoding"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert reports[-1][3] == "100%"


@needs_shared
def test_real_stories_have_the_tokens_that_their_list_says(tmp_path: Path) -> None:
    text, valid = STORIES / "train_v1.txt.xz", STORIES / "valid_v1.txt.xz"
    config = PrepareConfig(text=(text,), valid=(valid,), tokenizer=TOK512, out=tmp_path / "v1")
    manifest = prepare(config).manifest
    assert manifest.train.stories == 2957
    assert round(manifest.train.tokens, -5) == 1_300_000
    assert (manifest.valid.stories, manifest.dropped) == (455, 0)
