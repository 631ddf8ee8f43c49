"""Causal attention of whole sequences on a CPU.

The paper's smallest models have eight heads of eight numbers. There a matrix library spends its time on overhead:
torch's fused attention takes four fifths of a training step at width 64. This kernel puts the keys, not the head's
numbers, into the processor's vector lanes, and keeps the scores of four queries in the first cache. LLVM compiles it
through Numba for the processor at hand, once; later runs read it from a cache on disk.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from frailt.compiling import compiled
from frailt.model import vector_math
from frailt.model.vector_math import FAST, LOG2_E, exp2, f32, maximum

WIDEST = 128
"""Widest head that it was measured at: there one and a half times as fast as torch's (bench/attention.py)."""

ROWS = 4
"""Queries that are taken together."""
LANES = 16
"""Keys are taken in multiples of this many."""
GROUP = 8
"""Head numbers that are taken together, a constant for the compiler; wider heads are several groups."""
CHUNK = 512
"""Keys in one piece of a table's row; longer contexts have several pieces."""
PITCH = CHUNK + LANES
"""Distance between rows in memory. Rows 2 KiB apart would fight for the same few places of the first cache."""

LEAST = f32(-1e30)


def suits_kernel(q: Tensor, k: Tensor) -> bool:
    """Whether the kernel handles this call, and well: float32 or bfloat16 on a CPU, as many keys as queries."""
    known = q.device.type == "cpu" and q.dtype in (torch.float32, torch.bfloat16)
    return known and q.shape[3] <= WIDEST and q.shape[2] == k.shape[2] > 1


@torch.library.custom_op("frailt::causal_attention", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out, top, total = torch.empty_like(q), q.new_empty(q.shape[:3]), q.new_empty(q.shape[:3])
    _share_out(_attend, q, k, v, out, top, total)
    # The logarithm, to base 2, of the softmax's denominator: from it the backward pass rebuilds the weights.
    return out, top + total.log2()


@torch.library.custom_op("frailt::causal_attention_backward", mutates_args=())
def _backward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, grad = q.contiguous(), k.contiguous(), v.contiguous(), grad.contiguous()
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _share_out(_differentiate, q, k, v, out, lse, grad, dq, dk, dv)
    return dq, dk, dv


_forward.register_fake(lambda q, k, v: (q.new_empty(q.shape), q.new_empty(q.shape[:3])))
_backward.register_fake(lambda q, k, v, *_: tuple(x.new_empty(x.shape) for x in (q, k, v)))
_forward.register_autograd(
    lambda ctx, grad, _: _backward(*ctx.saved_tensors, grad),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs, *output),
)


def causal_attention(
    q: Float[Tensor, "batch heads time head"],
    k: Float[Tensor, "batch kv_heads time head"],
    v: Float[Tensor, "batch kv_heads time head"],
) -> Float[Tensor, "batch heads time head"]:
    """``softmax(q k^T / sqrt(head) + causal mask) v``, differentiable; ``kv_heads`` divides ``heads``.

    It computes in float32; what comes in bfloat16 is returned so.
    """
    return _forward(q.float(), k.float(), v.float())[0].to(q.dtype)


