"""Rotary positions and causal attention, the one part of a block that looks at other tokens."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from frailt.model.cache import Slot
from frailt.model.config import ModelConfig
from frailt.model.cpu_attention import causal_attention, suits_kernel


@dataclass(frozen=True, slots=True)
class View:
    """What every block of one forward pass needs to know about positions."""

    cos: Float[Tensor, "rows time half_head"]
    sin: Float[Tensor, "rows time half_head"]
    """Rotary angles of the new tokens; ``rows`` is 1 where all sequences share their positions."""
    mask: Bool[Tensor, "rows 1 time keys"] | None
    """True where a query may look. ``None``: everything up to itself, nothing is padded."""


def make_view(
    config: ModelConfig, time: int, start: int, real: Bool[Tensor, "batch keys"] | None, device: torch.device
) -> View:
    """Positions and mask of ``time`` new tokens after ``start`` earlier ones, ``real`` covering them all."""
    columns = torch.arange(start + time, device=device)
    mask = None
    positions = columns[None, start:]
    if real is not None:
        positions = (real.long().cumsum(dim=1) - 1).clamp(min=0)[:, start:]
    if real is not None or (start > 0 and time > 1):
        causal = columns[None, :] <= columns[start:, None]
        mask = causal[None, None]
        if real is not None:
            # Padding may look at itself, so that no softmax runs over nothing.
            itself = columns[None, :] == columns[start:, None]
            mask = causal & (real[:, None, None, :] | itself)
    return View(*rotary_angles(positions, config.dim // config.heads, config.rope_theta), mask)


def rotary_angles(
    positions: Int[Tensor, "rows time"], head_dim: int, theta: float
) -> tuple[Float[Tensor, "rows time half_head"], Float[Tensor, "rows time half_head"]]:
    """Cosine and sine of ``position * theta^(-2i / head_dim)`` for i below head_dim / 2, in float32."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, device=positions.device) / head_dim)
    angles = positions[..., None].float() * frequencies.float()
    return angles.cos(), angles.sin()


def rotate(x: Float[Tensor, "batch heads time head"], view: View) -> Float[Tensor, "batch heads time head"]:
    """Turn each pair (x[i], x[i + head/2]) by its angle.

    Pairs lie half a head apart, as in transformers' Llama. llama2.c pairs neighbours instead; the two differ by
    an order of rows in wq and wk, which the import sets right.
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = view.cos[:, None].to(x.dtype), view.sin[:, None].to(x.dtype)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class Attention(nn.Module):
    """Multi-head causal self-attention with rotary positions and grouped key-value heads, no biases.

    Args:
        dim: width of the model.
        heads: query heads; the head width is ``dim / heads``.
        kv_heads: key and value heads, a divisor of ``heads``; each serves ``heads / kv_heads`` query heads.
    """

    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.wq = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wo = nn.Linear(heads * self.head_dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch time dim"], view: View, slot: Slot | None
    ) -> Float[Tensor, "batch time dim"]:
        q, k, v = self.project(x, view)
        if slot is not None:
            k, v = slot.append(k, v)
        return self.wo(attend(q, k, v, view.mask).transpose(1, 2).flatten(2))

    def project(
        self, x: Float[Tensor, "batch time dim"], view: View
    ) -> tuple[
        Float[Tensor, "batch heads time head"],
        Float[Tensor, "batch kv_heads time head"],
        Float[Tensor, "batch kv_heads time head"],
    ]:
        """Queries, keys and values, the first two turned to their positions."""
        batch, time, _ = x.shape
        q = self.wq(x).view(batch, time, self.heads, self.head_dim).transpose(1, 2)
        k = self.wk(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.wv(x).view(batch, time, self.kv_heads, self.head_dim).transpose(1, 2)
        return rotate(q, view), rotate(k, view), v


def attend(
    q: Float[Tensor, "batch heads time head"],
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys head"],
    mask: Bool[Tensor, "rows 1 time keys"] | None,
) -> Float[Tensor, "batch heads time head"]:
    """Softmax attention. Without a mask the queries are the last ``time`` of the keys' positions, and causal."""
    if mask is None and suits_kernel(q, k):
        return causal_attention(q, k, v)
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is not None and q.is_cuda:
        # On CUDA no fast kernel takes both: flash attention has no masks, the memory-efficient one no grouped heads.
        k, v, grouped = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1]), False
    # One new token sees every key; with no mask, several new tokens come only with an empty cache (see FraiLT).
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None and q.shape[2] > 1, enable_gqa=grouped
    )


def repeat_heads(x: Float[Tensor, "batch kv_heads keys head"], heads: int) -> Float[Tensor, "batch heads keys head"]:
    """Each key or value head once for every query head that it serves."""
    return x[:, :, None].expand(-1, -1, heads // x.shape[1], -1, -1).flatten(1, 2)
