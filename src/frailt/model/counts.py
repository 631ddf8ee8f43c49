"""Parameters, FLOPs and memory of a model from its config alone: the one place that counts.

The tests hold these against the real model, torch's FLOP counter and the tensors that autograd keeps.
"""

import math
from dataclasses import dataclass

from frailt.model.config import ModelConfig
from frailt.model.weights import llama_block, weights

BYTES = 4
"""Bytes of a float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """What a model costs."""

    parameters: int
    """Learned numbers, a tied head counted once."""
    flops: int
    """Forward FLOPs per token at full context: 2 for each multiply-add of a matrix product, attention over all
    ``context`` keys (as torch counts it, without the halving that causality allows). Training takes 3 times that."""
    cache_bytes: int
    """Keys and values of one full context in float32."""

    @property
    def weight_bytes(self) -> int:
        """Weights in float32."""
        return BYTES * self.parameters


def count(config: ModelConfig, *, iterations: tuple[int, ...] | None = None) -> Counts:
    """Count a model, with its own passes or with ``iterations`` of each group."""
    d, vocab, kv = config.dim, config.vocab_size, _kv_dim(config)
    matrices = sum(math.prod(weight.shape) for weight in llama_block(config).values() if len(weight.shape) > 1)
    depth = sum(g.blocks * m for g, m in zip(config.groups, config.passes(iterations), strict=True))
    return Counts(
        parameters=sum(math.prod(weight.shape) for weight in weights(config).values()),
        flops=depth * (2 * matrices + 4 * config.context * d) + 2 * vocab * d,
        cache_bytes=BYTES * depth * config.context * 2 * kv,
    )


def activation_bytes(config: ModelConfig, *, batch: int, time: int | None = None) -> int:
    """Memory that a training step in float32 keeps for its backward pass, without checkpointing.

    Per token and block pass: 9 d + 2 d_kv + 4 h numbers (inputs of norms and products, both SwiGLU branches), one
    for each head (softmax denominators) and two for the norms. Passes count like blocks: reuse saves no
    activations.

    Args:
        config: the model.
        batch: sequences.
        time: tokens of each; unset: the context.
    """
    time = time or config.context
    d = config.dim
    block = 9 * d + 2 * _kv_dim(config) + 4 * config.feed_forward_dim + config.heads + 2
    ends = 3 * d + config.vocab_size + 3
    return BYTES * (batch * time * (config.depth * block + ends) + time * (d // config.heads) + 1)


def _kv_dim(config: ModelConfig) -> int:
    return config.key_value_heads * (config.dim // config.heads)
