"""The learned tensors of a model: names, shapes, initial values, weight decay, all in one table. Needs no torch."""

from collections.abc import Mapping
from typing import NamedTuple

from frailt.errors import InputError, excerpt
from frailt.model.config import ModelConfig
from frailt.model.encodings import INITIAL_STD, encoding_of


class Weight(NamedTuple):
    """One learned tensor."""

    shape: tuple[int, ...]
    std: float | None = INITIAL_STD
    """Its initial values are drawn from N(0, std); ``None``: they are 1."""
    decays: bool = True
    """Whether AdamW's weight decay pulls it towards 0."""


def llama_block(config: ModelConfig) -> dict[str, Weight]:
    """The tensors of a block that Llama's have too, in the order of llama2c's files.

    Programs that compute Llama's blocks use these and refuse others: what else a block learns goes into ``weights``.
    wo and w2 write into the residual stream, which adds up 2 x (effective depth) of their outputs. A looped block
    therefore starts with smaller ones than the same block in a model of one pass.
    """
    d, hidden = config.dim, config.feed_forward_dim
    keys = config.key_value_heads * (d // config.heads)
    residual = INITIAL_STD / (2 * config.depth) ** 0.5
    return {
        "attention_norm.weight": _gain(config),
        "attention.wq.weight": Weight((d, d)),
        "attention.wk.weight": Weight((keys, d)),
        "attention.wv.weight": Weight((keys, d)),
        "attention.wo.weight": Weight((d, d), std=residual),
        "feed_forward_norm.weight": _gain(config),
        "feed_forward.w1.weight": Weight((hidden, d)),
        "feed_forward.w2.weight": Weight((d, hidden), std=residual),
        "feed_forward.w3.weight": Weight((hidden, d)),
    }


def _gain(config: ModelConfig) -> Weight:
    return Weight((config.dim,), std=None, decays=False)


def weights(config: ModelConfig) -> dict[str, Weight]:
    """The learned tensors of a model by name, each once (a tied head is the embedding), in the model's order.

    =========================  ========================================  ============
    tensor                     initial values                            weight decay
    =========================  ========================================  ============
    embedding, head            N(0, 0.02)                                yes
    wq, wk, wv, w1, w3         N(0, 0.02)                                yes
    wo, w2                     N(0, 0.02 / sqrt(2 x effective depth))    yes
    gains of the norms         1                                         no
    iteration encodings        as their kind says (learned: N(0, 0.02))  no
    =========================  ========================================  ============
    """
    embedding = Weight((config.vocab_size, config.dim))
    table = {"embedding.weight": embedding}
    for n, group in enumerate(config.groups):
        encoding = encoding_of(config.encoding, group, config.dim)
        learned = encoding.learned() if encoding is not None else {}
        block = {f"encoding.{name}": Weight(shape, std, False) for name, (shape, std) in learned.items()}
        block |= llama_block(config)
        for l in range(group.blocks):  # noqa: E741 (the paper's l)
            table |= {f"groups.{n}.blocks.{l}.{name}": weight for name, weight in block.items()}
    table["norm.weight"] = _gain(config)
    if not config.tied:
        table["head.weight"] = embedding
    return table


def check_shapes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Hold the tensors of a file against those of its model.

    Raises:
        InputError: a name or a shape does not fit.
    """
    table = weights(config)
    for name in sorted(table.keys() ^ shapes.keys()):
        problem = "lacks" if name in table else "has a tensor that is not in its config,"
        raise InputError(f"{source} does not fit its config: it {problem} {excerpt(name)}")
    for name, weight in table.items():
        if tuple(shapes[name]) != weight.shape:
            raise InputError(
                f"{source} does not fit its config: {name} has shape {excerpt(list(shapes[name]))}, "
                f"not {list(weight.shape)}"
            )
