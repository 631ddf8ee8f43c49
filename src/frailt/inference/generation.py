"""How a text goes on, whatever computes the scores: prompts in, tokens drawn one by one, text out. Needs no torch."""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frailt.data.bpe import BPE
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.sampling import Sampling, draw, probabilities
from frailt.model.config import ModelConfig

_ENDS = BPE.ends


class Reader(ABC):
    """A model that reads several texts and remembers them. Scores are for the next token of each, ``(rows, vocab)``.

    Args:
        context: the most tokens of a text that it can remember.
    """

    passes: NDArray[np.int64]
    """Passes through each group that the last token of each text did, ``(rows, groups)``."""

    def __init__(self, context: int) -> None:
        self.context = context

    @abstractmethod
    def read(self, rows: list[list[int]]) -> NDArray[Any]:
        """Forget everything and read these texts."""

    @abstractmethod
    def step(self, tokens: list[int], again: dict[int, list[int]]) -> NDArray[Any]:
        """Read one more token of each text; but forget the texts at the places in ``again`` and read these instead."""

    @abstractmethod
    def select(self, places: list[int]) -> None:
        """Keep only these texts, in this order."""


class Teller(ABC):
    """Something that completes prompts. What computes the scores is ``reader``'s to say."""

    config: ModelConfig
    tokenizer: Tokenizer

    @abstractmethod
    def reader(self, iterations: int | tuple[int, ...] | None, early_exit: EarlyExit | None = None) -> Reader:
        """A reader with these passes, as for ``FraiLT.forward``, or fewer where a token may leave early."""

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        *,
        iterations: int | tuple[int, ...] | None = None,
        early_exit: EarlyExit | None = None,
    ) -> list[str]:
        """Complete each prompt; the completions alone, without their prompts.

        A text does not depend on the other prompts of its batch. A prompt that occurs several times gets a
        different completion each time.

        Args:
            prompts: beginnings; spaces at their ends are dropped, since the next word brings its own.
            sampling: options; unset: the defaults of ``Sampling``.
            iterations: passes, as for ``FraiLT.forward``.
            early_exit: when a token needs no further pass; unset: all tokens do all passes.
        """
        texts = [""] * len(prompts)
        for place, piece in self.write(prompts, sampling, iterations=iterations, early_exit=early_exit):
            texts[place] += piece
        return texts

    def stream(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        *,
        iterations: int | tuple[int, ...] | None = None,
        early_exit: EarlyExit | None = None,
    ) -> Iterator[str]:
        """Complete one prompt, piece by piece as it is written. The pieces join to what ``generate`` gives."""
        for _, piece in self.write([prompt], sampling, iterations=iterations, early_exit=early_exit):
            yield piece

    def write(
        self,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        *,
        places: Sequence[int] | None = None,
        iterations: int | tuple[int, ...] | None = None,
        early_exit: EarlyExit | None = None,
    ) -> Iterator[tuple[int, str]]:
        """Yield (place in ``prompts``, next piece) as completions are written side by side, a token at a time.

        Args:
            prompts, sampling, iterations, early_exit: as for ``generate``.
            places: complete the prompts at these places alone; their texts are those that ``generate`` gives them.
        """
        if isinstance(prompts, str):
            raise InputError("generate() takes a list of prompts; put the one prompt into brackets")
        streams = [_Stream(self.tokenizer, prompt) for prompt in prompts]
        tokens = [stream.tokens for stream in streams]
        reader = self.reader(iterations, early_exit)
        for row, token in continuations(reader, tokens, sampling or Sampling(), places):
            yield row, streams[row].decoder.push(token) if token is not None else streams[row].decoder.flush()


class _Stream:
    """A prompt's tokens, and the decoder that goes on after them."""

    def __init__(self, tokenizer: Tokenizer, prompt: str) -> None:
        self.tokens = [tokenizer.bos, *tokenizer.encode(prompt.rstrip(" "))]
        self.decoder = tokenizer.stream()
        for token in self.tokens:
            self.decoder.push(token)


def tokenizer_of(path: Path, config: ModelConfig, tokenizer: Path | None) -> Tokenizer:
    """The tokenizer of the model at ``path``, or the one that is given.

    Raises:
        InputError: it is missing or damaged, or has another vocabulary than the model.
    """
    pieces = Tokenizer.load(tokenizer or (path if path.is_dir() else path.parent), config.vocab_size)
    if pieces.vocab_size != config.vocab_size:
        raise InputError(
            f"{path} has a vocabulary of {config.vocab_size}, its tokenizer {pieces.vocab_size}; "
            "give the right one with --tokenizer"
        )
    return pieces


def continuations(
    reader: Reader, prompts: list[list[int]], sampling: Sampling, places: Sequence[int] | None = None
) -> Iterator[tuple[int, int | None]]:
    """Yield (row, next token) as tokens are drawn, and (row, None) once a row is complete; of all rows or of these.

    A row is complete when the model begins another story (BOS, or EOS where a model has learned one) or after
    ``max_tokens``. Complete rows leave the batch, and cost nothing from then on.

    When a row's tokens fill the model's context, the older half is forgotten and the rest is read again, at
    positions from 0. The same holds for a prompt that is longer than the context.
    """
    rows = list(range(len(prompts)) if places is None else places)
    if not rows:
        return
    context = reader.context
    generators = _generators(prompts, sampling.seed)
    kept = [_within(prompt, context) for prompt in prompts]
    counts = [0] * len(prompts)
    scores = reader.read([kept[row] for row in rows])
    while rows:
        tokens = draw(probabilities(scores, sampling), [generators[row] for row in rows])
        staying = []
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if token in _ENDS:
                yield row, None
                continue
            yield row, token
            counts[row] += 1
            kept[row].append(token)
            if counts[row] < sampling.max_tokens:
                staying.append(place)
            else:
                yield row, None
        if not staying:
            return
        if len(staying) < len(rows):
            reader.select(staying)
        rows = [rows[place] for place in staying]
        tokens = [kept[row][-1] for row in rows]
        again = {place: _within(kept[row], context) for place, row in enumerate(rows) if len(kept[row]) >= context}
        for place, half in again.items():
            kept[rows[place]] = list(half)
        scores = reader.step(tokens, again)


def _within(tokens: list[int], context: int) -> list[int]:
    """The tokens that stay when a row has grown to the context's length."""
    return tokens[-max(1, context // 2) :] if len(tokens) >= context else list(tokens)


def _generators(prompts: list[list[int]], seed: int) -> list[np.random.Generator]:
    """Random numbers of each row, from the seed, its prompt, and how often that prompt came before."""
    seen: Counter[tuple[int, ...]] = Counter()
    generators = []
    for prompt in prompts:
        digest = hashlib.sha256(f"{seed} {seen[tuple(prompt)]} {prompt}".encode()).digest()
        generators.append(np.random.default_rng(int.from_bytes(digest, "little")))
        seen[tuple(prompt)] += 1
    return generators
