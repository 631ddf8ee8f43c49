"""A folder that transformers loads as ``LlamaForCausalLM`` with its tokenizer. Written without transformers."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from frailt.data.bpe import BOS, EOS, FIXED
from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.export.plain_llama import Array, PlainLlama
from frailt.files import read_json, write_bytes, write_json

NAMES = {
    "attention_norm": "input_layernorm",
    **{f"attention.w{x}": f"self_attn.{x}_proj" for x in "qkvo"},
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
"""Names there by names here. Rotary pairs lie half a head apart in both, so no rows move."""


def save_transformers(llama: PlainLlama, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, weights in float32 and tokenizer.

    Raises:
        InputError: there is something at ``folder`` already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already; choose another --out")
    tokenizer.save(folder / "tokenizer.json")
    # Texts get a BOS in front, as every story had in training.
    with_bos = read_json(folder / "tokenizer.json") | {"post_processor": _template(FIXED[1], BOS)}
    write_json(folder / "tokenizer.json", with_bos)
    special = {"unk_token": FIXED[0], "bos_token": FIXED[1], "eos_token": FIXED[2]}
    longest = {"model_max_length": llama.config.context, "clean_up_tokenization_spaces": False}
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", kind | special | longest)
    write_json(folder / "config.json", llama_config(llama))
    # A story ends where the next begins, so BOS ends it too.
    ends = {"bos_token_id": BOS, "eos_token_id": [EOS, BOS]}
    write_json(folder / "generation_config.json", ends)
    write_bytes(folder / "model.safetensors", save(tensors(llama), metadata={"format": "pt"}))


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
    }


def tensors(llama: PlainLlama) -> dict[str, Array]:
    """Weights by transformers' names. Layers that are passes of one block are written once each."""
    found = {"model.embed_tokens.weight": llama.embedding, "model.norm.weight": llama.norm}
    if llama.head is not None:
        found["lm_head.weight"] = llama.head
    for i, layer in enumerate(llama.layers):
        at = f"model.layers.{i}."
        found |= {f"{at}{NAMES[name.removesuffix('.weight')]}.weight": array for name, array in layer.items()}
        if llama.biases is not None:
            hidden = np.zeros(llama.config.feed_forward_dim, np.float32)
            found |= {f"{at}mlp.gate_proj.bias": hidden, f"{at}mlp.up_proj.bias": hidden}
            found[f"{at}mlp.down_proj.bias"] = llama.biases[i]
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


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
