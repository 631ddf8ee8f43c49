"""What decides a model's function and size, and which weights such a model has. Needs no torch."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from frailt.errors import InputError
from frailt.model.shape import GroupShape, Shape

EncodingKind = Literal["learned", "sinusoidal", "none"]
"""Kinds of iteration encodings; ``encodings.py`` says what each is."""


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
    encoding: EncodingKind = "learned"
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
        if self.encoding not in get_args(EncodingKind):
            raise InputError(
                f"encoding {self.encoding!r} is unknown; choose one of {', '.join(get_args(EncodingKind))}"
            )

    @property
    def groups(self) -> tuple[GroupShape, ...]:
        """The groups that ``shape`` stands for."""
        return Shape.parse(self.shape).groups

    @property
    def depth(self) -> int:
        """Effective depth: blocks times passes."""
        return Shape.parse(self.shape).depth

    def passes(self, iterations: int | tuple[int, ...] | None = None) -> tuple[int, ...]:
        """The passes of each group; see ``Shape.passes``.

        Raises:
            InputError: ``iterations`` do not fit the shape.
        """
        return Shape.parse(self.shape).passes(iterations)

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


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The learned tensors of a model by name, each once: what a file of its weights holds."""
    d, hidden = config.dim, config.feed_forward_dim
    keys = config.key_value_heads * (d // config.heads)
    block = {
        "attention_norm.weight": (d,),
        "attention.wq.weight": (d, d),
        "attention.wk.weight": (keys, d),
        "attention.wv.weight": (keys, d),
        "attention.wo.weight": (d, d),
        "feed_forward_norm.weight": (d,),
        "feed_forward.w1.weight": (hidden, d),
        "feed_forward.w2.weight": (d, hidden),
        "feed_forward.w3.weight": (hidden, d),
    }
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (config.vocab_size, d)}
    for n, group in enumerate(config.groups):
        table = {"encoding.table": (group.iterations, d)} if config.encoding == "learned" and group.encoded else {}
        for l in range(group.blocks):  # noqa: E741 (the paper's l)
            shapes |= {f"groups.{n}.blocks.{l}.{name}": size for name, size in (table | block).items()}
    shapes["norm.weight"] = (d,)
    if not config.tied:
        shapes["head.weight"] = (config.vocab_size, d)
    return shapes
