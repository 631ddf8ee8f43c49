"""Causal attention on a CPU for narrow heads.

The paper's smallest models have eight heads of eight numbers. There a matrix library spends its time on overhead:
torch's fused attention takes four fifths of a training step at width 64. This kernel puts the keys, not the head's
numbers, into the processor's vector lanes, and never writes the table of scores to memory. LLVM compiles it
through Numba for the processor at hand, once; later runs read it from a cache on disk.
"""

import math
import os
from typing import Any

import numpy as np
import torch

# Numba starts as many threads as it is told at its import, and those without work spin: two runs of one thread each,
# side by side on two cores, would take three times as long as one.
os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))

import numba
from jaxtyping import Float
from torch import Tensor

from frailt.model.vector_math import exp_of_negative, f32

WIDEST = 12
"""Head width up to which this kernel is the faster one: 3 times at 8, equal at 16 (bench/attention.py)."""

MOST_THREADS = numba.get_num_threads()
"""Numba starts this many threads and refuses to use more."""


def suits_small_heads(q: Tensor, k: Tensor) -> bool:
    """Whether the kernel handles this call, and well: float32 on a CPU, narrow heads, as many keys as queries."""
    return q.device.type == "cpu" and q.dtype == torch.float32 and q.shape[3] <= WIDEST and q.shape[2] == k.shape[2] > 1


@torch.library.custom_op("frailt::causal_small_heads", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out, lse = torch.empty_like(q), q.new_empty(q.shape[:3])
    _use_torchs_threads()
    _attend(_array(q), _array(k), _array(v), _array(out), _array(lse), f32(q.shape[3] ** -0.5))
    return out, lse


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3])


@torch.library.custom_op("frailt::causal_small_heads_backward", mutates_args=())
def _backward(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, grad = q.contiguous(), k.contiguous(), v.contiguous(), grad.contiguous()
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _use_torchs_threads()
    read = _array(q), _array(k), _array(v), _array(out), _array(lse), _array(grad)
    _differentiate(*read, _array(dq), _array(dk), _array(dv), f32(q.shape[3] ** -0.5))
    return dq, dk, dv


@_backward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate_op(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _backward(*ctx.saved_tensors, grad)


_forward.register_autograd(_differentiate_op, setup_context=_save)


def causal_small_heads(
    q: Float[Tensor, "batch heads time head"],
    k: Float[Tensor, "batch kv_heads time head"],
    v: Float[Tensor, "batch kv_heads time head"],
) -> Float[Tensor, "batch heads time head"]:
    """``softmax(q k^T / sqrt(head) + causal mask) v``, differentiable; ``kv_heads`` divides ``heads``."""
    return _forward(q, k, v)[0]


def _use_torchs_threads() -> None:
    numba.set_num_threads(min(torch.get_num_threads(), MOST_THREADS))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


@numba.njit(parallel=True, fastmath=True, error_model="numpy", cache=True)
def _attend(q, k, v, out, lse, scale):
    """Row by row: scores of one query against all keys before it, softmax, weighted sum of the values.

    ``lse`` is the logarithm of each softmax's denominator, from which the backward pass rebuilds the weights.
    """
    batch, heads, time, head = q.shape
    kv_heads = k.shape[1]
    share = heads // kv_heads
    for task in numba.prange(batch * kv_heads):
        b = task // kv_heads
        g = task % kv_heads
        kt = np.empty((head, time), f32)
        vt = np.empty((head, time), f32)
        for j in range(time):
            for d in range(head):
                kt[d, j] = k[b, g, j, d] * scale
                vt[d, j] = v[b, g, j, d]
        p = np.empty(time, f32)
        for h in range(g * share, (g + 1) * share):
            for i in range(time):
                n = i + 1
                p[:n] = f32(0)
                for d in range(head):
                    x = q[b, h, i, d]
                    for j in range(n):
                        p[j] += x * kt[d, j]
                top = p[0]
                for j in range(n):
                    top = max(top, p[j])
                total = f32(0)
                for j in range(n):
                    e = exp_of_negative(p[j] - top)
                    p[j] = e
                    total += e
                lse[b, h, i] = top + f32(math.log(total))
                for d in range(head):
                    y = f32(0)
                    for j in range(n):
                        y += p[j] * vt[d, j]
                    out[b, h, i, d] = y / total


@numba.njit(parallel=True, fastmath=True, error_model="numpy", cache=True)
def _differentiate(q, k, v, out, lse, grad, dq, dk, dv, scale):
    """Gradients, row by row: dv += p grad, ds = p (grad v - grad out), dq = ds k, dk += ds q."""
    batch, heads, time, head = q.shape
    kv_heads = k.shape[1]
    share = heads // kv_heads
    for task in numba.prange(batch * kv_heads):
        b = task // kv_heads
        g = task % kv_heads
        kt = np.empty((head, time), f32)
        vt = np.empty((head, time), f32)
        dkt = np.zeros((head, time), f32)
        dvt = np.zeros((head, time), f32)
        for j in range(time):
            for d in range(head):
                kt[d, j] = k[b, g, j, d] * scale
                vt[d, j] = v[b, g, j, d]
        p = np.empty(time, f32)
        ds = np.empty(time, f32)
        for h in range(g * share, (g + 1) * share):
            for i in range(time):
                n = i + 1
                gain = f32(0)
                for d in range(head):
                    gain += out[b, h, i, d] * grad[b, h, i, d]
                p[:n] = -lse[b, h, i]
                ds[:n] = -gain
                for d in range(head):
                    x = q[b, h, i, d]
                    y = grad[b, h, i, d]
                    for j in range(n):
                        p[j] += x * kt[d, j]
                    for j in range(n):
                        ds[j] += y * vt[d, j]
                for j in range(n):
                    e = exp_of_negative(p[j])
                    p[j] = e
                    ds[j] *= e
                for d in range(head):
                    x = q[b, h, i, d]
                    y = grad[b, h, i, d]
                    z = f32(0)
                    for j in range(n):
                        z += ds[j] * kt[d, j]
                    dq[b, h, i, d] = z
                    for j in range(n):
                        dvt[d, j] += p[j] * y
                    for j in range(n):
                        dkt[d, j] += ds[j] * x
        for j in range(time):
            for d in range(head):
                dk[b, g, j, d] = dkt[d, j] * scale
                dv[b, g, j, d] = dvt[d, j]
