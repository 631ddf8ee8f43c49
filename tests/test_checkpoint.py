"""Models on disk, llama2.c's checkpoints, and two other programs' logits as oracles."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import random_tokens, tiny
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from shared_data import STORIES, TOK512, needs_shared
from torch.testing import assert_close

from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.evaluation.loss import stream_loss
from frailt.evaluation.text import encode_text
from frailt.model.checkpoint import load_model, save_model
from frailt.model.config import ModelConfig
from frailt.model.frailt import FraiLT


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ("3", {}),
        ("1^4", {"kv_heads": 1}),
        ("1+(2)^3", {"tied": False, "rope_theta": 500.0, "norm_eps": 1e-3}),
        ("2^2", {"encoding": "sinusoidal", "hidden_dim": 10}),
    ],
)
def test_a_saved_model_comes_back(shape: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = tiny(shape, **options)
    save_model(model, tmp_path / "new" / "folder")
    loaded = load_model(tmp_path / "new" / "folder")
    assert loaded.config == model.config
    assert not loaded.training
    assert {n: p.tolist() for n, p in loaded.named_parameters()} == {n: p.tolist() for n, p in model.named_parameters()}
    tokens = random_tokens(2, 9)
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_saving_again_replaces(tmp_path: Path) -> None:
    save_model(tiny("2"), tmp_path)
    save_model(tiny("1^3", seed=1), tmp_path)
    assert load_model(tmp_path).config.shape == "1^3"
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    assert "head.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert loaded.head.weight is loaded.embedding.weight
    save_model(tiny("1^2", tied=False), tmp_path)
    assert "head.weight" in load_file(tmp_path / "model.safetensors")


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_model(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert all(word in message for word in words), message


def edited(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda config: {key: value for key, value in {**config, **changes}.items() if value != "gone"}


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (edited(surprise=1), "surprise"),
        (edited(dim="gone"), "embedding.weight has shape [40, 16], not [40, 64]"),
        (edited(format="frailt-0"), "frailt-1"),
        (edited(format="gone"), "frailt-1"),
        (edited(shape="1^3"), "groups.0.blocks.0.encoding.table"),
        (edited(shape="3"), "has a tensor that is not in its config, groups.0.blocks.0.encoding.table"),
        (edited(vocab_size=41), "embedding.weight"),
        (edited(shape="2^"), "shape"),
        (edited(heads=3), "heads"),
        (edited(dim="16"), "dim"),
        (edited(context=None), "context"),
        (edited(shape=8), "shape"),
        (edited(kv_heads=1.5), "kv_heads"),
        (edited(tied="no"), "tied"),
        (edited(encoding=["none"]), "encoding"),
        (edited(context=10**13), "context is 10000000000000; it must be between 1 and 1048576"),
        (edited(context=10_000_000), "context"),
        (edited(context=10**300), "context"),
        (edited(vocab_size=10**9), "vocab_size"),
        (edited(dim=2**40), "dim"),
        (edited(hidden_dim=2**40), "hidden_dim"),
        (edited(shape="1024", dim=2**20), "needs terabytes of memory"),
        (edited(shape="1^1024", context=2**20, dim=2**12), "needs terabytes of memory"),
        (edited(rope_theta=1e300), "rope_theta is 1e+300"),
        (edited(rope_theta=10**400), "rope_theta"),
        (edited(norm_eps=1e-300), "norm_eps"),
        (edited(norm_eps=10**400), "norm_eps"),
        (edited(shape="1+" * 10**5 + "1"), "too long"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    edit: Callable[[dict[str, Any]], dict[str, Any]], word: str, tmp_path: Path
) -> None:
    save_model(tiny("1^2"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(edit(config)))
    refused(tmp_path, word)


@pytest.mark.parametrize("text", ["", "{", "[]", "\ufeff\x00"])
def test_a_config_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "config.json")


@pytest.mark.parametrize("length", [0, 7, 100, -1])
def test_cut_weights_are_refused(length: int, tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    refused(tmp_path, "model.safetensors")


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"\xff" * 200)
    refused(tmp_path, "model.safetensors")
    save_file({"embedding.weight": torch.zeros(2, 2)}, file)
    refused(tmp_path, "lacks groups.0.blocks.0.attention.wk.weight")


def test_a_git_lfs_pointer_is_named_as_such(tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    refused(tmp_path, "Git LFS pointer", "git lfs pull")


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(file).items()}, file)
    refused(tmp_path, "is of type I8; weights must be floating point numbers")


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_any_float_are_read(kind: torch.dtype, tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    file = tmp_path / "model.safetensors"
    rounded = {name: tensor.to(kind) for name, tensor in load_file(file).items()}
    save_file(rounded, file)
    loaded = load_model(tmp_path)
    assert {name: p.tolist() for name, p in loaded.named_parameters()} == {
        name: tensor.float().tolist() for name, tensor in rounded.items()
    }
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


def test_loading_draws_no_random_numbers_and_gives_a_model_that_trains(tmp_path: Path) -> None:
    save_model(tiny("1^2", encoding="sinusoidal"), tmp_path)
    torch.manual_seed(0)
    model = load_model(tmp_path)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    model(random_tokens(2, 9)).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Damaged bytes: some changed, cut, repeated, or digits and quotes put in."""
    damaged = bytearray(data)
    for _ in range(random.integers(1, 4)):
        at = int(random.integers(0, min(len(damaged), 2000)))
        match random.integers(0, 4):
            case 0:
                damaged[at] = random.integers(0, 256)
            case 1:
                del damaged[at : at + int(random.integers(1, 9))]
            case 2:
                damaged[at:at] = random.choice([b"9" * 30, b"-1", b"[" * 3000, b'"', b"null", b"1e400", b"NaN", b"{}"])
            case _:
                damaged[at : at + 4] = struct.pack("<i", random.choice([0, -1, 1, 2**31 - 1, -(2**31), 65536]))
        if not damaged:
            break
    return bytes(damaged)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.bin"])
