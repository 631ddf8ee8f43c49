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
from frailt.evaluation.text import read_text

_SENTENCE = re.compile(r"[.!?][\"'”’]*(?=\s)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What a student is given."""

    text: str
    """Without spaces at its end: the first word written brings its own."""
    ending: str | None = None
    """How the story really went on, where that is known; ``text + ending`` is the story."""


def shipped_beginnings() -> list[Beginning]:
    """Those that come with the package."""
    return _from_yaml(files("frailt.evaluation.judge").joinpath("beginnings.yaml").read_text(encoding="utf-8"), "")


def read_beginnings(path: Path) -> list[Beginning]:
    """The beginnings in a file.

    Args:
        path: a list of texts in YAML or JSON (``.yaml``, ``.yml``, ``.json``), or a text file with a line
            ``<|endoftext|>`` after each beginning; one that has no such line holds a beginning in each line.

    Raises:
        InputError: the file cannot be read so.
    """
    text = read_text(path, "a YAML, JSON or text file of beginnings")
    if path.suffix in (".yaml", ".yml", ".json"):
        return _from_yaml(text, str(path))
    return _checked(text.split("<|endoftext|>" if "<|endoftext|>" in text else "\n"), str(path))


def held_out_beginnings(stories: Iterable[str], count: int, *, least: int = 1) -> list[Beginning]:
    """The first ``count`` stories that can be cut in the middle and leave at least ``least`` sentences.

    Raises:
        InputError: there are fewer.
    """
    cut = filter(None, map(halves, stories))
    kept = list(islice((half for half in cut if len(sentences(half.ending or "")) >= least), count))
    if len(kept) < count:
        raise InputError(
            f"the held-out stories give {len(kept)} beginnings, not {count}; give more stories, or ask "
            "for fewer with --completions (or --stories)"
        )
    return kept


def halves(story: str) -> Beginning | None:
    """Cut a story at the end of a sentence nearest its middle; None where it has too few sentences."""
    ends = [match.end() for match in _SENTENCE.finditer(story)]
    if len(ends) < 3:
        return None
    at = min(ends, key=lambda end: abs(end - len(story) / 2))
    return Beginning(text=story[:at], ending=story[at:])


def sentences(text: str) -> list[str]:
    """A text cut after each sentence, without the white space between them."""
    return [part.strip() for part in re.split(r"(?<=[.!?\"'”’])\s+(?=[\"'“‘]?[A-Z])", text) if part.strip()]


_YAML = "tag:yaml.org,2002:"


def _from_yaml(text: str, source: str) -> list[Beginning]:
    """Beginnings from YAML, of which JSON is a kind."""
    try:
        # Nodes, not values: a tag makes no value that is not a text, and each knows its line.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise InputError(f"{source}{line}: not valid YAML; quote texts with colons in them") from None
    is_list = isinstance(node, yaml.SequenceNode) and node.tag == _YAML + "seq"
    texts = [item for item in (node.value if is_list else ()) if item.tag == _YAML + "str"]
    if not is_list or len(texts) < len(node.value):
        raise InputError(f"{source} is not a YAML list of texts; write each beginning after a dash, in quotes")
    return _checked((_joined(item, source) for item in texts), source)


def _joined(node: yaml.ScalarNode, source: str) -> str:
    """A text with the pairs of surrogates joined by which JSON writes an emoji."""
    try:
        return node.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        line = node.start_mark.line + 1
        raise InputError(f"{source}, line {line}: half of a pair of surrogates; write the character itself") from None


def _checked(texts: Iterable[str], source: str) -> list[Beginning]:
    beginnings = [Beginning(text=text.strip()) for text in texts if text.strip()]
    if not beginnings:
        raise InputError(f"{source} holds no beginning; give at least one")
    if len(set(beginnings)) < len(beginnings):
        raise InputError(f"{source} holds a beginning twice; keep one of them")
    return beginnings
