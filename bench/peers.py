"""The programs that bench/decode.py times beside frailt: transformers, llama.cpp and llama2.c."""

import ctypes
import math
import os
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from random_model import empty_tokenizer

from frailt.export import gguf
from frailt.export.plain_llama import Array, PlainLlama
from frailt.export.transformers import llama_config, tensors

ATTENTION = "sdpa"
"""transformers' attention implementation, its default."""
ATTENTION_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output")
FEED_FORWARD_MATRICES = ("ffn_gate", "ffn_down", "ffn_up")
"""llama.cpp's names in the order of llama2.c's checkpoints."""

Step = Callable[[int], np.ndarray]
"""Read one token, give the scores of the next. A fresh text begins with the step's maker."""
Side = Callable[[], Step]


def transformers(llama: PlainLlama, *, static: bool) -> Side:
    """Not compiled; with a cache that grows, or with one of full length from the start."""
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

    config = LlamaConfig(**llama_config(llama))
    config._attn_implementation = ATTENTION
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    weights = {name: torch.from_numpy(array.copy()) for name, array in tensors(llama).items()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    model.load_state_dict(weights, assign=True)
    # What is no weight was made on the meta device too.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.eval()

    def begin() -> Step:
        cache = StaticCache(config, max_cache_len=llama.config.context) if static else DynamicCache(config=config)
        place = 0

        @torch.inference_mode()
        def step(token: int) -> np.ndarray:
            nonlocal place
            at = torch.tensor([place])
            place += 1
            out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True, position_ids=at[None])
            return out.logits[0, -1].numpy()

        return step

    return begin


def llama_cpp(llama: PlainLlama, weights: gguf.Rounding, threads: int, folder: Path) -> Side:
    from llama_cpp import Llama, llama_get_logits_ith

    file = folder / f"{weights}-{llama.config.dim}.gguf"
    gguf.save_gguf(llama, empty_tokenizer(llama.config.vocab_size), file, weights=weights)
    context = llama.config.context
    model = Llama(str(file), n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)
    file.unlink()

    def begin() -> Step:
        model.reset()

        def step(token: int) -> np.ndarray:
            model.eval([token])
            return np.ctypeslib.as_array(llama_get_logits_ith(model.ctx, -1), (llama.config.vocab_size,))

        return step

    return begin


def llama2c(llama: PlainLlama, source: Path, threads: int, folder: Path) -> Side:
    """llama2.c's ``run.c`` (float32) or ``runq.c`` (int8), which is ``source``: its own functions, called here."""
    library = compiled(source)
    file = folder / f"{source.stem}-{llama.config.dim}.bin"
    file.write_bytes(int8_checkpoint(llama) if source.stem == "runq" else float32_checkpoint(llama))
    transformer = ctypes.create_string_buffer(4096)  # Its struct takes some 250 bytes.
    library.build_transformer(transformer, os.fsencode(file))
    file.unlink()  # It stays mapped.
    library.omp_set_num_threads(threads)
    forward = library.forward
    forward.restype = ctypes.POINTER(ctypes.c_float)
    scores = np.ctypeslib.as_array(forward(transformer, 1, 0), (llama.config.vocab_size,))  # The same at every call.
    forward.restype = None

    def begin() -> Step:
        position = -1

        def step(token: int) -> np.ndarray:
            nonlocal position
            position += 1
            forward(transformer, token, position)
            return scores

        return step

    weakref.finalize(begin, library.free_transformer, transformer)
    return begin


@cache
def compiled(source: Path) -> ctypes.CDLL:
    """A program of llama2.c as a library, compiled as its ``make runomp`` does; OpenMP's functions are in it too."""
    with tempfile.TemporaryDirectory() as folder:
        name = Path(folder) / source.stem
        # A library's public functions are inlined like a program's only where nobody may replace them.
        how = ["-Ofast", "-fopenmp", "-march=native", "-fPIC", "-fno-semantic-interposition", "-Dmain=unused_main"]
        run = [os.environ.get("CC", "cc")]
        subprocess.run([*run, *how, "-c", source, "-o", f"{name}.o"], check=True)
        # Linked without -Ofast, which would make the whole process take the smallest numbers for zero.
        subprocess.run([*run, "-shared", "-fopenmp", f"{name}.o", "-lm", "-o", f"{name}.so"], check=True)
        return ctypes.CDLL(f"{name}.so")


def compiler() -> str:
    """The C compiler and its version."""
    command = [os.environ.get("CC", "cc"), "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def float32_checkpoint(llama: PlainLlama) -> bytes:
    """llama2.c's version 0: seven int32, then float32, all layers of one kind together."""
    config, weights = llama.config, by_kind(llama)
    rotary = np.zeros((config.context, config.dim // config.heads), np.float32)  # Skipped by the reader.
    order = ["token_embd", "attn_norm", *ATTENTION_MATRICES, "ffn_norm", *FEED_FORWARD_MATRICES, "output_norm"]
    arrays = [array for kind in order for array in weights[kind]]
    return header(llama, config.feed_forward_dim) + b"".join(array.tobytes() for array in (*arrays, rotary))


def int8_checkpoint(llama: PlainLlama) -> bytes:
    """llama2.c's version 2: 256 bytes of header, norms in float32, then matrices in int8, a scale for each group.

    Groups must not cross rows, so the hidden layer is filled up with zeros, which changes no score, to a multiple of
    64, the usual group.
    """
    config, weights = llama.config, by_kind(llama)
    group, more = math.gcd(64, config.dim), -config.feed_forward_dim % 64
    for kind in ("ffn_gate", "ffn_up"):
        weights[kind] = [np.pad(array, ((0, more), (0, 0))) for array in weights[kind]]
    weights["ffn_down"] = [np.pad(array, ((0, 0), (0, more))) for array in weights["ffn_down"]]
    sizes = header(llama, config.feed_forward_dim + more)
    parts = [struct.pack("<Ii28sBi", 0x616B3432, 2, sizes, True, group).ljust(256, b"\0")]
    parts += [array.tobytes() for kind in ("attn_norm", "ffn_norm", "output_norm") for array in weights[kind]]
    for kind in ("token_embd", *ATTENTION_MATRICES, *FEED_FORWARD_MATRICES):
        for array in weights[kind]:
            groups = array.reshape(-1, group)
            scales = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
            parts += [np.round(groups / np.where(scales == 0, 1, scales)).astype(np.int8).tobytes(), scales.tobytes()]
    return b"".join(parts)


def by_kind(llama: PlainLlama) -> dict[str, list[Array]]:
    """Weights of all layers by llama.cpp's names, whose rotary pairs are neighbours, as llama2.c's are."""
    assert llama.head is None, "written for tied weights"
    assert llama.biases is None, "llama2.c knows no bias"
    weights: dict[str, list[Array]] = {}
    for name, array in gguf.tensors(llama).items():
        weights.setdefault(name.split(".")[-2], []).append(array)
    return weights


def header(llama: PlainLlama, hidden: int) -> bytes:
    config = llama.config
    sizes = (config.dim, hidden, len(llama.layers), config.heads, config.key_value_heads)
    return struct.pack("<7i", *sizes, config.vocab_size, config.context)
