"""Attention, and above all the kernel of its own for the CPU, against a plain softmax in float64."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from frailt.model.attention import attend
from frailt.model.cpu_attention import causal_attention, suits_kernel


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(head)) v in float64; causal, with the queries last, where there is no mask."""
    share = q.shape[1] // k.shape[1]
    q, k, v = q.double(), k.double().repeat_interleave(share, dim=1), v.double().repeat_interleave(share, dim=1)
    time, keys = q.shape[2], k.shape[2]
    if mask is None:
        mask = torch.ones(time, keys, dtype=torch.bool).tril(keys - time)
    scores = q @ k.mT / math.sqrt(q.shape[3])
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v


def draw(
    batch: int, heads: int, kv_heads: int, time: int, width: int, *, keys: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((heads, time), (kv_heads, keys or time), (kv_heads, keys or time))
    q, k, v = (torch.randn(batch, count, length, width, generator=generator) for count, length in sizes)
    return q, k, v


def gradients(y: Tensor, inputs: tuple[Tensor, ...], seed: int = 1) -> tuple[Tensor, ...]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    return torch.autograd.grad((y * weights).sum(), inputs)


def check_against_plain(q: Tensor, k: Tensor, v: Tensor, tolerance: float) -> None:
    inputs = tuple(x.detach().requires_grad_() for x in (q, k, v))
    y, expected = causal_attention(*inputs), plain(*inputs)
    assert y.dtype == torch.float32
    assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    for own, right in zip(gradients(y, inputs), gradients(expected, inputs), strict=True):
        assert_close(own, right.float(), rtol=tolerance, atol=tolerance)


@settings(max_examples=40)
@given(
    st.integers(1, 3),
    st.sampled_from([(1, 1), (2, 2), (4, 2), (6, 3), (6, 1), (8, 8)]),
    st.integers(1, 70),
    st.sampled_from([2, 4, 6, 8, 10, 12, 14, 16, 20, 32, 64, 100, 128]),
    st.integers(0, 1000),
)
def test_kernel_and_its_gradients(batch: int, heads: tuple[int, int], time: int, width: int, seed: int) -> None:
    check_against_plain(*draw(batch, *heads, time, width, seed=seed), tolerance=1e-5)


@pytest.mark.parametrize("time", [15, 16, 17, 129, 500, 512, 513, 1100])
def test_kernel_at_the_edges_of_vectors_and_pieces(time: int) -> None:
    check_against_plain(*draw(1, 2, 1, time, 8), tolerance=2e-5)


@pytest.mark.parametrize("scale", [1e-20, 3.0, 30.0])
def test_kernel_with_scores_of_any_size(scale: float) -> None:
    q, k, v = draw(2, 2, 1, 33, 8)
    # Scores up to about 3 x scale squared; float32 rounds them to 6e-8 of that before the exponential.
    check_against_plain(q * scale, k * scale, v, tolerance=1e-5 * max(1.0, scale**2))


def test_kernel_with_a_single_dominant_key() -> None:
    q, k, v = draw(1, 1, 1, 20, 4)
    q = torch.ones_like(q) * 100
    k[:, :, 3] = 100.0
    y = causal_attention(q, k, v)
    assert_close(y[:, :, 3:], v[:, :, 3:4].expand(-1, -1, 17, -1), rtol=0, atol=1e-6)
    check_against_plain(q, -k.abs() * 100, v, tolerance=1e-3)


def test_kernel_takes_any_memory_layout() -> None:
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in draw(2, 4, 2, 19, 8))
    assert not q.is_contiguous()
    check_against_plain(q, k, v, tolerance=1e-5)


def test_rows_past_the_end_do_not_meet_the_scores_of_those_before() -> None:
    """18 queries are four blocks of four and half a block. With sums of about 2^-128, a weight of a row that is not
    there, made with the score of one that was there before, would be infinite."""
    q, k, v = draw(1, 1, 1, 18, 8)
    q[:], k[:] = 1, -91.84 / 8**0.5
    check_against_plain(q, k, v, tolerance=1e-5)


