"""How texts go on, whatever computes the scores: a batch of rows, tokens drawn one by one. Needs no torch."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frailt.inference.sampling import Sampling, draw, probabilities


class Decoder(ABC):
    """A model that reads a batch of texts, its rows, and remembers them.

    Scores are of the token that follows each row, float32 ``(rows, vocab)``. What is interrupted has not happened: the
    rows are as they were before the call, or the decoder has none left.

    Args:
        context: the most tokens of a row that it can remember.
    """

    def __init__(self, context: int) -> None:
        self.context = context

    @property
    @abstractmethod
    def passes(self) -> list[tuple[int, ...]]:
        """Passes through each group that the last token of each row made."""

    @abstractmethod
    def add(self, texts: list[list[int]]) -> NDArray[Any]:
        """Read texts as further rows, all passes; their scores."""

    @abstractmethod
    def step(self, tokens: list[int]) -> NDArray[Any]:
        """Read one more token of each row."""

    @abstractmethod
    def select(self, rows: list[int]) -> None:
        """Keep only these rows, in this order."""


Finish = Literal["end", "length"]
"""Why a text is complete: the model ended it, or it has ``Sampling.max_tokens``."""


@dataclass(eq=False, slots=True)
class Row:
    """A text in a batch.

    Args:
        number: of the text, for whoever added it.
        tokens: what the model is to go on after.
        random: its own random numbers, so that its text does not depend on the others.
    """

    number: int
    tokens: list[int]
    random: np.random.Generator
    drawn: int = 0
    """New tokens so far."""


class Drawn(NamedTuple):
    """A token that a batch has drawn."""

    row: Row
    token: int
    passes: tuple[int, ...]
    """Through each group, that led to it."""
    finish: Finish | None
    """Unset while the text goes on."""


class Batch:
    """Texts that are completed side by side. New ones can be added between two steps.

    A row is complete when the model ends it (with BOS, where another text begins, or with EOS) or after ``max_tokens``.
    Complete rows leave the batch, and cost nothing from then on.

    When a row fills the model's context, its older half is forgotten and the rest is read again, at positions from 0.
    The same holds for a prompt that is longer than the context.

    Args:
        decoder: without rows.
        sampling: options.
        ends: tokens that end a text.
    """

    def __init__(self, decoder: Decoder, sampling: Sampling, ends: tuple[int, ...]) -> None:
        self.rows: list[Row] = []
        self._decoder, self._sampling, self._ends = decoder, sampling, ends
        self._scores: NDArray[Any] | None = None
        self._staying: list[int] | None = None
        """The decoder's rows that ``rows`` are, where their last tokens have not been read yet."""
        self._held = 0
        """Rows that the decoder has."""

    def add(self, rows: list[Row]) -> None:
        """Let more texts join."""
        self._advance()
        self._join(rows)

    def step(self) -> list[Drawn]:
        """Draw the next token of each row.

        Raises:
            InputError: the model's scores are not numbers.
        """
        self._advance()
        assert self._scores is not None
        tokens = draw(probabilities(self._scores, self._sampling), [row.random for row in self.rows])
        drawn, self._staying = [], []
        for i, (row, token, passes) in enumerate(zip(self.rows, tokens, self._decoder.passes, strict=True)):
            row.tokens.append(token)
            row.drawn += 1
            finish: Finish | None = None
            if token in self._ends:
                finish = "end"
            elif row.drawn >= self._sampling.max_tokens:
                finish = "length"
            else:
                self._staying.append(i)
            drawn.append(Drawn(row, token, passes, finish))
        if len(self._staying) < len(drawn):
            self.rows = [self.rows[i] for i in self._staying]
        return drawn

    def _advance(self) -> None:
        """Read the tokens that were drawn last."""
        if self._staying is None:
            return
        context = self._decoder.context
        full = [row for row in self.rows if len(row.tokens) >= context]
        if full:
            both = zip(self._staying, self.rows, strict=True)
            self._staying = [i for i, row in both if len(row.tokens) < context]
            self.rows = [row for row in self.rows if len(row.tokens) < context]
        going, self._staying = self._staying, None
        if len(going) < self._held:
            self._decoder.select(going)
            self._held = len(going)
        self._scores = self._decoder.step([row.tokens[-1] for row in self.rows]) if going else None
        self._join(full)

    def _join(self, rows: list[Row]) -> None:
        if not rows:
            return
        for row in rows:
            if len(row.tokens) >= self._decoder.context:
                row.tokens = row.tokens[-max(1, self._decoder.context // 2) :]
        scores = self._decoder.add([row.tokens for row in rows])
        self._scores = scores if self._scores is None else np.concatenate((self._scores, scores))
        self.rows += rows
        self._held += len(rows)


def generators(prompts: list[list[int]], seed: int) -> list[np.random.Generator]:
    """Random numbers of each text, from the seed, its prompt, and how often that prompt came before."""
    seen: Counter[tuple[int, ...]] = Counter()
    made = []
    for prompt in prompts:
        digest = hashlib.sha256(f"{seed} {seen[tuple(prompt)]} {prompt}".encode()).digest()
        made.append(np.random.default_rng(int.from_bytes(digest, "little")))
        seen[tuple(prompt)] += 1
    return made
