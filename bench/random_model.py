"""A model to measure with: its weights make no difference to time and memory."""

import numpy as np

from frailt.data.bpe import BPE, FIXED
from frailt.data.tokenizer import Tokenizer
from frailt.model.config import ModelConfig
from frailt.model.stored import StoredModel
from frailt.model.weights import weights


def random_model(shape: str, dim: int, vocab: int, context: int) -> StoredModel:
    """A model as it starts training, its encodings included."""
    config = ModelConfig(shape=shape, dim=dim, vocab_size=vocab, context=context)
    random = np.random.default_rng(0)
    tensors = {
        name: np.ones(shape, np.float32) if std is None else random.standard_normal(shape, np.float32) * np.float32(std)
        for name, (shape, std, _) in weights(config).items()
    }
    return StoredModel(config, tensors)


def empty_tokenizer(vocab: int) -> Tokenizer:
    """One of so many pieces, none of which is ever found in a text."""
    return BPE([*FIXED, "▁", *(f"p{i}" for i in range(vocab - len(FIXED) - 1))], [])
