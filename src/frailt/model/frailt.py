"""FraiLT, "Freely Long-Thinking Transformer" (Tabak): a decoder that passes its signal M times through its blocks.

    X(m, l) = B_l(X(m, l-1) + E_l^iter(m))        X(1, 0) = X,   X(m, 0) = X(m-1, L)

``Block`` is B_l with its encodings E_l^iter, ``Group`` is the loop over m and l, ``FraiLT`` is embedding, N groups,
norm and head. A standard Llama-2 style model is the same code with M = 1 everywhere and no encodings.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from frailt.errors import InputError
from frailt.model.attention import Attention, View, rotary_angles
from frailt.model.cache import Cache, Slot
from frailt.model.config import ModelConfig
from frailt.model.encodings import ENCODINGS, IterationEncoding
from frailt.model.shape import GroupShape


class FeedForward(nn.Module):
    """SwiGLU: ``w2(silu(w1 x) * w3 x)``, no biases."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    """B_l: a Llama-2 block that is told its pass.

    The encoding is added to the whole input, so the residual stream carries it on (section 2, figure 1).
    """

    def __init__(self, config: ModelConfig, group: GroupShape) -> None:
        super().__init__()
        kind = ENCODINGS[config.encoding] if group.encoded else None
        self.encoding = kind(group.iterations, config.dim) if kind else None
        self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config.dim, config.heads, config.key_value_heads)
        self.feed_forward_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = FeedForward(config.dim, config.feed_forward_dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], m: int, view: View, slot: Slot | None = None
    ) -> Float[Tensor, "batch time dim"]:
        """X(m, l) from X(m, l-1), for pass ``m`` from 1."""
        if self.encoding is not None:
            x = x + self.encoding(m)
        return self.transform(x, view, slot)

    def transform(
        self, x: Float[Tensor, "batch time dim"], view: View, slot: Slot | None
    ) -> Float[Tensor, "batch time dim"]:
        """The block without its encoding: the part that is the same in every pass, and is compiled once."""
        x = x + self.attention(self.attention_norm(x), view, slot)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Group(nn.Module):
    """L blocks, passed M times (section 2, figure 2)."""

    def __init__(self, config: ModelConfig, shape: GroupShape) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config, shape) for _ in range(shape.blocks))

    def forward(
        self,
        x: Float[Tensor, "batch time dim"],
        iterations: int,
        view: View,
        cache: Cache | None = None,
        index: int = 0,
    ) -> list[Float[Tensor, "batch time dim"]]:
        """The signal after each pass: X(1, L) to X(M, L). ``index`` is the group's own, for its cache slots."""
        states = []
        for m in range(1, iterations + 1):
            slots = [cache.slot((index, m, l)) for l in range(len(self.blocks))] if cache is not None else None  # noqa: E741
            x = self.one_pass(x, m, view, slots)
            states.append(x)
        return states

    def one_pass(
        self, x: Float[Tensor, "batch time dim"], m: int, view: View, slots: Sequence[Slot] | None = None
    ) -> Float[Tensor, "batch time dim"]:
        """X(m, L) from X(m, 0), for pass ``m`` from 1. ``slots``: of each block in this pass, where there is a cache.

        The one place where a pass happens: training, generation and early exit call it.
        """
        for l, block in enumerate(self.blocks):  # noqa: E741 (the paper's l)
            x = block(x, m, view, slots[l] if slots is not None else None)
        return x


class Output(NamedTuple):
    """What a forward pass gives, always."""

    logits: Float[Tensor, "batch scored vocab"]
    """Scores of the token after each, or after the last only, in float32 (under autocast, rounded to its type)."""
    cache: Cache | None
    """The cache that was given, now holding these tokens too."""
    states: list[list[Float[Tensor, "batch time dim"]]]
    """The residual stream after each pass of each group: ``states[group][m - 1]``, before the final norm."""


class FraiLT(nn.Module):
    """Embedding, N groups, final norm, linear head (section 2, figure 3).

    Args:
        config: shape and sizes. Weights start at N(0, 0.02); what writes into the residual stream (wo, w2) is
            scaled by 1 / sqrt(2 x effective depth), since that many terms are added up.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.groups = nn.ModuleList(Group(config, shape) for shape in config.groups)
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight
        for name, parameter in self.named_parameters():
            if name.endswith(("wo.weight", "w2.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * config.depth) ** 0.5)
            elif parameter.ndim == 2 and ".encoding." not in name:
                nn.init.normal_(parameter, std=0.02)
        # Encodings last, each as its kind says: a seed gives the same blocks with encodings of any kind and without.
        for module in self.modules():
            if isinstance(module, IterationEncoding):
                module.reset()

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        cache: Cache | None = None,
        iterations: int | tuple[int, ...] | None = None,
        *,
        real: Bool[Tensor, "batch time"] | None = None,
        last_only: bool = False,
    ) -> Output:
        """Read tokens, score the next ones.

        Args:
            tokens: token ids.
            cache: what was read before; the new keys and values are stored in it.
            iterations: passes, where they shall differ from the shape's M: one int for every group with M > 1,
                or a tuple with one for each group.
            real: false where a token is padding, on either side. Padding is never attended to and does not count
                as a position; what the model says at a padding token means nothing. ``None``: nothing is padded.
            last_only: score only what follows the last token, as generation needs it: logits are ``(batch, 1, vocab)``.

        Raises:
            InputError: more tokens than the context, than the cache's capacity, or iterations that do not fit.
        """
        time = tokens.shape[1]
        start = cache.length if cache is not None else 0
        passes = self.config.passes(iterations)
        if cache is not None:
            cache.extend(tokens.shape[0], time, passes, real, tokens.device)
            real = cache.real
        longest = start + time if real is None else int(real.sum(dim=1).max())
        if longest > self.config.context:
            raise InputError(f"{longest} tokens are more than the model's context of {self.config.context}")
        view = self.view(time, start, real, tokens.device)
        x = self.embedding(tokens)
        states = []
        for n, group in enumerate(self.groups):
            states.append(group(x, passes[n], view, cache, n))
            x = states[-1][-1]
        return Output(self.read_out(x[:, -1:] if last_only else x), cache, states)

    def read_out(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time vocab"]:
        """Logits of a residual stream, in float32. Any pass's state can be read out, not only the last."""
        return self.head(self.norm(x)).float()

    def view(self, time: int, start: int, real: Bool[Tensor, "batch keys"] | None, device: torch.device) -> View:
        """Positions and mask of ``time`` new tokens after ``start`` earlier ones, ``real`` covering them all."""
        head_dim = self.config.dim // self.config.heads
        columns = torch.arange(start + time, device=device)
        mask = None
        if real is not None:
            positions = (real.long().cumsum(dim=1) - 1).clamp(min=0)[:, start:]
        else:
            positions = columns[None, start:]
        if real is not None or (start > 0 and time > 1):
            causal = columns[None, :] <= columns[start:, None]
            mask = causal[None, None]
            if real is not None:
                # Padding may look at itself, so that no softmax runs over nothing.
                itself = columns[None, :] == columns[start:, None]
                mask = causal & (real[:, None, None, :] | itself)
        return View(*rotary_angles(positions, head_dim, self.config.rope_theta), mask)
