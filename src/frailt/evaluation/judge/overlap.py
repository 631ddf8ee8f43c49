"""How much of a text was copied from the training text: the memorisation check of the TinyStories paper (its section on
similarity to the training set), over tens of megabytes at a time.

Words are compared, in small letters and without punctuation. All n-grams of a length get a 64-bit hash by NumPy; from
length n to n + 1 only the places go on whose n-gram the other side has, so that the long ones cost next to nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CHUNK = 400_000
"""Words of training text that are held at once."""
_BASE = 0x9E3779B97F4A7C15
SEEN = 8
"""Words in a row that count as copied where the training text has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """What a text has in common with the training text."""

    rouge_2: float
    """Largest ROUGE-2 F measure with one training story: 2 |A and B| / (|A| + |B|), over the sets of word pairs."""
    seen: float | None
    """Share of its runs of 8 words that the training text has; None for a text of fewer."""
    longest: int
    """Words in its longest run that the training text has."""


def words(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return _WORD.findall(text.lower())


def overlap(texts: Sequence[str], stories: Iterable[str]) -> list[Overlap]:
    """Compare each text with all training stories, in one pass over them.

    Args:
        texts: the texts to look at.
        stories: the training text, a story at a time.
    """
    numbers: dict[str, int] = {}
    ours = _Words([words(text) for text in texts], numbers)
    longest, seen = np.zeros(len(ours.ids), int), np.zeros(len(ours.ids), bool)
    rouge = np.zeros(len(texts))
    pairs = ours.grams(2)
    sets = [np.unique(pairs.hashes[ours.text[pairs.at] == i]) for i in range(len(texts))]
    union = np.unique(pairs.hashes)
    for chunk in _chunks(stories):
        other = _Words(chunk, numbers)
        _runs(ours, other, longest, seen)
        _rouge(sets, union, other, rouge)
    result = []
    for i, size in enumerate(ours.sizes):
        mine = ours.text == i
        starts = max(size - SEEN + 1, 0)
        result.append(
            Overlap(
                rouge_2=float(rouge[i]),
                seen=float(seen[mine].sum() / starts) if starts else None,
                longest=int(longest[mine].max(initial=0)),
            )
        )
    return result


@dataclass(slots=True)
class _Grams:
    """Some places of a text, with the hash of the n words from each."""

    at: np.ndarray
    hashes: np.ndarray


class _Words:
    """Texts as one array of word numbers, the same numbers for the same word in all of them."""

    def __init__(self, texts: list[list[str]], numbers: dict[str, int]) -> None:
        self.sizes = [len(text) for text in texts]
        ids = [numbers.setdefault(word, len(numbers)) for text in texts for word in text]
        self.ids = np.array(ids, dtype=np.uint64)
        self.text = np.repeat(np.arange(len(texts)), self.sizes)
        self.end = np.cumsum(self.sizes)[self.text] if len(ids) else np.zeros(0, int)
        self.values = _scatter(self.ids)

    def grams(self, n: int) -> _Grams:
        """All places with ``n`` words of one text after them."""
        result = _Grams(np.arange(len(self.ids)), np.zeros(len(self.ids), np.uint64))
        for length in range(n):
            self.extend(result, length)
        return result

    def extend(self, grams: _Grams, n: int) -> None:
        """From n to n + 1 words, where the text has one more."""
        there = grams.at + n < self.end[grams.at]
        grams.at, grams.hashes = grams.at[there], grams.hashes[there]
        grams.hashes = grams.hashes + self.values[grams.at + n] * np.uint64(pow(_BASE, n, 1 << 64))


def _runs(ours: _Words, other: _Words, longest: np.ndarray, seen: np.ndarray) -> None:
    """Lengthen runs as long as both sides have them."""
    mine, theirs = ours.grams(1), other.grams(1)
    for n in range(1, 1 + max(ours.sizes, default=0)):
        kept = _in(theirs.hashes, np.unique(mine.hashes))
        theirs = _Grams(theirs.at[kept], theirs.hashes[kept])
        kept = _in(mine.hashes, np.unique(theirs.hashes))
        mine = _Grams(mine.at[kept], mine.hashes[kept])
        if not len(mine.at):
            return
        longest[mine.at] = np.maximum(longest[mine.at], n)
        if n == SEEN:
            seen[mine.at] = True
        ours.extend(mine, n)
        other.extend(theirs, n)


def _rouge(sets: list[np.ndarray], union: np.ndarray, other: _Words, best: np.ndarray) -> None:
    """ROUGE-2 of each text with each story of a chunk."""
    pairs = other.grams(2)
    story = other.text[pairs.at]
    # Each pair once a story: a hash of both tells them apart.
    _, once = np.unique(pairs.hashes ^ _scatter(story.astype(np.uint64)), return_index=True)
    hashes, story = pairs.hashes[once], story[once]
    stories = len(other.sizes)
    sizes = np.bincount(story, minlength=stories)
    common = _in(hashes, union)
    which, story = np.searchsorted(union, hashes[common]), story[common]
    member = np.zeros(len(union), bool)
    for i, ours in enumerate(sets):
        if len(ours):
            member[:] = False
            member[np.searchsorted(union, ours)] = True
            shared = np.bincount(story[member[which]], minlength=stories)
            best[i] = max(best[i], (2 * shared / (len(ours) + sizes)).max())


def _in(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which values are among sorted known ones."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.searchsorted(known, values).clip(max=len(known) - 1)] == values


def _scatter(numbers: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each number (the finaliser of SplitMix64)."""
    x = (numbers + np.uint64(1)) * np.uint64(_BASE)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _chunks(stories: Iterable[str]) -> Iterator[list[list[str]]]:
    chunk: list[list[str]] = []
    size = 0
    for story in stories:
        chunk.append(words(story))
        size += len(chunk[-1])
        if size > _CHUNK:
            yield chunk
            chunk, size = [], 0
    if size:
        yield chunk