def _share_out(kernel: Callable[..., None], *tensors: Tensor) -> None:
    """Run a kernel over all heads of keys and values in as many threads as torch has.

    The threads are Python's, not Numba's. Numba's spin while they wait, so that two runs side by side slow each other
    down; and a parallel function rounds otherwise in the process that compiled it than where it came from the cache.
    """
    q, k = tensors[:2]
    arguments = (*(tensor.detach().numpy() for tensor in tensors), f32(q.shape[3] ** -0.5))
    heads = k.shape[0] * k.shape[1]
    threads = max(1, min(torch.get_num_threads(), heads))
    if threads == 1:
        kernel(*arguments, 0, heads)
        return
    borders = [heads * n // threads for n in range(threads + 1)]
    list(_pool(threads, os.getpid()).map(lambda part: kernel(*arguments, *part), pairwise(borders)))


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    # One for each process: a fork has no threads but its own.
    return ThreadPoolExecutor(threads)


# The kernels. A head's keys and values lie transposed in tables, [piece, group, number * PITCH + position], and four
# queries are taken at a time, so that what is loaded is used four times. The loops are written so that LLVM makes 16
# lanes of each inner one: those over GROUP are unrolled; rows are a constant distance apart, so it can tell that they
# do not overlap; sums over keys stay in registers, so the four numbers of the four rows are a tuple and no array.

ZEROS = f32(0), f32(0), f32(0), f32(0)


@numba.njit(inline="always", **FAST)
def _four(table, c, j, pitch):
    """The numbers at place j of the four rows of piece c."""
    return table[c, j], table[c, pitch + j], table[c, 2 * pitch + j], table[c, 3 * pitch + j]


@numba.njit(inline="always", **FAST)
def _put(table, c, j, pitch, four):
    table[c, j], table[c, pitch + j], table[c, 2 * pitch + j], table[c, 3 * pitch + j] = four


@numba.njit(inline="always", **FAST)
def _add(sums, four, x):
    """sums + four x."""
    return sums[0] + four[0] * x, sums[1] + four[1] * x, sums[2] + four[2] * x, sums[3] + four[3] * x


@numba.njit(inline="always", **FAST)
def _exp2_less(four, less):
    """2^(four - less)."""
    return exp2(four[0] - less[0]), exp2(four[1] - less[1]), exp2(four[2] - less[2]), exp2(four[3] - less[3])


@numba.njit(inline="always", **FAST)
def _multiply(rows, table, products, seen):
    """products[r, j] = sum over d of rows[r, d] table[d, j], for the keys j below ``seen``."""
    for c in range((seen + CHUNK - 1) // CHUNK):
        for g in range(table.shape[1]):
            for j in range(min(CHUNK, seen - c * CHUNK)):
                sums = ZEROS
                for d in range(GROUP):
                    sums = _add(sums, _four(rows, g, d, GROUP), table[c, g, d * PITCH + j])
                if g > 0:
                    sums = _add(sums, _four(products, c, j, PITCH), f32(1))
                _put(products, c, j, PITCH, sums)


@numba.njit(inline="always", **FAST)
def _sum_up(weights, table, sums, seen):
    """sums[r, d] = sum over j of weights[r, j] table[d, j]; two d a sweep, as many as the registers hold."""
    for g in range(table.shape[1]):
        for d in range(0, GROUP, 2):
            a = b = ZEROS
            for c in range((seen + CHUNK - 1) // CHUNK):
                for j in range(min(CHUNK, seen - c * CHUNK)):
                    four = _four(weights, c, j, PITCH)
                    a = _add(a, four, table[c, g, d * PITCH + j])
                    b = _add(b, four, table[c, g, (d + 1) * PITCH + j])
            _put(sums, g, d, GROUP, a)
            _put(sums, g, d + 1, GROUP, b)


@numba.njit(inline="always", **FAST)
def _spread(weights, rows, table, seen):
    """table[d, j] += sum over r of weights[r, j] rows[r, d]."""
    for c in range((seen + CHUNK - 1) // CHUNK):
        for g in range(table.shape[1]):
            for j in range(min(CHUNK, seen - c * CHUNK)):
                p = _four(weights, c, j, PITCH)
                for d in range(GROUP):
                    q = _four(rows, g, d, GROUP)
                    table[c, g, d * PITCH + j] += (p[0] * q[0] + p[1] * q[1]) + (p[2] * q[2] + p[3] * q[3])


@numba.njit(inline="always", **FAST)
def _mask(weights, own, seen, value):
    """Put ``value`` where row r would see keys past its own; the first row's is ``own``."""
    for r in range(ROWS):
        for j in range(own + r + 1, seen):
            weights[j // CHUNK, r * PITCH + j % CHUNK] = value


@numba.njit(inline="always", **FAST)
def _exponentiate(scores, ends, seen):
    """scores[r, j] = 2^(scores[r, j] - greatest of row r); ``ends``: the greatest of each row, then each row's sum."""
    top = LEAST, LEAST, LEAST, LEAST
    for c in range((seen + CHUNK - 1) // CHUNK):
        for j in range(min(CHUNK, seen - c * CHUNK)):
            s = _four(scores, c, j, PITCH)
            top = maximum(top[0], s[0]), maximum(top[1], s[1]), maximum(top[2], s[2]), maximum(top[3], s[3])
    total = ZEROS
    for c in range((seen + CHUNK - 1) // CHUNK):
        for j in range(min(CHUNK, seen - c * CHUNK)):
            e = _exp2_less(_four(scores, c, j, PITCH), top)
            total = _add(total, e, f32(1))
            _put(scores, c, j, PITCH, e)
    _put(ends, 0, 0, 1, top)
    _put(ends, 1, 0, 1, total)


@numba.njit(inline="always", **FAST)
def _slope(scores, slopes, logs, gains, seen):
    """scores = 2^(scores - logs[r]), the softmax's weights again; slopes = weights (slopes - gains[r])."""
    for c in range((seen + CHUNK - 1) // CHUNK):
        for j in range(min(CHUNK, seen - c * CHUNK)):
            e, s = _exp2_less(_four(scores, c, j, PITCH), logs), _four(slopes, c, j, PITCH)
            s = s[0] - gains[0], s[1] - gains[1], s[2] - gains[2], s[3] - gains[3]
            _put(scores, c, j, PITCH, e)
            _put(slopes, c, j, PITCH, (e[0] * s[0], e[1] * s[1], e[2] * s[2], e[3] * s[3]))


@numba.njit(inline="always", **FAST)
def _table(x, scale):
    """table[d, j] = x[j, d] scale; zeros where the head is no whole number of groups, and past the last key."""
    chunks, groups = (x.shape[0] + CHUNK - 1) // CHUNK, (x.shape[1] + GROUP - 1) // GROUP
    table = np.zeros((chunks, groups, GROUP * PITCH), f32)
    for j in range(x.shape[0]):
        for d in range(x.shape[1]):
            table[j // CHUNK, d // GROUP, d % GROUP * PITCH + j % CHUNK] = x[j, d] * scale
    return table


@numba.njit(inline="always", **FAST)
def _read_back(table, scale, x):
    """x[j, d] = table[d, j] scale."""
    for j in range(x.shape[0]):
        for d in range(x.shape[1]):
            x[j, d] = table[j // CHUNK, d // GROUP, d % GROUP * PITCH + j % CHUNK] * scale


@numba.njit(inline="always", **FAST)
def _take(x, i, rows):
    """rows[r] = x[i + r]; zeros past the end, and where the head is no whole number of groups."""
    rows[:, :] = f32(0)
    for r in range(min(ROWS, x.shape[0] - i)):
        for d in range(x.shape[1]):
            rows[d // GROUP, r * GROUP + d % GROUP] = x[i + r, d]


@compiled(vector_math, **FAST)
def _attend(q, k, v, out, top, total, scale, first, last):
    """Scores of four queries against all keys before them, softmax, weighted sum of the values.

    ``top`` and ``total``: each query's greatest score, to base 2, and the sum of its weights relative to that one's.
    """
    _, heads, time, width = q.shape
    kv_heads = k.shape[1]
    share = heads // kv_heads  # Query heads for each head of keys and values.
    for task in range(first, last):
        b, g = task // kv_heads, task % kv_heads
        keys, values = _table(k[b, g], scale * LOG2_E), _table(v[b, g], f32(1))
        weights = np.empty((len(keys), ROWS * PITCH), f32)
        rows = np.empty((keys.shape[1], ROWS * GROUP), f32)
        ends = np.empty((2, ROWS), f32)
        for h in range(g * share, (g + 1) * share):
            for i in range(0, time, ROWS):
                seen = (i + ROWS + LANES - 1) // LANES * LANES
                _take(q[b, h], i, rows)
                _multiply(rows, keys, weights, seen)
                _mask(weights, i, seen, LEAST)
                _exponentiate(weights, ends, seen)
                _sum_up(weights, values, rows, seen)
                for r in range(min(ROWS, time - i)):
                    top[b, h, i + r], total[b, h, i + r] = ends[0, r], ends[1, r]
                    for d in range(width):
                        out[b, h, i + r, d] = rows[d // GROUP, r * GROUP + d % GROUP] / ends[1, r]


@compiled(vector_math, **FAST)
def _differentiate(q, k, v, out, lse, grad, dq, dk, dv, scale, first, last):
    """Gradients, four queries at a time: dv += p grad, ds = p (grad v - grad out), dq = ds k, dk += ds q."""
    _, heads, time, width = q.shape
    kv_heads = k.shape[1]
    share = heads // kv_heads
    for task in range(first, last):
        b, g = task // kv_heads, task % kv_heads
        keys, values = _table(k[b, g], scale * LOG2_E), _table(v[b, g], f32(1))
        dkeys, dvalues = np.zeros_like(keys), np.zeros_like(values)
        weights = np.empty((len(keys), ROWS * PITCH), f32)
        slopes = np.empty_like(weights)
        rows = np.empty((keys.shape[1], ROWS * GROUP), f32)
        grads, sums = np.empty_like(rows), np.empty_like(rows)
        ends = np.empty((2, ROWS), f32)
        for h in range(g * share, (g + 1) * share):
            for i in range(0, time, ROWS):
                seen = (i + ROWS + LANES - 1) // LANES * LANES
                there = min(ROWS, time - i)
                ends[:, :] = f32(0)  # Rows past the end have scores of 0, and must not meet those of the rows before.
                _take(q[b, h], i, rows)
                _take(grad[b, h], i, grads)
                for r in range(there):
                    gain = f32(0)
                    for d in range(width):
                        gain += out[b, h, i + r, d] * grad[b, h, i + r, d]
                    ends[0, r], ends[1, r] = lse[b, h, i + r], gain
                _multiply(rows, keys, weights, seen)
                _multiply(grads, values, slopes, seen)
                _slope(weights, slopes, _four(ends, 0, 0, 1), _four(ends, 1, 0, 1), seen)
                _mask(weights, i, seen, f32(0))
                _mask(slopes, i, seen, f32(0))
                _sum_up(slopes, keys, sums, seen)
                _spread(weights, grads, dvalues, seen)
                _spread(slopes, rows, dkeys, seen)
                for r in range(there):
                    for d in range(width):
                        dq[b, h, i + r, d] = sums[d // GROUP, r * GROUP + d % GROUP] / LOG2_E
        _read_back(dkeys, scale, dk[b, g])
        _read_back(dvalues, f32(1), dv[b, g])
