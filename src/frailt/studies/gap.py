"""Gap closed: which part of the way from a shallow to a deep standard model a FraiLT model goes, story by story."""

from pathlib import Path

import numpy as np
import torch

from frailt.data.corpus import Corpus
from frailt.evaluation.loss import Loss, token_losses
from frailt.files import replacing
from frailt.model.checkpoint import load_model
from frailt.model.shape import Shape
from frailt.paper.published import published_loss

CLOSE = 0.02
"""Losses that differ by less than this share count as equal: the paper says "catch up" of 1.6% and 1.7%."""
RESAMPLES = 2000
"""Draws of the bootstrap over validation stories."""


def gap_closed(
    shallow: np.ndarray, own: np.ndarray, deep: np.ndarray
) -> tuple[float | None, tuple[float, float] | None]:
    """Which part of the way from a shallow to a deep standard model a FraiLT model goes, with a 95% interval.

    Args:
        shallow, own, deep: nats of each validation story under each model.

    Returns:
        ``(shallow - own) / (shallow - deep)`` in mean loss, and its percentiles 2.5 and 97.5 when stories are drawn
        anew with replacement, the same for all three models. ``None``s where deep is not better than shallow by
        ``CLOSE``, since a part of so little is chance; the interval also where deep is no better in a draw.
    """
    if deep.sum() > (1 - CLOSE) * shallow.sum():
        return None, None
    value = float((shallow.sum() - own.sum()) / (shallow.sum() - deep.sum()))
    random, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        weights = random.multinomial(len(own), np.full(len(own), 1 / len(own)))
        # The three models share their tokens, so the mean loss's denominator cancels.
        draws.append((weights @ (shallow - own), weights @ (shallow - deep)))
    top, bottom = np.array(draws).T
    if (bottom <= 0).any():
        return value, None
    low, high = np.percentile(top / bottom, [2.5, 97.5])
    return value, (float(low), float(high))


def published_gap(dim: int, shape: Shape) -> float | None:
    """The gap closed that follows from the paper's tables 2 and 3."""
    shallow, own, deep = (published_loss(dim, s) for s in (str(shape.blocks), str(shape), str(shape.depth)))
    if shallow is None or own is None or deep is None or deep >= shallow:
        return None
    return (shallow - own) / (shallow - deep)


def story_nats(folder: Path, corpus: Corpus, device: torch.device) -> np.ndarray:
    """Nats of each validation story under the model of a complete run: float64, one for each story.

    They are measured once and kept in the run folder. A story's targets are its own tokens; the BOS that opens a story
    counts to it.
    """
    path = folder / "story_nats.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    tokens = np.asarray(corpus.valid.tokens)
    # Target i is token i + 1.
    story = np.cumsum(tokens == corpus.manifest.bos)[1:] - 1
    nats = np.bincount(story, weights=token_losses(load_model(folder).to(device), tokens))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, nats, allow_pickle=False)
    return nats


def stories_loss(nats: np.ndarray, corpus: Corpus) -> Loss:
    """The loss over all validation stories from each one's."""
    return Loss(nats=float(nats.sum()), tokens=len(corpus.valid) - 1, bytes=corpus.valid_bytes)