def test_damaged_files_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    save_model(tiny("1^2"), tmp_path)
    file = tmp_path / name
    if name == "model.bin":
        llama2c_file(file, llama2c_weights(tied=True))
    whole, random = file.read_bytes(), np.random.default_rng(0)
    refusals = 0
    for _ in range(200):
        file.write_bytes(mutated(whole, random))
        try:
            load_model(file if name == "model.bin" else tmp_path)
        except InputError as error:
            refusals += 1
            message = str(error)
            assert message.isprintable() and len(message) < 600, message  # noqa: PT018
    assert refusals > 50


def test_no_model_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "holds no model")
    refused(tmp_path / "nowhere", "holds no model")
    (tmp_path / "model.pt").write_bytes(b"pickle")
    refused(tmp_path / "model.pt", "holds no model")
    save_model(tiny("1^2"), tmp_path)
    (tmp_path / "config.json").unlink()
    refused(tmp_path, "config.json does not exist")


# --- llama2.c ---

Weights = dict[str, NDArray[np.float32]]
DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCAB, CONTEXT = 24, 20, 2, 4, 2, 30, 16
WIDTH = DIM // HEADS


def llama2c_weights(*, tied: bool) -> Weights:
    """Random weights by the names of llama2.c's run.c, in the order of its files."""
    random = np.random.default_rng(0)
    sizes = {
        "token_embedding": (VOCAB, DIM),
        "rms_att": (LAYERS, DIM),
        "wq": (LAYERS, DIM, DIM),
        "wk": (LAYERS, KV_HEADS * WIDTH, DIM),
        "wv": (LAYERS, KV_HEADS * WIDTH, DIM),
        "wo": (LAYERS, DIM, DIM),
        "rms_ffn": (LAYERS, DIM),
        "w1": (LAYERS, HIDDEN, DIM),
        "w2": (LAYERS, DIM, HIDDEN),
        "w3": (LAYERS, HIDDEN, DIM),
        "rms_final": (DIM,),
        "freq_cis": (2, CONTEXT, WIDTH // 2),
    }
    if not tied:
        sizes["wcls"] = (VOCAB, DIM)
    return {name: random.normal(0, 0.3, size).astype("<f4") for name, size in sizes.items()}


def llama2c_file(path: Path, weights: Weights) -> Path:
    vocab = -VOCAB if "wcls" in weights else VOCAB
    header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, vocab, CONTEXT)
    path.write_bytes(header + b"".join(tensor.tobytes() for tensor in weights.values()))
    return path


