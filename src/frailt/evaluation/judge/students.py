"""Models that complete beginnings, and what they wrote, kept so that a judge is never asked about another text."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frailt.configs import changed, from_json
from frailt.data.storyworld import stories
from frailt.data.text import read_stories
from frailt.device import Device
from frailt.errors import InputError
from frailt.evaluation.judge.beginnings import Beginning, held_out_beginnings, read_beginnings, shipped_beginnings
from frailt.files import read_json, sha256, write_json
from frailt.inference.sampling import Sampling
from frailt.inference.storyteller import Storyteller, load
from frailt.model.counts import count
from frailt.model.variant import Variant

BATCH = 20
"""Completions that are written side by side, and kept together: what a run that is cut off loses at most."""
ENOUGH = 32
"""Completions of a model where their number is not given, or the next multiple of the number of beginnings."""
MOST = 100_000
"""Completions of one model."""
LONGEST_GUESS = 1 << 14
"""Characters at most that a story which is not written yet is taken to have."""

_FIRST = ("temperature", "top_k", "top_p", "min_p", "max_tokens", "seed")
"""Settings of the first version, in its order. They always tell completions apart, later ones only if they are changed:
so the files of every version are found."""

Report = Callable[[float, str], None]
"""Told how many stories are written, a part of those under way among them, and the same in words."""
Loss = tuple[float | None, str | None]
"""A validation loss in nats per token, and where it comes from; None where it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model wrote."""

    beginning: str
    text: str
    index: int
    """How often the model completed this beginning before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoryConfig:
    """What models are given to complete, and how they do it."""

    completions: int | None = None
    """Completions of each model, spread over the beginnings in turn; unset: as many of each beginning, 32 or more."""
    beginnings: Path | None = None
    """YAML or JSON list, or text file, of beginnings; unset: the project's own."""
    held_out: tuple[Path, ...] = ()
    """Text files of stories to cut in the middle, in place of beginnings."""
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.beginnings is not None and self.held_out:
            raise InputError("give --beginnings or --held-out, not both")
        if self.completions is not None and not 1 <= self.completions <= MOST:
            raise InputError(f"completions is {self.completions}; it must be from 1 to {MOST:,}")

    def given(self) -> list[Beginning]:
        """The beginnings that every model gets, in their order."""
        if self.held_out:
            return held_out_beginnings(read_stories(self.held_out), self.number())
        return read_beginnings(self.beginnings) if self.beginnings is not None else shipped_beginnings()

    def number(self) -> int:
        """Completions of each model."""
        if self.completions is not None:
            return self.completions
        beginnings = 1 if self.held_out else len(self.given())
        return beginnings * -(-ENOUGH // beginnings)


def whole_stories(held_out: Sequence[Path], number: int, *, least: int) -> list[Beginning]:
    """Stories cut in the middle, with so many sentences after it at least: held-out ones, or of the embedded world."""
    made = (story.text for story in stories(20 * number, seed=2**31))
    return held_out_beginnings(read_stories(held_out) if held_out else made, number, least=least)


@dataclass(frozen=True, kw_only=True, slots=True)
class Student:
    """A model, and what it wrote."""

    name: str
    path: str
    shape: str
    """As `Variant` prints it."""
    dim: int
    parameters: int
    loss: float | None
    """Nats per token; None where it is not known."""
    loss_of: str | None
    """Where the loss comes from."""
    weights: str
    """SHA-256 of the weights."""
    written: tuple[Completion, ...]


def write_stories(
    paths: Sequence[Path],
    config: StoryConfig,
    out: Path,
    *,
    tokenizer: Path | None = None,
    device: Device = "cpu",
    write: bool = True,
    loss_of: Callable[[Path, Storyteller], Loss] = lambda path, model: (None, None),
    visit: Callable[[str, Storyteller], None] = lambda name, model: None,
    report: Callable[[float, float, str], None] = lambda done, total, state: None,
) -> list[Student]:
    """Have each model complete the beginnings. What it wrote before is read, if only some of it.

    Args:
        paths: run folders, saved models or llama2.c ``.bin`` files.
        config: what they are given.
        out: folder of results; completions go to ``out/completions``.
        tokenizer: of ``.bin`` files.
        device: where models write.
        write: if not, what is not written yet is filled up with texts of the greatest length, and nothing is kept.
        loss_of: gives the validation loss of a model.
        visit: called with each model, for further measures.
        report: told how many stories are written, of how many, and in words which model is writing.

    Raises:
        InputError: a model or a file cannot be read.
    """
    beginnings, number, students = config.given(), config.number(), []
    for name, path in zip(labels(paths), paths, strict=True):
        before, total = len(students) * number, len(paths) * number

        def progress(done: float, state: str, name: str = name, before: int = before, total: int = total) -> None:
            report(before + done, total, f"{name}: {state}")

        model, weights = load(path, tokenizer=tokenizer if path.is_file() else None, device=device), weights_of(path)
        written = completions_of(
            name, weights, model, beginnings, number, config.sampling, out / "completions", write=write, report=progress
        )
        if write:
            visit(name, model)
        loss, source = loss_of(path, model)
        students.append(
            Student(
                name=name,
                path=str(path),
                shape=str(Variant.of(model.config)),
                dim=model.config.dim,
                parameters=count(model.config).parameters,
                loss=loss,
                loss_of=source,
                weights=weights,
                written=tuple(written),
            )
        )
    return students


def labels(paths: Sequence[Path]) -> list[str]:
    """A short name for each model: its folder's, or as much of its path as tells it from the others."""
    whole = [Path(os.path.abspath(path)).parts for path in paths]
    for parts in range(1, 1 + max(map(len, whole))):
        names = ["/".join(path[-parts:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    raise InputError("a model is named twice; name each once")


def weights_of(path: Path) -> str:
    """The SHA-256 of a file, or of the weights in a model's folder."""
    return sha256(path / "model.safetensors" if path.is_dir() else path)


def complete(
    model: Storyteller,
    beginnings: Sequence[Beginning],
    number: int,
    sampling: Sampling,
    *,
    written: Sequence[Completion] = (),
    keep: Callable[[list[Completion]], None] = lambda written: None,
    report: Report = lambda done, state: None,
) -> list[Completion]:
    """``number`` completions, spread over the beginnings in turn, so that each has as many as the others or one more.

    Args:
        written: the first ones, where they are there already; the others do not depend on how many these are.
        keep: given all that there are after each batch.
        report: see `Report`.
    """
    given, written = spread(beginnings, number), list(written)
    prompts = [beginning for beginning, _ in given]
    while (first := len(written)) < number:
        batch = range(first, min(first + BATCH, number))
        texts, lengths, longest = dict.fromkeys(batch, ""), dict.fromkeys(batch, 0), 0
        for token in model.write(prompts, sampling, rows=batch):
            texts[token.row] += token.text
            lengths[token.row] += 1
            if longest < lengths[token.row]:
                longest = lengths[token.row]
                state = f"{first}/{number} stories, token {longest} of at most {sampling.max_tokens}"
                report(first + len(batch) * (longest - 1) / sampling.max_tokens, state)
        written += [Completion(beginning=given[i][0], text=texts[i], index=given[i][1]) for i in batch]
        keep(written)
        report(len(written), f"{len(written)}/{number} stories")
    return written


def spread(beginnings: Sequence[Beginning], number: int) -> list[tuple[str, int]]:
    """The beginnings in turn, each with how often it stood before."""
    return [(beginnings[i % len(beginnings)].text, i // len(beginnings)) for i in range(number)]


def completions_of(
    label: str,
    weights: str,
    model: Storyteller,
    beginnings: Sequence[Beginning],
    number: int,
    sampling: Sampling,
    folder: Path,
    *,
    write: bool = True,
    report: Report = lambda done, state: None,
) -> list[Completion]:
    """The same, read from ``folder`` as far as they were written before, and kept there batch by batch.

    Args:
        label, weights: the model's name, and the SHA-256 of its weights.
        folder: holds a JSON file for each model and way of asking it; other completions have another name.
        write: if not, what is not there yet has texts of the greatest length, and nothing is kept.

    Raises:
        InputError: what was written before is damaged.
    """
    asked: dict[str, Any] = {
        "weights": weights,
        "sampling": {name: getattr(sampling, name) for name in _FIRST} | changed(sampling),
        "completions": number,
        "beginnings": [beginning.text for beginning in beginnings],
    }
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    new = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)[-100:]}-{digest}.json"
    # The digest alone finds it again: a model's name depends on which others it is named with.
    file = next(folder.glob(f"*-{digest}.json"), new)
    given = spread(beginnings, number)
    written = _read(file, given) if file.exists() else []
    if not write:
        text = "x" * min(4 * sampling.max_tokens, LONGEST_GUESS)
        return written + [Completion(beginning=b, text=text, index=i) for b, i in given[len(written) :]]

    def keep(written: list[Completion]) -> None:
        write_json(file, {"model": label, **asked, "written": [asdict(item) for item in written]})

    report(len(written), f"{len(written)}/{number} stories")
    return complete(model, beginnings, number, sampling, written=written, keep=keep, report=report)


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    written: list[Completion]


def _read(file: Path, given: list[tuple[str, int]]) -> list[Completion]:
    stored = read_json(file)
    try:
        written = from_json(_File, stored, str(file), ignore_unknown=True).written
        "".join(item.text for item in written).encode()
    except (InputError, UnicodeEncodeError):  # Lone surrogates could not be written again.
        written = None
    if written is None or [(item.beginning, item.index) for item in written] != given[: len(written)]:
        raise InputError(f"{file} is damaged; delete it to have the stories written again")
    return written
