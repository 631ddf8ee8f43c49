"""FraiLT, "Freely Long-Thinking Transformer" (Tabak): a decoder that passes its signal M times through its blocks.

    X(m, l) = B_l(X(m, l-1) + E_l^iter(m))        X(1, 0) = X,   X(m, 0) = X(m-1, L)

``Block`` is B_l with its encodings E_l^iter, ``Group`` is the loop over m and l, ``FraiLT`` is embedding, N groups,
norm and head. A standard Llama-2 style model is the same code with M = 1 everywhere and no encodings.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from frailt.errors import InputError
from frailt.model.attention import Attention, View, rotary_angles
from frailt.model.cache import Cache, Slot
from frailt.model.encodings import ENCODINGS, IterationEncoding
from frailt.model.shape import GroupShape, Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Everything that decides a model's function and size."""

    shape: str = "1^8"
    """Blocks and passes in shape notation: 8, 2^4, (2)^4, 1+(4)^3+1."""
    dim: int = 64
    """Width of the residual stream."""
    heads: int = 8
    """Attention heads."""
    kv_heads: int | None = None
    """Key and value heads, a divisor of heads; unset: as many as heads."""
    hidden_dim: int | None = None
    """Width inside the feed-forward layer; unset: 8/3 of dim, rounded up to a multiple of multiple_of."""
    multiple_of: int = 4
    """See hidden_dim."""
    vocab_size: int = 512
    """Pieces of the tokenizer."""
    context: int = 512
    """Longest sequence, in tokens."""
    encoding: Literal["learned", "sinusoidal", "none"] = "learned"
    """Iteration encoding of the blocks that are written with a ^."""
    tied: bool = True
    """Whether the head shares its weights with the token embedding."""
    rope_theta: float = 10000.0
    """Base of the rotary wavelengths."""
    norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", str(Shape.parse(self.shape)))
        for name in ("dim", "heads", "multiple_of", "vocab_size", "context"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise InputError(
                f"dim {self.dim} with {self.heads} heads gives no even head width; "
                f"make dim a multiple of {2 * self.heads}"
            )
        if self.key_value_heads < 1 or self.heads % self.key_value_heads:
            raise InputError(f"kv_heads {self.kv_heads} must divide heads {self.heads}")
        if self.feed_forward_dim < 1:
            raise InputError(f"hidden_dim is {self.hidden_dim}; it must be at least 1")
        for name in ("rope_theta", "norm_eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0 and finite")
        if self.encoding not in ENCODINGS:
            raise InputError(f"encoding {self.encoding!r} is unknown; choose one of {', '.join(ENCODINGS)}")

    @property
    def groups(self) -> tuple[GroupShape, ...]:
        """The groups that ``shape`` stands for."""
        return Shape.parse(self.shape).groups

    @property
    def depth(self) -> int:
        """Effective depth: blocks times passes."""
        return Shape.parse(self.shape).depth

    @property
    def key_value_heads(self) -> int:
        """``kv_heads``, or what follows where it is unset."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def feed_forward_dim(self) -> int:
        """``hidden_dim``, or what follows where it is unset."""
        if self.hidden_dim is not None:
            return self.hidden_dim
        return -(-(8 * self.dim // 3) // self.multiple_of) * self.multiple_of


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
            for l, block in enumerate(self.blocks):  # noqa: E741 (the paper's l)
                x = block(x, m, view, cache.slot((index, m, l)) if cache is not None else None)
            states.append(x)
        return states


class Output(NamedTuple):
    """What a forward pass gives, always."""

    logits: Float[Tensor, "batch time vocab"]
    """Scores of the next token, in float32 (under autocast, rounded to its type)."""
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
    ) -> Output:
        """Read tokens, score the next ones.

        Args:
            tokens: token ids.
            cache: what was read before; the new keys and values are stored in it.
            iterations: passes, where they shall differ from the shape's M: one int for every group with M > 1,
                or a tuple with one for each group.
            real: false where a token is padding, on either side. Padding is never attended to and does not count
                as a position; what the model says at a padding token means nothing. ``None``: nothing is padded.

        Raises:
            InputError: more tokens than the context, than the cache's capacity, or iterations that do not fit.
        """
        time = tokens.shape[1]
        start = cache.length if cache is not None else 0
        passes = Shape.parse(self.config.shape).passes(iterations)
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
        return Output(self.read_out(x), cache, states)

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
