"""Exports against the programs that they are for: transformers, and llama.cpp where its Python package is installed."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import TEXT, TOKENIZER, random_tokens, tiny
from numpy.typing import NDArray

from frailt.errors import InputError
from frailt.export.gguf import Rounding, save_gguf
from frailt.export.plain_llama import PlainLlama, plain_llama
from frailt.export.transformers import FILES, MARK, save_transformers, tensors
from frailt.inference.sampling import Sampling
from frailt.inference.torch_decoder import TorchStoryteller
from frailt.model.frailt import FraiLT
from frailt.model.llama2c import halves_from_neighbours, neighbours_from_halves
from frailt.model.stored import StoredModel

VOCAB = TOKENIZER.vocab_size

models = pytest.mark.parametrize(
    ("shape", "options", "iterations"),
    [
        ("3", {}, None),
        ("3", {"tied": False, "kv_heads": 1}, None),
        ("2^4", {}, None),
        ("2^4", {}, 6),
        ("1+(2)^3+1^2", {"tied": False, "kv_heads": 2, "norm_eps": 1e-3, "rope_theta": 500.0}, None),
        ("1^3+1", {"encoding": "sinusoidal", "hidden_dim": 20}, None),
        ("(2)^2", {"encoding": "none"}, None),
    ],
)


def made(shape: str, options: dict[str, Any], iterations: int | None = None) -> tuple[FraiLT, PlainLlama]:
    model = tiny(shape, **{"dim": 32, "heads": 4, "vocab_size": VOCAB, "context": 48, **options})
    arrays = {name: p.detach().numpy() for name, p in model.named_parameters()}
    return model, plain_llama(StoredModel(model.config, arrays), iterations)


@models
@pytest.mark.filterwarnings("ignore")
def test_transformers_computes_the_same(
    shape: str, options: dict[str, Any], iterations: int | None, tmp_path: Path
) -> None:
    from transformers import LlamaForCausalLM

    model, llama = made(shape, options, iterations)
    save_transformers(llama, TOKENIZER, tmp_path / "out")
    loaded: Any = LlamaForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    theirs, report = loaded
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.dtype == torch.float32
    tokens = random_tokens(2, 48, vocab_size=VOCAB)
    with torch.inference_mode():
        own, other = model(tokens, iterations=iterations).logits, theirs(tokens).logits
    torch.testing.assert_close(other, own, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_transformers_tells_the_same_story(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, llama = made("1^3", {})
    save_transformers(llama, TOKENIZER, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "Lily and Ben saw a big red ball."
    found = tokenizer(text, return_tensors="pt")
    assert found.input_ids[0].tolist() == [TOKENIZER.bos, *TOKENIZER.encode(text)]
    assert tokenizer.decode(found.input_ids[0], skip_special_tokens=True).strip() == text
    theirs: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    told = theirs.generate(found.input_ids, attention_mask=found.attention_mask, do_sample=False, max_new_tokens=12)
    new = [token for token in told[0, found.input_ids.shape[1] :].tolist() if token not in (1, 2)]
    expected = TorchStoryteller(model, TOKENIZER).generate([text], Sampling(temperature=0, max_tokens=12))[0]
    before = [TOKENIZER.bos, *TOKENIZER.encode(text)]
    assert TOKENIZER.decode([*before, *new]) == text + expected


def test_a_standard_model_has_no_biases_and_stays_tied(tmp_path: Path) -> None:
    _, llama = made("3", {})
    assert (llama.biases, llama.head) == (None, None)
    save_transformers(llama, TOKENIZER, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["mlp_bias"], config["tie_word_embeddings"], config["num_hidden_layers"]) == (False, True, 3)
    assert not any("bias" in name or "lm_head" in name for name in tensors(llama))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    _, llama = made("1^2", {})
    (tmp_path / "mine").write_text("mine")
    for save, out in (
        (save_transformers, tmp_path),
        (save_transformers, tmp_path / "mine"),
        (save_gguf, tmp_path / "mine"),
    ):
        with pytest.raises(InputError, match="exists already; choose another --out"):
            save(llama, TOKENIZER, out)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.filterwarnings("ignore")
def test_transformers_pads_a_batch(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, llama = made("1^3", {})
    save_transformers(llama, TOKENIZER, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    texts = ["Lily", "Lily and Ben saw a big red ball."]
    both = tokenizer(texts, padding=True, return_tensors="pt")
    assert both.attention_mask[0].tolist() == sorted(both.attention_mask[0].tolist()), "padding is in front"
    with torch.inference_mode():
        logits = model(**both).logits[:, -1]
        for row, text in enumerate(texts):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
            torch.testing.assert_close(logits[row], alone, rtol=0, atol=1e-4)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    _, llama = made("1^2", {})
    (tmp_path / "out").mkdir()
    before = (tmp_path / "out").stat().st_ino
    save_transformers(llama, TOKENIZER, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)
    assert (tmp_path / "out").stat().st_ino == before, "it may be a mount, which cannot be replaced"


@pytest.mark.parametrize("exists", [True, False])
def test_a_full_disk_leaves_nothing(exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, llama = made("1^2", {})
    out = tmp_path / "out"
    if exists:
        out.mkdir()

    def fill(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fill)
        with pytest.raises(OSError, match="No space left") as caught:
            save_transformers(llama, TOKENIZER, out)
    assert str(caught.value.filename).startswith(str(out))
    assert [*tmp_path.rglob("*")] == [out] * exists
    save_transformers(llama, TOKENIZER, out)


def test_what_a_kill_left_is_written_over(tmp_path: Path) -> None:
    _, llama = made("1^2", {})
    out = tmp_path / "out"
    save_transformers(llama, TOKENIZER, out)
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / "config.json").unlink()
    (out / ".config.json.0123.tmp").write_text("{")
    (out / "model.safetensors").write_bytes(b"half")
    (out / MARK).touch()
    save_transformers(llama, TOKENIZER, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole


@pytest.mark.parametrize("mark", [False, True])
def test_files_of_a_user_are_no_leftovers(mark: bool, tmp_path: Path) -> None:
    _, llama = made("1^2", {})
    for name in ("tokenizer.json", "model.safetensors") if not mark else (MARK, "notes.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="exists already; choose another --out"):
        save_transformers(llama, TOKENIZER, tmp_path)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}


def test_a_kill_while_writing_leaves_the_mark(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom frailt.export import transformers\n"
        "transformers._write = lambda *_: os._exit(9)\n"
        "transformers.save_transformers(None, None, Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(out)], check=False).returncode == 9
    assert [path.name for path in out.iterdir()] == [MARK]
    _, llama = made("1^2", {})
    save_transformers(llama, TOKENIZER, out)
    assert MARK not in {path.name for path in out.iterdir()}


# --- GGUF ---


def test_a_full_disk_names_the_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = pytest.importorskip("gguf")
    _, llama = made("1^2", {})

    def fill(*_: object, **__: object) -> None:
        raise OSError("16384 requested and 5656 written")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fill)
    with pytest.raises(OSError, match="No space left") as caught:
        save_gguf(llama, TOKENIZER, tmp_path / "model.gguf")
    assert caught.value.filename == str(tmp_path / "model.gguf")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("weights", "kind"), [("float32", "F32"), ("bfloat16", "BF16"), ("int8", "Q8_0")])
def test_matrices_are_of_the_type_asked_for(weights: Rounding, kind: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    _, llama = made("1^2", {})
    save_gguf(llama, TOKENIZER, tmp_path / "model.gguf", weights=weights)
    tensors = gguf.GGUFReader(tmp_path / "model.gguf").tensors
    found = {tensor.tensor_type.name for tensor in tensors if len(tensor.shape) == 2 and tensor.shape[0] % 32 == 0}
    assert found == {kind}
    [query] = [tensor for tensor in tensors if tensor.name == "blk.0.attn_q.weight"]
    expected = neighbours_from_halves(llama.layers[0]["attention.wq.weight"], 8)
    stored = gguf.quants.dequantize(query.data, query.tensor_type)
    np.testing.assert_allclose(stored, expected, rtol=0, atol={"float32": 0, "bfloat16": 0.005, "int8": 0.01}[weights])


def test_rows_move_there_and_back() -> None:
    weight = np.arange(24 * 3).reshape(24, 3)
    moved = neighbours_from_halves(weight, 6)
    assert moved[:6, 0].tolist() == [0, 9, 3, 12, 6, 15]  # Rows 0, 3, 1, 4, 2, 5 of the first head.
    assert np.array_equal(halves_from_neighbours(moved, 6), weight)


def test_a_gguf_file_says_what_the_model_is(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    _, llama = made("1+(2)^3", {"kv_heads": 2, "rope_theta": 500.0})
    save_gguf(llama, TOKENIZER, tmp_path / "new" / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "new" / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    said = {name.removeprefix("llama."): value for name, value in fields.items() if name.startswith("llama.")}
    assert said["block_count"] == 7
    assert said["attention.head_count_kv"] == 2
    assert said["rope.freq_base"] == 500.0
    assert fields["tokenizer.ggml.tokens"] == TOKENIZER.pieces
    assert [tensor.name for tensor in reader.tensors].count("blk.6.ffn_down.bias") == 1
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"model.gguf"}


@pytest.mark.parametrize("options", [{}, {"tied": False, "kv_heads": 2}])
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_the_gguf_file(options: dict[str, Any], tmp_path: Path) -> None:
    """An oracle for names, sizes and the order of rows where llama.cpp is not installed. It knows no biases."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model, llama = made("3", options)
    save_gguf(llama, TOKENIZER, tmp_path / "model.gguf")
    theirs: Any = LlamaForCausalLM(LlamaConfig(**load_gguf_checkpoint(tmp_path / "model.gguf")["config"]))
    loaded = load_gguf_checkpoint(tmp_path / "model.gguf", return_tensors=True, model_to_load=theirs)
    report = theirs.load_state_dict(loaded["tensors"], strict=False)
    assert not report.unexpected_keys
    assert report.missing_keys in ([], ["lm_head.weight"])
    tokens = random_tokens(2, 48, vocab_size=VOCAB)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(tokens).logits, model(tokens).logits, rtol=0, atol=1e-4)


