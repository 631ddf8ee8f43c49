"""Beginnings of stories: the project's own, those in a file, and held-out stories cut in the middle.

A beginning is one text. Directions for how the story is to go on, where a file has them, are part of that text: the
student reads what the judge reads.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path

import yaml

from frailt.errors import InputError

_SENTENCE = re.compile(r"[.!?][\"'”’]*(?=\s)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What a student is given."""

    text: str
    """Without spaces at its end: the first word written brings its own."""
    ending: str | None = None
    """How the story really went on, where that is known; ``text + ending`` is the story."""


def own_beginnings() -> list[Beginning]:
    """Those that come with the package."""
    return _from_yaml(files("frailt.evaluation.judge").joinpath("beginnings.yaml").read_text(encoding="utf-8"), "")


def read_beginnings(path: Path) -> list[Beginning]:
    """The beginnings in a file.

    Args:
        path: a YAML list of texts (``.yaml``, ``.yml``), or a text file with a line ``<|endoftext|>`` after each
            beginning; one that has no such line holds a beginning in each line.

    Raises:
        InputError: the file cannot be read so.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path} is no UTF-8 text; give a YAML or text file of beginnings") from None
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(text, str(path))
    return _checked(text.split("<|endoftext|>") if "<|endoftext|>" in text else text.splitlines(), str(path))


def held_out_beginnings(stories: Iterable[str], count: int, *, least: int = 1) -> list[Beginning]:
    """The first ``count`` stories that can be cut in the middle and leave at least ``least`` sentences.

    Raises:
        InputError: there are fewer.
    """
    cut = filter(None, map(halves, stories))
    found = list(islice((one for one in cut if len(sentences(one.ending or "")) >= least), count))
    if len(found) < count:
        raise InputError(
            f"the held-out stories give {len(found)} beginnings, not {count}; give more stories or fewer --completions"
        )
    return found


def halves(story: str) -> Beginning | None:
    """Cut a story at the end of a sentence nearest its middle; None where it has too few sentences."""
    ends = [found.end() for found in _SENTENCE.finditer(story)]
    if len(ends) < 3:
        return None
    at = min(ends, key=lambda end: abs(end - len(story) / 2))
    return Beginning(text=story[:at], ending=story[at:])


def sentences(text: str) -> list[str]:
    """A text cut after each sentence, without the white space between them."""
    return [part.strip() for part in re.split(r"(?<=[.!?\"'”’])\s+(?=[\"'“‘]?[A-Z])", text) if part.strip()]


def _from_yaml(text: str, source: str) -> list[Beginning]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise InputError(f"{source}{line}: no valid YAML; quote texts with colons in them") from None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"{source} is no YAML list of texts; write each beginning after a dash, in quotes")
    return _checked(found, source)


def _checked(texts: Iterable[str], source: str) -> list[Beginning]:
    found = [Beginning(text=text.strip()) for text in texts if text.strip()]
    if not found:
        raise InputError(f"{source} holds no beginning; give at least one")
    if len(set(found)) < len(found):
        raise InputError(f"{source} holds a beginning twice; keep one of them")
    return found
