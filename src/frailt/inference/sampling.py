"""How the next token is chosen from the model's scores."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from frailt.configs import require
from frailt.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Options of generation. Filters apply in the order temperature, top_k, top_p, min_p."""

    temperature: float = 1.0
    """Divides the scores: below 1 likelier tokens gain, 0 always takes the likeliest."""
    top_k: int | None = None
    """Keep only this many of the likeliest tokens."""
    top_p: float | None = None
    """Keep the fewest likeliest tokens whose probabilities reach this sum."""
    min_p: float | None = None
    """Keep tokens of at least this share of the likeliest one's probability."""
    max_tokens: int = 400
    """Stop after this many new tokens, if the story has not ended before."""
    seed: int = 0
    """Equal seeds and prompts give equal texts."""

    def __post_init__(self) -> None:
        require(self, "temperature seed", 0)
        require(self, "top_k max_tokens", 1)
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} is {value}; it must be above 0 and at most 1")


def probabilities(logits: Float[np.ndarray, "batch vocab"], sampling: Sampling) -> Float[np.ndarray, "batch vocab"]:
    """What to draw from, in float64: rows sum to 1. With temperature 0 the first likeliest token has all.

    Raises:
        InputError: scores are not numbers.
    """
    logits = logits.astype(np.float64)
    top = logits.max(1, keepdims=True)  # NaN where any is NaN.
    if not all(map(math.isfinite, top[:, 0].tolist())):
        raise InputError("the model's scores are not finite numbers: its weights are damaged or its training failed")
    if sampling.temperature == 0:
        return np.eye(logits.shape[1])[logits.argmax(1)]
    p = np.exp((logits - top) / sampling.temperature)
    p /= p.sum(1, keepdims=True)
    if sampling.top_k is not None and sampling.top_k < p.shape[1]:
        least = np.partition(p, -sampling.top_k, axis=1)[:, -sampling.top_k, None]
        p = _keep(p, p >= least)
    if sampling.top_p is not None:
        places = np.argsort(-p, axis=1, kind="stable")
        ordered = np.take_along_axis(p, places, 1)
        # A token stays while those before it have not reached the sum, so the likeliest one always does.
        stays = np.zeros(p.shape, dtype=bool)
        np.put_along_axis(stays, places, ordered.cumsum(1) - ordered < sampling.top_p, 1)
        p = _keep(p, stays)
    if sampling.min_p is not None:
        p = _keep(p, p >= sampling.min_p * p.max(1, keepdims=True))
    return p


def draw(p: Float[np.ndarray, "batch vocab"], generators: list[np.random.Generator]) -> list[int]:
    """One token a row, each by its own random numbers, so that no row's text depends on its neighbours."""
    totals = p.cumsum(1)
    return [
        int(row.searchsorted(random.random() * row[-1], side="right"))
        for row, random in zip(totals, generators, strict=True)
    ]


def _keep(
    p: Float[np.ndarray, "batch vocab"], stays: Bool[np.ndarray, "batch vocab"]
) -> Float[np.ndarray, "batch vocab"]:
    kept = p * stays
    return kept / kept.sum(1, keepdims=True)