def llama_cpp_scores(path: Path, tokens: list[int]) -> NDArray[np.float32]:
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError)
    f32 = llama_cpp.GGML_TYPE_F32  # Of keys and values; its default is float16.
    threads = {"n_threads": 1, "n_threads_batch": 1}
    theirs = llama_cpp.Llama(str(path), n_ctx=48, logits_all=True, verbose=False, type_k=f32, type_v=f32, **threads)
    theirs.eval(tokens)
    return np.array(theirs.scores[: len(tokens)], np.float32)


@models
@pytest.mark.filterwarnings("ignore")
def test_llama_cpp_computes_the_same(
    shape: str, options: dict[str, Any], iterations: int | None, tmp_path: Path
) -> None:
    model, llama = made(shape, options, iterations)
    save_gguf(llama, TOKENIZER, tmp_path / "model.gguf")
    tokens = random_tokens(48, vocab_size=VOCAB)
    own = model(tokens[None], iterations=iterations).logits[0].detach().numpy()
    other = llama_cpp_scores(tmp_path / "model.gguf", tokens.tolist())
    np.testing.assert_allclose(other, own, rtol=0, atol=1e-3)
    assert (other.argmax(1) == own.argmax(1)).all()


@pytest.mark.parametrize(("weights", "tolerance"), [("bfloat16", 0.05), ("int8", 0.1)])
@pytest.mark.filterwarnings("ignore")
def test_llama_cpp_reads_rounded_weights(weights: Rounding, tolerance: float, tmp_path: Path) -> None:
    model, llama = made("1^3", {})
    save_gguf(llama, TOKENIZER, tmp_path / "model.gguf", weights=weights)
    tokens = random_tokens(20, vocab_size=VOCAB)
    own = model(tokens[None]).logits[0].detach().numpy()
    assert np.abs(llama_cpp_scores(tmp_path / "model.gguf", tokens.tolist()) - own).mean() < tolerance * own.std()


@pytest.mark.filterwarnings("ignore")
def test_llama_cpp_has_the_same_tokens(tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError)
    _, llama = made("1^3", {})
    save_gguf(llama, TOKENIZER, tmp_path / "model.gguf")
    theirs = llama_cpp.Llama(str(tmp_path / "model.gguf"), n_ctx=48, verbose=False)
    for text in (*TEXT.splitlines(), "é 12 big toys!", "a\nb"):
        assert theirs.tokenize(text.encode()) == [TOKENIZER.bos, *TOKENIZER.encode(text)]
