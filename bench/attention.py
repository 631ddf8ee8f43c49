"""Attention on the CPU: the Numba kernel against torch's, forward and backward, in turn.

    python bench/attention.py

Prints the ratio of medians; the seconds themselves mean little on a busy machine.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from frailt.model.cpu_attention import causal_attention

BATCH, HEADS, TIME = 8, 8, 512
ROUNDS = 15


def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's fused attention."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def seconds(attention: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: list[Tensor]) -> float:
    """One forward and backward pass."""
    start = time.perf_counter()
    attention(*inputs).sum().backward()
    return time.perf_counter() - start


def main() -> None:
    """Time both for each head width."""
    for head in (2, 4, 8, 16, 32, 64, 128):
        inputs = [torch.randn(BATCH, HEADS, TIME, head, requires_grad=True) for _ in range(3)]
        both = [(seconds(causal_attention, inputs), seconds(torchs, inputs)) for _ in range(ROUNDS + 1)][1:]
        ours, theirs = (median(column) * 1e6 / BATCH / TIME for column in zip(*both, strict=True))
        print(f"head width {head:3}: {ours:5.1f} us a token, torch {theirs:5.1f}: {theirs / ours:.1f} times as fast")


if __name__ == "__main__":
    main()
