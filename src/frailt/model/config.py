"""What decides a model's function and size. Needs no torch."""

from dataclasses import dataclass

from frailt.errors import InputError, excerpt
from frailt.model.encodings import ENCODINGS, EncodingKind
from frailt.model.shape import GroupShape, Iterations, Shape

LIMITS: dict[str, tuple[float, float]] = {
    "dim": (1, 1 << 20),
    "heads": (1, 1 << 20),
    "hidden_dim": (1, 1 << 24),
    "multiple_of": (1, 1 << 20),
    "vocab_size": (1, 1 << 24),
    "context": (1, 1 << 20),
    "rope_theta": (1e-6, 1e12),
    "norm_eps": (1e-20, 1.0),
}
"""Far past any use. A damaged or hostile config is refused before memory is taken for it."""
LARGEST_MODEL = 1 << 40
"""Weights, and numbers in the KV cache of one full context: 4 TiB of float32."""


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
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"{name} is {excerpt(value)}; it must be between {least:g} and {most:.7g}")
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise InputError(
                f"dim {self.dim} with {self.heads} heads gives no even head width; "
                f"make dim a multiple of {2 * self.heads}"
            )
        if self.key_value_heads < 1 or self.heads % self.key_value_heads:
            raise InputError(f"kv_heads {excerpt(self.kv_heads)} must divide heads {self.heads}")
        if self.encoding not in ENCODINGS:
            raise InputError(f"encoding {excerpt(self.encoding)} is unknown; choose one of {', '.join(ENCODINGS)}")
        blocks = sum(group.blocks for group in self.groups)
        weights = blocks * self.dim * (4 * self.dim + 3 * self.feed_forward_dim) + 2 * self.vocab_size * self.dim
        if max(weights, 2 * self.depth * self.context * self.dim) > LARGEST_MODEL:
            raise InputError("a model of these sizes needs terabytes of memory; lower dim, shape or context")

    @property
    def groups(self) -> tuple[GroupShape, ...]:
        """The groups that ``shape`` stands for."""
        return Shape.parse(self.shape).groups

    @property
    def depth(self) -> int:
        """Effective depth: blocks times passes."""
        return Shape.parse(self.shape).depth

    def passes(self, iterations: Iterations = None) -> tuple[int, ...]:
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
