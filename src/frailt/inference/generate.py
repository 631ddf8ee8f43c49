"""Stories from a model: token by token, with a cache, several at once."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from frailt.data.tokenizer import FIXED, Tokenizer
from frailt.errors import InputError
from frailt.inference.sampling import Sampling, draw, probabilities
from frailt.model.cache import Cache
from frailt.model.checkpoint import load_model
from frailt.model.frailt import FraiLT

_ENDS = (Tokenizer.bos, FIXED.index("</s>"))


class Storyteller:
    """A model with its tokenizer.

    Args:
        model: in evaluation mode, on the device to use.
        tokenizer: the one it was trained with.
    """

    def __init__(self, model: FraiLT, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, path: Path, tokenizer: Path | None = None) -> "Storyteller":
        """Read a model and its tokenizer.

        Args:
            path: a run folder, a saved model's folder, or a llama2.c ``.bin``.
            tokenizer: where it is not stored beside the model.

        Raises:
            InputError: either is missing or damaged, or their vocabularies differ.
        """
        model = load_model(path)
        pieces = Tokenizer.load(tokenizer or (path if path.is_dir() else path.parent))
        if pieces.vocab_size != model.config.vocab_size:
            raise InputError(
                f"{path} has a vocabulary of {model.config.vocab_size}, its tokenizer {pieces.vocab_size}; "
                "give the right one with --tokenizer"
            )
        return cls(model, pieces)

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling | None = None,
        *,
        iterations: int | tuple[int, ...] | None = None,
    ) -> list[str]:
        """Complete each prompt; the completions alone, without their prompts.

        A text does not depend on the other prompts of its batch. A prompt that occurs several times gets a
        different completion each time.

        Args:
            prompts: beginnings; spaces at their ends are dropped, since the next word brings its own.
            sampling: options; unset: the defaults of ``Sampling``.
            iterations: passes, as for ``FraiLT.forward``.
        """
        if isinstance(prompts, str):
            raise InputError("generate() takes a list of prompts; put the one prompt into brackets")
        streams = [_Stream(self.tokenizer, prompt) for prompt in prompts]
        for row, text in self._run(streams, sampling or Sampling(), iterations):
            streams[row].text += text
        return [stream.text for stream in streams]

    def stream(
        self,
        prompt: str,
        sampling: Sampling | None = None,
        *,
        iterations: int | tuple[int, ...] | None = None,
    ) -> Iterator[str]:
        """Complete one prompt, piece by piece as it is written. The pieces join to what ``generate`` gives."""
        for _, text in self._run([_Stream(self.tokenizer, prompt)], sampling or Sampling(), iterations):
            yield text

    def _run(
        self, streams: list["_Stream"], sampling: Sampling, iterations: int | tuple[int, ...] | None
    ) -> Iterator[tuple[int, str]]:
        tokens = [stream.tokens for stream in streams]
        for row, token in continuations(self.model, tokens, sampling, iterations=iterations):
            yield row, streams[row].decoder.push(token) if token is not None else streams[row].decoder.flush()


class _Stream:
    """A prompt's tokens, and the decoder that goes on after them."""

    def __init__(self, tokenizer: Tokenizer, prompt: str) -> None:
        self.tokens = [tokenizer.bos, *tokenizer.encode(prompt.rstrip(" "))]
        self.decoder = tokenizer.stream()
        for token in self.tokens:
            self.decoder.push(token)
        self.text = ""


def load(path: str | Path, tokenizer: str | Path | None = None) -> Storyteller:
    """Read a model to generate with; see ``Storyteller.load``."""
    return Storyteller.load(Path(path), Path(tokenizer) if tokenizer is not None else None)


def continuations(
    model: FraiLT,
    prompts: list[list[int]],
    sampling: Sampling,
    *,
    iterations: int | tuple[int, ...] | None = None,
) -> Iterator[tuple[int, int | None]]:
    """Yield (row, next token) as tokens are drawn, and (row, None) once a row is complete.

    A row is complete when the model begins another story (BOS, or EOS where a model has learned one) or after
    ``max_tokens``. Complete rows leave the batch, and cost nothing from then on.

    When a row's tokens fill the model's context, the older half is forgotten and the rest is read again, at
    positions from 0. The same holds for a prompt that is longer than the context.
    """
    if not prompts:
        return
    context = model.config.context
    generators = _generators(prompts, sampling.seed)
    rows = list(range(len(prompts)))
    kept = [_within(prompt, context) for prompt in prompts]
    counts = [0] * len(prompts)
    scores, cache = _read(model, [kept[row] for row in rows], iterations)
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
            cache.select(staying)
        rows = [rows[place] for place in staying]
        if any(len(kept[row]) >= context for row in rows) or cache.length >= context:
            for row in rows:
                kept[row] = _within(kept[row], context)
            scores, cache = _read(model, [kept[row] for row in rows], iterations)
        else:
            new = torch.tensor([[kept[row][-1]] for row in rows], device=scores.device)
            scores = _scores(model, new, cache, iterations)


def _read(model: FraiLT, rows: list[list[int]], iterations: int | tuple[int, ...] | None) -> tuple[torch.Tensor, Cache]:
    """Scores after each row and a fresh cache that holds them, padded on the left to equal lengths."""
    device = next(model.parameters()).device
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    padded = bool((lengths < longest).any())
    real = torch.arange(longest, device=device) >= longest - lengths[:, None] if padded else None
    cache = Cache(model.config.context)
    return _scores(model, tokens, cache, iterations, real), cache


@torch.inference_mode()
def _scores(
    model: FraiLT,
    tokens: torch.Tensor,
    cache: Cache,
    iterations: int | tuple[int, ...] | None,
    real: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores of the token after ``tokens``, which the cache then holds."""
    return model(tokens, cache, iterations, real=real).logits[:, -1]


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
