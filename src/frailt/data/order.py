"""The order of the text: which windows of the training tokens make the batch of a step.

It follows from (seed, step) alone, so every model of a comparison reads the same text in the same order, and a resumed
run goes on where it stopped with nothing to restore.
"""

from functools import lru_cache

import numpy as np


def shuffled_windows(step: int, *, windows: int, batch: int, seed: int, share: tuple[int, int] = (0, 1)) -> np.ndarray:
    """The windows of one training step, counted from 0: int64 of shape ``(batch / ranks,)``.

    Each epoch is a fresh random order of all windows; a batch may span two epochs.

    Args:
        step: counted from 0.
        windows: how many there are.
        batch: windows of a step over all ranks.
        seed: decides the order.
        share: ``(rank, ranks)`` picks one of ``ranks`` equal shares, which make up the batch and do not overlap.
    """
    rank, ranks = share
    assert batch % ranks == 0
    places = np.arange(step * batch, (step + 1) * batch).reshape(ranks, -1)[rank]
    epochs = places // windows
    chosen = np.empty(len(places), dtype=np.int64)
    for epoch in np.unique(epochs):
        within = epochs == epoch
        chosen[within] = _epoch(seed, int(epoch), windows)[places[within] % windows]
    return chosen


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, windows: int) -> np.ndarray:
    """The windows of an epoch in their random order; cached, since every step of the epoch asks for it."""
    return np.random.default_rng([seed, epoch]).permutation(windows)
