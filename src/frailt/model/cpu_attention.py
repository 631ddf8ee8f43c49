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
from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from frailt.compiling import compiled
from frailt.model import vector_math
from frailt.model.vector_math import LOG2_E, exp2, f32, maximum

WIDEST = 128
"""Widest head that it was measured at: one and a half times as fast as torch's, at width 8 four times
(bench/attention.py)."""

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
FAST: dict[str, Any] = {"fastmath": True, "error_model": "numpy"}


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


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3])


@torch.library.custom_op("frailt::causal_attention_backward", mutates_args=())
def _backward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, grad = q.contiguous(), k.contiguous(), v.contiguous(), grad.contiguous()
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _share_out(_differentiate, q, k, v, out, lse, grad, dq, dk, dv)
    return dq, dk, dv


@_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate_op(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(*ctx.saved_tensors, grad)


_forward.register_autograd(_differentiate_op, setup_context=_save)


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
# do not overlap; sums over keys stay in registers.


@numba.njit(inline="always", **FAST)
def _multiply(rows, table, products, seen):
    """products[r, j] = sum over d of rows[r, d] table[d, j], for the keys j below ``seen``."""
    for c in range((seen + CHUNK - 1) // CHUNK):
        for g in range(table.shape[1]):
            for j in range(min(CHUNK, seen - c * CHUNK)):
                s0 = s1 = s2 = s3 = f32(0)
                for d in range(GROUP):
                    x = table[c, g, d * PITCH + j]
                    s0 += rows[g, d] * x
                    s1 += rows[g, GROUP + d] * x
                    s2 += rows[g, 2 * GROUP + d] * x
                    s3 += rows[g, 3 * GROUP + d] * x
                if g > 0:
                    s0 += products[c, j]
                    s1 += products[c, PITCH + j]
                    s2 += products[c, 2 * PITCH + j]
                    s3 += products[c, 3 * PITCH + j]
                products[c, j] = s0
                products[c, PITCH + j] = s1
                products[c, 2 * PITCH + j] = s2
                products[c, 3 * PITCH + j] = s3


@numba.njit(inline="always", **FAST)
def _sum_up(weights, table, sums, seen):
    """sums[r, d] = sum over j of weights[r, j] table[d, j]; two d a sweep, as many as the registers hold."""
    for g in range(table.shape[1]):
        for d in range(0, GROUP, 2):
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = f32(0)
            for c in range((seen + CHUNK - 1) // CHUNK):
                for j in range(min(CHUNK, seen - c * CHUNK)):
                    x = table[c, g, d * PITCH + j]
                    y = table[c, g, (d + 1) * PITCH + j]
                    a0 += weights[c, j] * x
                    b0 += weights[c, j] * y
                    a1 += weights[c, PITCH + j] * x
                    b1 += weights[c, PITCH + j] * y
                    a2 += weights[c, 2 * PITCH + j] * x
                    b2 += weights[c, 2 * PITCH + j] * y
                    a3 += weights[c, 3 * PITCH + j] * x
                    b3 += weights[c, 3 * PITCH + j] * y
            sums[g, d], sums[g, GROUP + d], sums[g, 2 * GROUP + d], sums[g, 3 * GROUP + d] = a0, a1, a2, a3
            d += 1
            sums[g, d], sums[g, GROUP + d], sums[g, 2 * GROUP + d], sums[g, 3 * GROUP + d] = b0, b1, b2, b3


@numba.njit(inline="always", **FAST)
def _spread(weights, rows, table, seen):
    """table[d, j] += sum over r of weights[r, j] rows[r, d]."""
    for c in range((seen + CHUNK - 1) // CHUNK):
        for g in range(table.shape[1]):
            for j in range(min(CHUNK, seen - c * CHUNK)):
                p0 = weights[c, j]
                p1 = weights[c, PITCH + j]
                p2 = weights[c, 2 * PITCH + j]
                p3 = weights[c, 3 * PITCH + j]
                for d in range(GROUP):
                    x = p0 * rows[g, d] + p1 * rows[g, GROUP + d]
                    x += p2 * rows[g, 2 * GROUP + d] + p3 * rows[g, 3 * GROUP + d]
                    table[c, g, d * PITCH + j] += x


@numba.njit(inline="always", **FAST)
def _mask(weights, own, seen, value):
    """Put ``value`` where row r would see keys past its own; the first row's is ``own``."""
    for r in range(ROWS):
        for j in range(own + r + 1, seen):
            weights[j // CHUNK, r * PITCH + j % CHUNK] = value


@numba.njit(inline="always", **FAST)
def _exponentiate(scores, ends, seen):
    """scores[r, j] = 2^(scores[r, j] - greatest of row r); ``ends``: the greatest of each row, then each row's sum."""
    m0 = m1 = m2 = m3 = LEAST
    for c in range((seen + CHUNK - 1) // CHUNK):
        for j in range(min(CHUNK, seen - c * CHUNK)):
            m0 = maximum(m0, scores[c, j])
            m1 = maximum(m1, scores[c, PITCH + j])
            m2 = maximum(m2, scores[c, 2 * PITCH + j])
            m3 = maximum(m3, scores[c, 3 * PITCH + j])
    t0 = t1 = t2 = t3 = f32(0)
    for c in range((seen + CHUNK - 1) // CHUNK):
        for j in range(min(CHUNK, seen - c * CHUNK)):
            e0 = exp2(scores[c, j] - m0)
            e1 = exp2(scores[c, PITCH + j] - m1)
            e2 = exp2(scores[c, 2 * PITCH + j] - m2)
            e3 = exp2(scores[c, 3 * PITCH + j] - m3)
            t0 += e0
            t1 += e1
            t2 += e2
            t3 += e3
            scores[c, j] = e0
            scores[c, PITCH + j] = e1
            scores[c, 2 * PITCH + j] = e2
            scores[c, 3 * PITCH + j] = e3
    ends[0], ends[1], ends[2], ends[3] = m0, m1, m2, m3
    ends[4], ends[5], ends[6], ends[7] = t0, t1, t2, t3


@numba.njit(inline="always", **FAST)
def _slope(scores, slopes, ends, seen):
    """scores = 2^(scores - ends[r]), the softmax's weights again; slopes = weights (slopes - ends[ROWS + r])."""
    m0, m1, m2, m3 = ends[0], ends[1], ends[2], ends[3]
    g0, g1, g2, g3 = ends[4], ends[5], ends[6], ends[7]
    for c in range((seen + CHUNK - 1) // CHUNK):
        for j in range(min(CHUNK, seen - c * CHUNK)):
            e0 = exp2(scores[c, j] - m0)
            e1 = exp2(scores[c, PITCH + j] - m1)
            e2 = exp2(scores[c, 2 * PITCH + j] - m2)
            e3 = exp2(scores[c, 3 * PITCH + j] - m3)
            scores[c, j] = e0
            scores[c, PITCH + j] = e1
            scores[c, 2 * PITCH + j] = e2
            scores[c, 3 * PITCH + j] = e3
            slopes[c, j] = e0 * (slopes[c, j] - g0)
            slopes[c, PITCH + j] = e1 * (slopes[c, PITCH + j] - g1)
            slopes[c, 2 * PITCH + j] = e2 * (slopes[c, 2 * PITCH + j] - g2)
            slopes[c, 3 * PITCH + j] = e3 * (slopes[c, 3 * PITCH + j] - g3)


@numba.njit(inline="always", **FAST)
def _transpose(x, scale, table):
    """table[d, j] = x[j, d] scale."""
    for j in range(x.shape[0]):
        for d in range(x.shape[1]):
            table[j // CHUNK, d // GROUP, d % GROUP * PITCH + j % CHUNK] = x[j, d] * scale


@numba.njit(inline="always", **FAST)
def _transpose_back(table, scale, x):
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


@compiled(vector_math, nogil=True, **FAST)
def _attend(q, k, v, out, top, total, scale, first, last):
    """Scores of four queries against all keys before them, softmax, weighted sum of the values.

    ``top`` and ``total``: each query's greatest score, to base 2, and the sum of its weights relative to that one's.
    """
    _, heads, time, width = q.shape
    kv_heads = k.shape[1]
    share = heads // kv_heads  # Query heads for each head of keys and values.
    chunks = (time + CHUNK - 1) // CHUNK
    groups = (width + GROUP - 1) // GROUP
    for task in range(first, last):
        b = task // kv_heads
        g = task % kv_heads
        keys = np.zeros((chunks, groups, GROUP * PITCH), f32)
        values = np.zeros((chunks, groups, GROUP * PITCH), f32)
        _transpose(k[b, g], scale * LOG2_E, keys)
        _transpose(v[b, g], f32(1), values)
        weights = np.empty((chunks, ROWS * PITCH), f32)
        rows = np.empty((groups, ROWS * GROUP), f32)
        ends = np.empty(2 * ROWS, f32)
        for h in range(g * share, (g + 1) * share):
            for i in range(0, time, ROWS):
                seen = (i + ROWS + LANES - 1) // LANES * LANES
                _take(q[b, h], i, rows)
                _multiply(rows, keys, weights, seen)
                _mask(weights, i, seen, LEAST)
                _exponentiate(weights, ends, seen)
                _sum_up(weights, values, rows, seen)
                for r in range(min(ROWS, time - i)):
                    top[b, h, i + r] = ends[r]
                    total[b, h, i + r] = ends[ROWS + r]
                    for d in range(width):
                        out[b, h, i + r, d] = rows[d // GROUP, r * GROUP + d % GROUP] / ends[ROWS + r]


@compiled(vector_math, nogil=True, **FAST)
def _differentiate(q, k, v, out, lse, grad, dq, dk, dv, scale, first, last):
    """Gradients, four queries at a time: dv += p grad, ds = p (grad v - grad out), dq = ds k, dk += ds q."""
    _, heads, time, width = q.shape
    kv_heads = k.shape[1]
    share = heads // kv_heads  # Query heads for each head of keys and values.
    chunks = (time + CHUNK - 1) // CHUNK
    groups = (width + GROUP - 1) // GROUP
    for task in range(first, last):
        b = task // kv_heads
        g = task % kv_heads
        keys = np.zeros((chunks, groups, GROUP * PITCH), f32)
        values = np.zeros((chunks, groups, GROUP * PITCH), f32)
        dkeys = np.zeros((chunks, groups, GROUP * PITCH), f32)
        dvalues = np.zeros((chunks, groups, GROUP * PITCH), f32)
        _transpose(k[b, g], scale * LOG2_E, keys)
        _transpose(v[b, g], f32(1), values)
        weights = np.empty((chunks, ROWS * PITCH), f32)
        slopes = np.empty((chunks, ROWS * PITCH), f32)
        rows = np.empty((groups, ROWS * GROUP), f32)
        grads = np.empty((groups, ROWS * GROUP), f32)
        sums = np.empty((groups, ROWS * GROUP), f32)
        ends = np.zeros(2 * ROWS, f32)
        for h in range(g * share, (g + 1) * share):
            for i in range(0, time, ROWS):
                seen = (i + ROWS + LANES - 1) // LANES * LANES
                there = min(ROWS, time - i)
                ends[:] = f32(0)  # Rows past the end have scores of 0, and must not meet those of the rows before.
                _take(q[b, h], i, rows)
                _take(grad[b, h], i, grads)
                for r in range(there):
                    ends[r] = lse[b, h, i + r]
                    gain = f32(0)
                    for d in range(width):
                        gain += out[b, h, i + r, d] * grad[b, h, i + r, d]
                    ends[ROWS + r] = gain
                _multiply(rows, keys, weights, seen)
                _multiply(grads, values, slopes, seen)
                _slope(weights, slopes, ends, seen)
                _mask(weights, i, seen, f32(0))
                _mask(slopes, i, seen, f32(0))
                _sum_up(slopes, keys, sums, seen)
                _spread(weights, grads, dvalues, seen)
                _spread(slopes, rows, dkeys, seen)
                for r in range(there):
                    for d in range(width):
                        dq[b, h, i + r, d] = sums[d // GROUP, r * GROUP + d % GROUP] / LOG2_E
        _transpose_back(dkeys, scale, dk[b, g])
        _transpose_back(dvalues, f32(1), dv[b, g])
