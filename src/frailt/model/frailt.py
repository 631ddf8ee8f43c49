"""FraiLT, "Freely Long-Thinking Transformer" (Tabak): a decoder that passes its signal M times through its blocks.

    X(m, l) = B_l(X(m, l-1) + E_l^iter(m))        X(1, 0) = X,   X(m, 0) = X(m-1, L)

``Block`` is B_l with its encoding E_l^iter, ``Group`` is the loop over m = 1..M and l = 1..L, ``FraiLT`` is embedding,
N groups, and head. A standard Llama-2 style model is the same code with M = 1 everywhere and no encodings.

Section 2 of the paper leaves the block open; section 3 names Llama 2, and what is not the loop is Llama 2's: rotary
positions inside attention, where the paper's figures draw a positional encoding after the embedding; RMSNorm before
each half of a block and before the head; SwiGLU; a head tied to the embedding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from frailt.errors import InputError
from frailt.model.attention import Attention, View, make_view
from frailt.model.cache import Cache, Slot
from frailt.model.config import ModelConfig
from frailt.model.encodings import IterationEncoding, encoding_of
from frailt.model.shape import GroupShape, Iterations
from frailt.model.weights import weights


class FeedForward(nn.Module):
    """SwiGLU: ``w2(silu(w1 x) * w3 x)``, no biases."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Encoding(nn.Module):
    """E_l^iter: the tensors of one block's iteration encoding, and its rule (see ``encodings.py``)."""

    def __init__(self, rule: IterationEncoding) -> None:
        super().__init__()
        self.rule = rule
        for name, (shape, _) in rule.learned().items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.make_constants()

    def make_constants(self) -> None:
        """Compute the fixed tensors, which no file stores."""
        for name, constant in self.rule.fixed(torch).items():
            self.register_buffer(name, constant, persistent=False)

    def forward(self, x: Float[Tensor, "batch time dim"], m: int) -> Float[Tensor, "batch time dim"]:
        """X(m, l-1) + E_l^iter(m), or what else the rule makes of the two."""
        return self.rule.apply(x, m, self, torch)


class Block(nn.Module):
    """B_l: a Llama-2 block that is told its pass.

    The encoding is added to the whole input, so the residual stream carries it on (section 2, figure 1).
    """

    def __init__(self, config: ModelConfig, group: GroupShape) -> None:
        super().__init__()
        rule = encoding_of(config.encoding, group, config.dim)
        self.encoding = Encoding(rule) if rule is not None else None
        self.attention_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config.dim, config.heads, config.key_value_heads)
        self.feed_forward_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = FeedForward(config.dim, config.feed_forward_dim)

    def forward(
        self, x: Float[Tensor, "batch time dim"], m: int, view: View, slot: Slot | None = None
    ) -> Float[Tensor, "batch time dim"]:
        """X(m, l) from X(m, l-1), for pass ``m`` from 1."""
        if self.encoding is not None:
            x = self.encoding(x, m)
        return self.transform(x, view, slot)

    def transform(
        self, x: Float[Tensor, "batch time dim"], view: View, slot: Slot | None
    ) -> Float[Tensor, "batch time dim"]:
        """B_l itself, the same in every pass, and therefore what is compiled."""
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
            x = self.one_pass(x, m, view, cache.slots_of(index, m, len(self.blocks)) if cache is not None else None)
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
        config: shape and sizes. ``weights.weights`` says at which values a new model starts.
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
        # Encodings last: a seed gives the same blocks with encodings of any kind and without.
        for name, weight in sorted(weights(config).items(), key=lambda item: ".encoding." in item[0]):
            if weight.std is not None:  # Gains of norms are 1 already.
                nn.init.normal_(self.get_parameter(name), std=weight.std)

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        cache: Cache | None = None,
        iterations: Iterations = None,
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
        view = make_view(self.config, time, start, real, tokens.device)
        x = self.embedding(tokens)
        states = []
        for n, group in enumerate(self.groups):
            states.append(group(x, passes[n], view, cache, n))
            x = states[-1][-1]
        return Output(self.read_out(x[:, -1:] if last_only else x), cache, states)

    def read_out(self, x: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time vocab"]:
        """Logits of a residual stream, in float32. Any pass's state can be read out, not only the last."""
        return self.head(self.norm(x)).float()
