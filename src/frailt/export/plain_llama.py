"""A model unrolled into a plain Llama: each pass through a block becomes a layer of its own.

    X(m, l) = B_l(X(m, l-1) + E_l(m))

The first thing that a block does is to add its encoding to the residual stream, and the last thing that the one before
it does is to add its feed-forward output. So the encoding can be the bias of that output's projection, which Llama has
room for; the first encoding of all goes into the token embeddings, which the head then no longer shares. The result is
exact, and takes M times the memory of the blocks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frailt.model.config import ModelConfig
from frailt.model.operations import llama_blocks, unrolled
from frailt.model.shape import Iterations
from frailt.model.stored import StoredModel, as_float32

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainLlama:
    """A Llama with biases at its feed-forward outputs. Matrices are ``(out, in)``, as torch has them."""

    config: ModelConfig
    """Sizes; the shape is that of the model that was unrolled."""
    embedding: Array
    head: Array | None
    """``None``: tied to the embedding."""
    norm: Array
    layers: tuple[dict[str, Array], ...]
    """By the names of ``weights.llama_block``."""
    biases: tuple[Array, ...] | None
    """Of each layer's feed-forward output, shape ``(dim,)``; ``None``: nowhere any."""


def plain_llama(model: StoredModel, iterations: Iterations = None) -> PlainLlama:
    """Unroll a model, with its own passes or with ``iterations``.

    Raises:
        InputError: the iterations do not fit the shape, or the model does what Llama cannot.
    """
    config, weights = model
    blocks, encodings = llama_blocks(config, weights, "a Llama")
    layers = [{name: as_float32(array) for name, array in block.items()} for block in blocks]
    steps = list(unrolled(config, encodings, config.passes(iterations), "a Llama"))
    embedding = as_float32(weights["embedding.weight"])
    head = None if config.tied else as_float32(weights["head.weight"])
    biases = None
    if any(vector is not None for _, vector in steps):
        first, *later = [np.zeros(config.dim, np.float32) if vector is None else vector for _, vector in steps]
        head = embedding if head is None else head
        embedding = embedding + first
        biases = (*later, np.zeros(config.dim, np.float32))
    return PlainLlama(
        config=config,
        embedding=embedding,
        head=head,
        norm=as_float32(weights["norm.weight"]),
        layers=tuple(layers[block] for block, _ in steps),
        biases=biases,
    )
