"""Models that complete beginnings, and what they wrote, kept so that a judge is never asked about another text."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frailt.errors import InputError
from frailt.evaluation.judge.beginnings import Beginning
from frailt.files import read_json, sha256, write_json
from frailt.inference.generate import Storyteller
from frailt.inference.sampling import Sampling

MOST = 2000
"""Completions of one model: all of them are written side by side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model wrote."""

    beginning: str
    text: str
    index: int
    """How often the model completed this beginning before."""


def labels(paths: Sequence[Path]) -> list[str]:
    """A short name for each model: its folder's, or as much of its path as tells it from the others."""
    for parts in range(1, 1 + max(len(path.parts) for path in paths)):
        found = ["/".join(path.parts[-parts:]) for path in paths]
        if len(set(found)) == len(found):
            return found
    raise InputError("a model is named twice; name each once")


def weights_of(path: Path) -> str:
    """The SHA-256 of a file, or of the weights in a model's folder."""
    return sha256(path / "model.safetensors" if path.is_dir() else path)


def complete(teller: Storyteller, beginnings: Sequence[Beginning], count: int, sampling: Sampling) -> list[Completion]:
    """``count`` completions, spread over the beginnings in turn, so that each has as many as the others or one more."""
    if not 1 <= count <= MOST:
        raise InputError(f"completions is {count}; it must be from 1 to {MOST}")
    given = [beginnings[i % len(beginnings)].text for i in range(count)]
    written = teller.generate(given, sampling)
    pairs = enumerate(zip(given, written, strict=True))
    return [Completion(beginning=text, text=own, index=i // len(beginnings)) for i, (text, own) in pairs]


def completions_of(
    label: str,
    path: Path,
    teller: Storyteller,
    beginnings: Sequence[Beginning],
    count: int,
    sampling: Sampling,
    folder: Path,
) -> list[Completion]:
    """The same, read from ``folder`` where they were written before.

    Args:
        label: the model's name.
        path: where its weights lie.
        teller: the model.
        beginnings, count, sampling: as for `complete`.
        folder: holds a JSON file for each model and way of asking it; other completions have another name.
    """
    asked: dict[str, Any] = {
        "weights": weights_of(path),
        "sampling": asdict(sampling),
        "completions": count,
        "beginnings": [beginning.text for beginning in beginnings],
    }
    digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    # The digest alone finds it again: a model's name depends on which others it is named with.
    file = next(folder.glob(f"*-{digest}.json"), None)
    if file is not None:
        stored = read_json(file)
        try:
            return [Completion(**one) for one in stored["written"]]
        except (KeyError, TypeError):
            raise InputError(f"{file} is damaged; delete it to have the stories written again") from None
    found = complete(teller, beginnings, count, sampling)
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}-{digest}.json"
    write_json(folder / name, {"model": label, **asked, "written": [asdict(one) for one in found]})
    return found