def run_llama2c(w: Weights, tokens: list[int]) -> NDArray[np.float32]:
    """What llama2.c's run.c computes, one token after the other; its rotary pairs are neighbours."""

    def norm(x: NDArray[Any], gain: NDArray[Any]) -> NDArray[Any]:
        return x / np.sqrt((x * x).mean() + 1e-5) * gain

    def rotate(x: NDArray[Any], position: int) -> NDArray[Any]:
        pairs = x.reshape(-1, WIDTH // 2, 2)
        angles = position / 10000 ** (np.arange(0, WIDTH, 2) / WIDTH)
        turned = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
        return np.stack((turned.real, turned.imag), axis=-1).reshape(-1, WIDTH)

    keys: list[list[NDArray[Any]]] = [[] for _ in range(LAYERS)]
    values: list[list[NDArray[Any]]] = [[] for _ in range(LAYERS)]
    logits = []
    for position, token in enumerate(tokens):
        x = w["token_embedding"][token].astype(np.float64)
        for l in range(LAYERS):  # noqa: E741
            y = norm(x, w["rms_att"][l])
            q = rotate(w["wq"][l] @ y, position)
            keys[l].append(rotate(w["wk"][l] @ y, position))
            values[l].append((w["wv"][l] @ y).reshape(-1, WIDTH))
            attended = []
            for h in range(HEADS):
                g = h // (HEADS // KV_HEADS)
                scores = np.exp([q[h] @ k[g] / np.sqrt(WIDTH) for k in keys[l]])
                attended.append(sum(s * v[g] for s, v in zip(scores, values[l], strict=True)) / scores.sum())
            x = x + w["wo"][l] @ np.concatenate(attended)
            y = norm(x, w["rms_ffn"][l])
            gate = w["w1"][l] @ y
            x = x + w["w2"][l] @ (gate / (1 + np.exp(-gate)) * (w["w3"][l] @ y))
        logits.append(w.get("wcls", w["token_embedding"]) @ norm(x, w["rms_final"]))
    return np.array(logits, dtype=np.float32)


@pytest.mark.parametrize("tied", [True, False])
def test_llama2c_checkpoints_compute_what_they_do_there(tied: bool, tmp_path: Path) -> None:
    weights = llama2c_weights(tied=tied)
    model = load_model(llama2c_file(tmp_path / "model.bin", weights))
    sizes: dict[str, Any] = {"dim": DIM, "heads": HEADS, "kv_heads": KV_HEADS, "hidden_dim": HIDDEN}
    assert model.config == ModelConfig(shape=str(LAYERS), vocab_size=VOCAB, context=CONTEXT, tied=tied, **sizes)
    assert not model.training
    tokens = random_tokens(CONTEXT, vocab_size=VOCAB)
    expected = torch.from_numpy(run_llama2c(weights, tokens.tolist()))
    assert_close(model(tokens[None]).logits[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("change", [-4, -1, 1, 4])
def test_a_llama2c_file_of_another_length_is_refused(change: int, tmp_path: Path) -> None:
    file = llama2c_file(tmp_path / "model.bin", llama2c_weights(tied=True))
    data = file.read_bytes()
    file.write_bytes(data[:change] if change < 0 else data + bytes(change))
    refused(file, "bytes")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"\xff" * 500,
        b"\x7f" * 500,
        bytes(500),
        struct.pack("<7i", 24, 20, 2, 5, 5, 30, 16) + bytes(400),  # 24 is no multiple of 5 heads.
        struct.pack("<7i", 24, 20, 2, 8, 8, 30, 16) + bytes(4 * 6912),  # Heads of 3.
        struct.pack("<7i", 24, 20, 2, 4, 3, 30, 16) + bytes(4 * 6912),  # 3 key-value heads for 4.
        struct.pack("<7i", 24, 20, 2, 4, 4, -(2**31), 16) + bytes(400),
        # Sizes whose product wraps round 2^64 to the file's 28 bytes.
        bytes.fromhex("68e712074697130cae010000dab9c401dab9c401cae3ed2f324a7100"),
        b'{"version": "1.0", "model": {"type": "BPE"}}',
    ],
)
def test_files_that_are_no_llama2c_checkpoint_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(data)
    refused(tmp_path / "model.bin")


@needs_shared
@pytest.mark.parametrize(("text", "nats"), [("valid_v1.txt.xz", 1.430), ("valid_v2.txt.xz", 1.353)])
def test_stories260k_has_its_known_loss(text: str, nats: float) -> None:
    model = load_model(TOK512 / "stories260K.bin")
    tokens, size = encode_text([STORIES / text], Tokenizer.load(TOK512 / "tok512.model"))
    loss = stream_loss(model, tokens, text_bytes=size)
    assert loss.nats_per_token == pytest.approx(nats, abs=0.005)


# --- transformers ---


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_those_of_transformers_llama(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3, "initializer_range": 0.3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=40, tie_word_embeddings=tied, **sizes, **heads)).eval()
    model = FraiLT(
        ModelConfig(shape="3", dim=32, heads=4, kv_heads=2, hidden_dim=44, vocab_size=40, context=64, tied=tied)
    ).eval()
    theirs = {
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        **{f"attention.w{x}": f"self_attn.{x}_proj" for x in "qkvo"},
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
    }
    names = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    names |= {f"groups.0.blocks.{i}.{a}": f"model.layers.{i}.{b}" for i in range(3) for a, b in theirs.items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            other = llama.get_parameter(names[name.removesuffix(".weight")] + ".weight")
            if other.ndim == 1:
                other.normal_(1.0, 0.2)
            parameter.copy_(other)
    tokens = random_tokens(2, 40)
    with torch.inference_mode():
        assert_close(model(tokens).logits, llama(tokens).logits, rtol=1e-5, atol=1e-5)
