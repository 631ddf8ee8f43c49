"""Stories to a folder of tokens: what ``frailt prepare`` does.

The folder holds ``train.bin`` and ``valid.bin`` (little-endian tokens; each story is BOS and its tokens, without an end
token), ``tokenizer.json``, and ``manifest.json``, which says where they came from and how much they hold. The manifest
is written last, so a folder that has one is complete.
"""

import errno
import shutil
import sys
import tempfile
import time
from atexit import register
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np

from frailt.data.bpe import FIXED, LARGEST
from frailt.data.manifest import Manifest, Settings, Source, token_type
from frailt.data.shards import write_tokens
from frailt.data.sources import Sources
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError, excerpt
from frailt.files import BusyError, hold, remove_leftovers, user_cache

EMBEDDED = 20_000
"""Stories of the embedded story world where nothing else is asked for."""
SAMPLE = 32 << 20
"""A new tokenizer is trained on the training stories of the first 32 MiB of text."""
LOCK = ".prepare.lock"
"""Held while a folder is filled, and left in it. Without a manifest and an owner, it marks what a kill left behind."""
FILES = ("train.bin", "valid.bin", "tokenizer.json")
"""What a folder holds besides its manifest."""

Report = Callable[[str, float, float, str], None]
"""Takes the name of some work, how much of how much is done, and the state in words."""


def quiet(name: str, done: float, total: float, state: str) -> None:
    """A ``Report`` to nobody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareConfig:
    """Where stories come from and where their tokens go. Give one of ``text``, ``hub`` and ``world``."""

    out: Path
    """Folder to fill; it must be new, empty, or prepared before in the same way."""
    text: tuple[Path, ...] = ()
    """Text files with stories, each closed by a line <|endoftext|>; plain, .xz, .gz, .zst or .bz2."""
    valid: tuple[Path, ...] = ()
    """Files with validation stories; by default some of the stories are held out."""
    hub: Literal["v1", "v2"] | None = None
    """Download TinyStories, or its GPT-4 version v2, with its validation stories."""
    world: int | None = None
    """Number of stories to make up without any file or network."""
    seed: int = 0
    """Seed of the made-up stories."""
    tokenizer: Path | None = None
    """Tokenizer to use (tokenizer.json, *.model, *.bin or a folder); by default one is trained."""
    vocab_size: int = 512
    """Pieces of a trained tokenizer."""
    valid_fraction: float = 0.01
    """Share of the stories that is held out where no validation files are given: at least one story."""

    def __post_init__(self) -> None:
        # From Python, paths may be strings.
        object.__setattr__(self, "out", Path(self.out))
        object.__setattr__(self, "tokenizer", self.tokenizer and Path(self.tokenizer))
        for name in ("text", "valid"):
            object.__setattr__(self, name, tuple(map(Path, getattr(self, name))))
        if [bool(self.text), self.hub is not None, self.world is not None].count(True) != 1:
            raise InputError("give exactly one source of stories: text files, hub, or world")
        if self.valid and self.hub is not None:
            raise InputError("hub brings its own validation stories; leave valid out")
        if self.world is not None and self.world < 1:
            raise InputError(f"world is {self.world}; give the number of stories to make, at least 1")
        if not 0 < self.valid_fraction < 1:
            raise InputError(f"valid_fraction is {self.valid_fraction}; choose one between 0 and 1")
        if not len(FIXED) < self.vocab_size <= LARGEST:
            limits = f"{len(FIXED) + 1} to {LARGEST}"
            raise InputError(f"vocab_size is {self.vocab_size}; choose one from {limits}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A complete folder."""

    folder: Path
    manifest: Manifest
    fresh: bool
    """False if the folder was there already, made from the same sources with the same settings."""


