"""A GGUF file, as llama.cpp and its relatives load it: architecture llama, in float32 or rounded."""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from frailt.data.bpe import BOS, BPE, EOS, FIXED
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.export.plain_llama import Array, PlainLlama
from frailt.files import replacing
from frailt.model.llama2c import neighbours_from_halves

Rounding = Literal["float32", "bfloat16", "int8"]
TYPES: dict[Rounding, str] = {"float32": "F32", "bfloat16": "BF16", "int8": "Q8_0"}
"""Their names in GGUF. Q8_0 is blocks of 32 numbers with a scale each."""

NAMES = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
"""Names there by names here."""


def save_gguf(llama: PlainLlama, tokenizer: Tokenizer, path: Path, *, weights: Rounding = "float32") -> None:
    """Write weights and tokenizer, in one step.

    Args:
        llama: the model.
        tokenizer: its tokenizer.
        path: the file.
        weights: type of the matrices; norms and biases stay in float32. int8 needs rows of a multiple of 32 numbers;
            matrices with others stay in float32 too.

    Raises:
        InputError: there is something at ``path`` already, or the package ``gguf`` is missing.
    """
    if path.exists():
        raise InputError(f"{path} exists already; choose another --out")
    try:
        import gguf
    except ImportError:
        raise InputError("GGUF needs the package gguf: pip install 'frailt[gguf]'") from None
    kind = gguf.GGMLQuantizationType[TYPES[weights]]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    with replacing(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        _describe(writer, llama)
        _add_tokenizer(writer, tokenizer)
        for name, array in tensors(llama).items():
            if array.ndim == 2 and array.shape[1] % block == 0 and weights != "float32":
                writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
            else:
                writer.add_tensor(name, array)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def tensors(llama: PlainLlama) -> dict[str, Array]:
    """Weights by llama.cpp's names. It turns neighbours where we turn halves, so the rows of wq and wk move."""
    named = {"token_embd.weight": llama.embedding, "output_norm.weight": llama.norm}
    if llama.head is not None:
        named["output.weight"] = llama.head
    for i, layer in enumerate(llama.layers):
        for name, array in layer.items():
            if name in ("attention.wq.weight", "attention.wk.weight"):
                array = neighbours_from_halves(array, llama.config.dim // llama.config.heads)
            named[f"blk.{i}.{NAMES[name.removesuffix('.weight')]}.weight"] = array
        if llama.biases is not None:
            named[f"blk.{i}.ffn_down.bias"] = llama.biases[i]
    return {name: np.ascontiguousarray(array) for name, array in named.items()}


def _describe(writer: Any, llama: PlainLlama) -> None:
    config = llama.config
    writer.add_name(f"frailt {config.shape}")
    writer.add_block_count(len(llama.layers))
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.feed_forward_dim)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.key_value_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.dim // config.heads)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, tokenizer: Tokenizer) -> None:
    """SentencePiece's BPE: of two neighbours that make a piece, those of the best score are joined first."""
    import gguf

    if not isinstance(tokenizer, BPE):
        raise InputError("only models with a BPE tokenizer can be written as GGUF")
    ranks = {a + b: rank for rank, (a, b) in reversed([*enumerate(tokenizer.merges)])}
    # Single characters are never made by joining, so their scores say nothing.
    scores = [-float(ranks.get(piece, len(ranks))) for piece in tokenizer.pieces]
    types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    types += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (tokenizer.vocab_size - len(FIXED))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokenizer.pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_eot_token_id(BOS)  # A story ends where the next begins.
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
