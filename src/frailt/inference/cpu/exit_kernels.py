"""What the compiled decoder needs for early exits: how far a pass moved the signal, and keys and values of passes that
are skipped. The rules: ``exit_rule.py``.
"""

import numba
import numpy as np

from frailt.inference.cpu.products import COLUMNS, LANES, place_of
from frailt.model.vector_math import FAST, exp_of_negative, f32

BEFORE, LEAVE = 1, 2
"""After a pass: only remember what it gave, or also leave where it changed little."""


@numba.njit(**FAST)
def distance(x, last, dim):
    """``|x - last| / |x|``; ``last`` becomes ``x``."""
    moved, size = f32(0), f32(0)
    for i in range(dim):
        step = x[i] - last[i]
        moved += step * step
        size += x[i] * x[i]
        last[i] = x[i]
    return np.sqrt(moved / size)


@numba.njit(**FAST)
def divergence(now, before, vocab):
    """KL of the softmax of ``now`` from that of ``before``: the mean of their difference under ``now``, less the
    difference of their normalisers."""
    top, top_before = now[0], before[0]
    for i in range(vocab):
        top, top_before = max(top, now[i]), max(top_before, before[i])
    total, total_before, mean = f32(0), f32(0), f32(0)
    for i in range(vocab):
        p = exp_of_negative(min(now[i] - top, f32(0)))
        total += p
        total_before += exp_of_negative(min(before[i] - top_before, f32(0)))
        mean += p * ((now[i] - top) - (before[i] - top_before))
    return mean / total - np.log(total / total_before)


@numba.njit(**FAST)
def copy_keys(known, skipped, position, head):
    """The keys of one token and head from one slot into another; see ``kernels._attend`` for their places."""
    for i in range(head):
        place = place_of(known, position, i, -(-head // COLUMNS) * COLUMNS)
        skipped[place] = known[place]


@numba.njit(**FAST)
def copy_values(known, skipped, position, head):
    """The same for values."""
    capacity = len(known) // (-(-head // LANES)) // LANES
    for i in range(head):
        place = place_of(known, i, position, capacity)
        skipped[place] = known[place]
