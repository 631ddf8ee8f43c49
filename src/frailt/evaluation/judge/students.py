"""Models that complete beginnings, and what they wrote, kept so that a judge is never asked about another text."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frailt.errors import InputError
from frailt.evaluation.judge.beginnings import Beginning
from frailt.files import read_json, sha256, write_json
from frailt.inference.sampling import Sampling
from frailt.inference.storyteller import Storyteller

BATCH = 20
"""Completions that are written side by side, and kept together: what a run that is cut off loses at most."""

Report = Callable[[float, str], None]
"""Told how many stories are written, a part of those under way among them, and the same in words."""


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


def complete(
    teller: Storyteller,
    beginnings: Sequence[Beginning],
    count: int,
    sampling: Sampling,
    *,
    written: Sequence[Completion] = (),
    keep: Callable[[list[Completion]], None] = lambda found: None,
    report: Report = lambda done, state: None,
) -> list[Completion]:
    """``count`` completions, spread over the beginnings in turn, so that each has as many as the others or one more.

    Args:
        teller: the model.
        beginnings, count, sampling: what it completes, and how.
        written: the first ones, where they are there already; the others do not depend on how many these are.
        keep: given all that there are after each batch.
        report: see `Report`.
    """
    given = [beginnings[i % len(beginnings)].text for i in range(count)]
    found = list(written)
    while (first := len(found)) < count:
        batch = range(first, min(first + BATCH, count))
        texts, lengths, longest = dict.fromkeys(batch, ""), dict.fromkeys(batch, 0), 0
        for token in teller.write(given, sampling, rows=batch):
            texts[token.row] += token.text
            lengths[token.row] += 1
            if longest < lengths[token.row]:
                longest = lengths[token.row]
                state = f"{first}/{count} stories, token {longest} of at most {sampling.max_tokens}"
                report(first + len(batch) * (longest - 1) / sampling.max_tokens, state)
        found += [Completion(beginning=given[i], text=texts[i], index=i // len(beginnings)) for i in batch]
        keep(found)
        report(len(found), f"{len(found)}/{count} stories")
    return found


def completions_of(
    label: str,
    path: Path,
    teller: Storyteller,
    beginnings: Sequence[Beginning],
    count: int,
    sampling: Sampling,
    folder: Path,
    report: Report = lambda done, state: None,
) -> list[Completion]:
    """The same, read from ``folder`` as far as they were written before, and kept there batch by batch.

    Args:
        label: the model's name.
        path: where its weights lie.
        teller: the model.
        beginnings, count, sampling, report: as for `complete`.
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
    if file is None:
        file, written = folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}-{digest}.json", []
    else:
        stored = read_json(file)
        try:
            written = [Completion(**one) for one in stored["written"]]
        except (KeyError, TypeError):
            raise InputError(f"{file} is damaged; delete it to have the stories written again") from None

    def keep(found: list[Completion]) -> None:
        write_json(file, {"model": label, **asked, "written": [asdict(one) for one in found]})

    report(len(written), f"{len(written)}/{count} stories")
    return complete(teller, beginnings, count, sampling, written=written, keep=keep, report=report)