def test_kernel_gives_the_same_bits_in_any_number_of_threads() -> None:
    inputs = tuple(x.requires_grad_() for x in draw(3, 4, 2, 40, 8))
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            y = causal_attention(*inputs)
            results.append((y, *gradients(y, inputs)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.slow
def test_kernel_gives_the_same_bits_compiled_and_from_the_cache(tmp_path: Path) -> None:
    """Else a run that compiled it, was cut off and resumed would not end as if it had not been cut off."""
    script = """
import hashlib, torch
from frailt.model.cpu_attention import causal_attention
torch.manual_seed(0)
inputs = [torch.randn(1, 2, 40, 8, requires_grad=True) for _ in range(3)]
y = causal_attention(*inputs)
parts = (y, *torch.autograd.grad(y.square().sum(), inputs))
print(hashlib.sha256(b"".join(part.detach().numpy().tobytes() for part in parts)).hexdigest())
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    first, second = (subprocess.run(command, env=environment, capture_output=True, check=True) for _ in range(2))
    assert list(tmp_path.rglob("*.nbc"))
    assert first.stdout == second.stdout


def test_kernel_in_bfloat16() -> None:
    """Rounded where it comes in and where it goes out, and nowhere between."""
    inputs = tuple(x.bfloat16().requires_grad_() for x in draw(2, 4, 2, 40, 8))
    y = causal_attention(*inputs)
    assert y.dtype == torch.bfloat16
    exact = tuple(x.detach().double().requires_grad_() for x in inputs)
    right = plain(*exact)
    assert_close(y, right.bfloat16(), rtol=2**-8, atol=1e-6)
    for own, its in zip(gradients(y, inputs), gradients(right, exact), strict=True):
        assert own.dtype == torch.bfloat16
        assert_close(own.double(), its, rtol=0.02, atol=0.02)


@pytest.mark.filterwarnings("ignore")
def test_kernel_is_a_proper_operator() -> None:
    inputs = tuple(x.requires_grad_() for x in draw(1, 2, 1, 5, 4))
    torch.library.opcheck(torch.ops.frailt.causal_attention.default, inputs)


def test_kernel_takes_what_it_is_good_at() -> None:
    q, k, _ = draw(1, 2, 1, 5, 8)
    assert suits_kernel(q, k)
    assert not suits_kernel(q.double(), k.double())
    assert suits_kernel(q.bfloat16(), k.bfloat16())
    assert not suits_kernel(q.half(), k.half())
    assert not suits_kernel(q[:, :, -1:], k)
    assert not suits_kernel(q[:, :, -2:], k)
    assert not suits_kernel(q[:, :, :1], k[:, :, :1])
    assert not suits_kernel(q.to("meta"), k.to("meta"))
    wide, wide_keys, _ = draw(1, 2, 1, 5, 130)
    assert not suits_kernel(wide, wide_keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (4, 1)])
@pytest.mark.parametrize("width", [8, 32])
@pytest.mark.parametrize(("time", "keys"), [(1, 1), (1, 9), (9, 9)])
def test_attend_is_causal(time: int, keys: int, width: int, heads: tuple[int, int], dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in draw(2, *heads, time, width, keys=keys))
    assert_close(attend(q, k, v, None).double(), plain(q, k, v), rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(
    st.sampled_from([(2, 2), (4, 2)]),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([8, 32]),
    st.integers(0, 99),
)
def test_attend_with_a_mask(heads: tuple[int, int], time: int, keys: int, width: int, seed: int) -> None:
    q, k, v = draw(3, *heads, time, width, keys=keys, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 1, time, keys, generator=generator) < 0.5
    mask[..., 0] = True
    for chosen in (mask, mask[:1]):
        assert_close(attend(q, k, v, chosen).double(), plain(q, k, v, chosen), rtol=1e-5, atol=1e-5)
