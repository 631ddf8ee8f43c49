"""A folder that transformers loads as ``LlamaForCausalLM`` with its tokenizer. Written without transformers."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from frailt.data.bpe import BOS, EOS, FIXED
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.export.plain_llama import Array, PlainLlama
from frailt.files import read_json, remove_leftovers, write_bytes, write_json

NAMES = {
    "attention_norm": "input_layernorm",
    **{f"attention.w{x}": f"self_attn.{x}_proj" for x in "qkvo"},
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
"""Names there by names here. Rotary pairs lie half a head apart in both, so no rows move."""
FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors", "config.json")
MARK = ".frailt-export"
"""Stands in the folder while it is written. A folder with it is what an interrupted export left, and no user's."""


def save_transformers(llama: PlainLlama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, weights in float32 and tokenizer. The folder may exist if it is empty, as a mounted one is.

    Raises:
        InputError: there is something at ``folder`` already.
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    if folder.exists():
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
        leftovers = {name for name in names if name.startswith(f".{MARK}.")}  # A kill came while the mark was written.
        if MARK in names:
            leftovers = {MARK, *FILES, *(name for name in names if name.endswith(".tmp"))}
        if names - leftovers:
            raise InputError(f"{folder} exists already; choose another --out")
        remove_leftovers(folder)
    new = not folder.exists()
    try:
        write_bytes(folder / MARK, b"")
        _write(llama, tokenizer, folder)
        (folder / MARK).unlink()
    except BaseException:
        for name in (*FILES, MARK):
            (folder / name).unlink(missing_ok=True)
        if new and folder.exists():
            folder.rmdir()
        raise


def _write(llama: PlainLlama, tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(folder / FILES[0])
    # Texts get a BOS in front, as every story had in training.
    with_bos = read_json(folder / FILES[0]) | {"post_processor": _template(FIXED[BOS], BOS)}
    write_json(folder / FILES[0], with_bos)
    special = {"unk_token": FIXED[0], "bos_token": FIXED[BOS], "eos_token": FIXED[EOS]}
    # Batches are filled up in front, where a decoder does not go on writing, with a token that no story holds.
    padding = {"pad_token": FIXED[EOS], "padding_side": "left"}
    longest = {"model_max_length": llama.config.context, "clean_up_tokenization_spaces": False}
    write_json(folder / FILES[1], {"tokenizer_class": "PreTrainedTokenizerFast", **special, **padding, **longest})
    # A story ends where the next begins, so BOS ends it too.
    write_json(folder / FILES[2], {"bos_token_id": BOS, "eos_token_id": [EOS, BOS], "pad_token_id": EOS})
    write_bytes(folder / FILES[3], save(tensors(llama), metadata={"format": "pt"}))
    write_json(folder / FILES[4], llama_config(llama))


def llama_config(llama: PlainLlama) -> dict[str, Any]:
    """``config.json`` of a ``LlamaForCausalLM``."""
    config = llama.config
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": llama.biases is not None,
        "hidden_size": config.dim,
        "intermediate_size": config.feed_forward_dim,
        "num_hidden_layers": len(llama.layers),
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_value_heads,
        "head_dim": config.dim // config.heads,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        # The first for versions before 5, the second since.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": llama.head is None,
        "vocab_size": config.vocab_size,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
    }


def tensors(llama: PlainLlama) -> dict[str, Array]:
    """Weights by transformers' names. Layers that are passes of one block are written once each."""
    named = {"model.embed_tokens.weight": llama.embedding, "model.norm.weight": llama.norm}
    if llama.head is not None:
        named["lm_head.weight"] = llama.head
    for i, layer in enumerate(llama.layers):
        at = f"model.layers.{i}."
        named |= {f"{at}{NAMES[name.removesuffix('.weight')]}.weight": array for name, array in layer.items()}
        if llama.biases is not None:
            hidden = np.zeros(llama.config.feed_forward_dim, np.float32)
            named |= {f"{at}mlp.gate_proj.bias": hidden, f"{at}mlp.up_proj.bias": hidden}
            named[f"{at}mlp.down_proj.bias"] = llama.biases[i]
    return {name: np.ascontiguousarray(array) for name, array in named.items()}


def _template(token: str, index: int) -> dict[str, Any]:
    """What `tokenizers` calls a template: the token, then the text."""
    piece = {"SpecialToken": {"id": token, "type_id": 0}}
    one, two = ({"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [piece, one],
        "pair": [piece, one, two],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }
