"""How the next token is chosen from the model's scores."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature}; it must be at least 0 and finite")
        for name in ("top_k", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise InputError(f"{name} is {value}; it must be above 0 and at most 1")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; it must not be negative")


def probabilities(logits: Float[Tensor, "batch vocab"], sampling: Sampling) -> Float[Tensor, "batch vocab"]:
    """What to draw from, in float64 on the CPU: rows sum to 1. With temperature 0 the first likeliest token has all."""
    logits = logits.cpu().double()
    if sampling.temperature == 0:
        return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    p = (logits / sampling.temperature).softmax(1)
    if sampling.top_k is not None and sampling.top_k < p.shape[1]:
        p = _keep(p, p >= p.topk(sampling.top_k).values[:, -1:])
    if sampling.top_p is not None:
        ordered, places = p.sort(descending=True, stable=True)
        # A token stays while those before it have not reached the sum, so the likeliest one always does.
        stays = ordered.cumsum(1) - ordered < sampling.top_p
        p = _keep(p, torch.zeros_like(stays).scatter_(1, places, stays))
    if sampling.min_p is not None:
        p = _keep(p, p >= sampling.min_p * p.amax(1, keepdim=True))
    return p


def draw(p: Float[Tensor, "batch vocab"], generators: list[np.random.Generator]) -> list[int]:
    """One token a row, each by its own random numbers, so that no row's text depends on its neighbours."""
    totals = p.cumsum(1).numpy()
    return [
        int(np.searchsorted(row, random.random() * row[-1], side="right"))
        for row, random in zip(totals, generators, strict=True)
    ]


def _keep(p: Float[Tensor, "batch vocab"], stays: Tensor) -> Float[Tensor, "batch vocab"]:
    kept = p * stays
    return kept / kept.sum(1, keepdim=True)