def prepare(config: PrepareConfig, *, report: Report = quiet) -> Prepared:
    """Fill the folder ``config.out``, or return it if it was made before in the same way.

    It is complete or not there: interrupt it and run it again at will. Of several processes that prepare the same
    folder, one does and the others wait for it. A story is never on both sides: without validation files the hash of
    its text decides the side, and with them training stories that equal a validation story are dropped. Memory does not
    grow with the text, but for a hash of each validation story.

    Raises:
        InputError: the sources or the tokenizer cannot be used, or ``out`` holds something else.
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    out = config.out
    _check_free(out)
    text, valid = config.text, config.valid
    if config.hub is not None:
        from frailt.data.hub import fetch  # Its import takes longer than a small preparation.

        train_file, valid_file = fetch(config.hub)
        text, valid = (train_file,), (valid_file,)
    world = None if config.world is None else (config.world, config.seed)
    sources = Sources(text, valid, world=world, valid_fraction=config.valid_fraction)
    tokenizer = Tokenizer.load(config.tokenizer) if config.tokenizer else None
    settings = Settings(
        vocab_size=tokenizer.vocab_size if tokenizer else config.vocab_size,
        tokenizer=tokenizer.digest if tokenizer else None,
        valid_fraction=None if sources.valid else config.valid_fraction,
    )
    if (out / "manifest.json").is_file():  # Before the lock: the folder may be read-only.
        return Prepared(folder=out, manifest=_existing(out, sources.describe(), settings), fresh=False)
    with _filling(out):
        described = sources.describe()
        if (out / "manifest.json").is_file():
            return Prepared(folder=out, manifest=_existing(out, described, settings), fresh=False)
        if tokenizer is None:
            report("training the tokenizer", 0, 1, "")
            tokenizer = Tokenizer.train(sources.sample(SAMPLE), vocab_size=config.vocab_size)
        tokenizer.save(out / "tokenizer.json")
        done = sources.text

        def advanced() -> None:
            report("encoding", done.done, done.total, f"{done.done / max(done.total, 1):.0%}")

        shards = write_tokens(sources.assign(), tokenizer, out, advanced=advanced)
        manifest = Manifest(
            sources=described,
            settings=settings,
            tokenizer=tokenizer.digest,
            vocab_size=tokenizer.vocab_size,
            dtype=token_type(tokenizer.vocab_size),
            bos=tokenizer.bos,
            ends=tokenizer.ends,
            train=shards["train"],
            valid=shards["valid"],
            dropped=sources.dropped,
        )
        manifest.write(out)
    return Prepared(folder=out, manifest=manifest, fresh=True)


def embedded(*, report: Report = quiet) -> Path:
    """The folder of the embedded story world, made at first use in the user's cache.

    Where that cannot be written, the folder is a temporary one that goes with this process.
    """
    config = PrepareConfig(out=user_cache() / f"story-world-{EMBEDDED}", world=EMBEDDED)
    try:
        return prepare(config, report=report).folder
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
            raise
        temporary = Path(tempfile.mkdtemp(prefix="frailt-"))
        register(shutil.rmtree, temporary, ignore_errors=True)
        print(
            f"{config.out} cannot be written ({error.strerror}): the story world is made in {temporary} for this "
            "process; set XDG_CACHE_HOME to keep it",
            file=sys.stderr,
        )
        return prepare(replace(config, out=temporary), report=report).folder


def _check_free(out: Path) -> None:
    """Refuse a folder with files of others in it.

    Raises:
        InputError: it holds something else than this module's files.
    """
    if not out.exists() or (out.is_dir() and (out / "manifest.json").is_file()):
        return
    if not out.is_dir() or ((names := {path.name for path in out.iterdir()}) and LOCK not in names):
        raise InputError(f"{out} exists and is not a prepared folder; choose another")
    if others := [name for name in names - {LOCK, *FILES} if not (name.startswith(".") and name.endswith(".tmp"))]:
        raise InputError(f"{out} holds {excerpt(min(others))} and is not a prepared folder; choose another")


@contextmanager
def _filling(out: Path) -> Iterator[None]:
    """Hold the lock of ``out``, which may be new; if the body raises, ``out`` is again as it was.

    The files are written into the folder itself, since only that works where it is a mount point.
    """
    new = not out.exists()
    lock, told = None, False
    while lock is None:
        try:
            lock = hold(out / LOCK, "")
        except BusyError:
            if not told:
                print(f"waiting for another process that prepares {out}", file=sys.stderr, flush=True)
            told = True
            time.sleep(0.1)
            continue
        if not (out / LOCK).exists():  # Its owner failed, and removed it after it was opened here.
            lock.release()
            lock = None
    try:
        if not (out / "manifest.json").is_file():
            _check_free(out)
            _empty(out)  # What a killed process left.
        yield
    except BaseException:
        if not (out / "manifest.json").is_file():
            _empty(out)
            with suppress(OSError):
                (out / LOCK).unlink()
                if new:
                    out.rmdir()
        raise
    finally:
        lock.release()


def _empty(out: Path) -> None:
    remove_leftovers(out)
    for name in FILES:
        (out / name).unlink(missing_ok=True)


def _existing(out: Path, sources: tuple[Source, ...], settings: Settings) -> Manifest:
    """The manifest of a folder that is already there, if it is what is wanted now."""
    manifest = Manifest.read(out)
    before, now = ([replace(source, name="") for source in each] for each in (manifest.sources, sources))  # Renamed?
    changed = ["sources"] if before != now else []
    for field in fields(settings):
        before, now = getattr(manifest.settings, field.name, None), getattr(settings, field.name)
        if before != now:
            changed.append(f"{field.name} {excerpt(before)}, now {now}")
    if changed:
        difference = "; ".join(changed)
        raise InputError(f"{out} was prepared otherwise ({difference}); choose another folder or delete it")
    for side in ("train", "valid"):
        file = out / f"{side}.bin"
        size = np.dtype(manifest.dtype).itemsize * getattr(manifest, side).tokens
        if not file.is_file() or file.stat().st_size != size:
            raise InputError(f"{file} is missing or damaged; delete {out} and prepare it again")
    if not (out / "tokenizer.json").is_file():
        raise InputError(f"{out} has lost its tokenizer.json; delete it and prepare it again")
    return manifest
