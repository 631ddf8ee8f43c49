"""The compiled decoder against the model in torch, in every kind of weights, with one thread and with several."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numba
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from models import GREEDY, PROMPTS, TEXT, TOKENIZER, random_tokens, round_as, stored, tiny
from numpy.typing import NDArray
from safetensors.torch import save_file

import frailt
from frailt.errors import InputError
from frailt.inference.cpu.decoder import AT_ONCE, CompiledDecoder, CompiledStoryteller
from frailt.inference.cpu.packing import Packed, Weights, as_bfloat16, as_int8, pack
from frailt.inference.cpu.products import store
from frailt.inference.generation import Decoder
from frailt.inference.sampling import Sampling
from frailt.inference.torch_decoder import TorchDecoder, TorchStoryteller
from frailt.model.checkpoint import load_model, save_model
from frailt.model.encodings import EncodingKind
from frailt.model.frailt import FraiLT
from frailt.model.stored import as_float32, read_model

SHAPES = ["2", "1^1", "1^3", "2^2", "(2)^3", "1+(2)^2+1", "1^3+2"]


def scores_of(
    packed: Packed, tokens: list[int], iterations: int | None = None, threads: int = 1, prompt: int = 1
) -> NDArray[np.float32]:
    """Scores after each token: of the prompt's last, and of each step."""
    decoder = CompiledDecoder(packed, iterations, threads=threads)
    return np.concatenate([decoder.add([tokens[:prompt]]), *(decoder.step([token]) for token in tokens[prompt:])])


def scores_in_torch(model: FraiLT, tokens: torch.Tensor, iterations: int | None = None) -> NDArray[np.float32]:
    """In float64: both are compared with what is right."""
    with torch.inference_mode():
        return deepcopy(model).double()(tokens[None], iterations=iterations).logits[0].numpy()


# --- Logits ---


@settings(max_examples=60)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (6, 3)]),
    st.sampled_from([2, 4, 6, 8, 18]),
    st.sampled_from([None, 1, 5, 33]),
    st.sampled_from(get_args(EncodingKind)),
    st.booleans(),
    st.sampled_from([None, 1, 4]),
    st.integers(1, 40),
    st.sampled_from([17, 40, 48]),
    st.integers(1, 3),
)
def test_logits_equal_those_of_torch(
    shape: str,
    heads: tuple[int, int],
    head: int,
    hidden: int | None,
    encoding: EncodingKind,
    tied: bool,
    iterations: int | None,
    time: int,
    vocab: int,
    threads: int,
) -> None:
    sizes: dict[str, Any] = {"dim": heads[0] * head, "heads": heads[0], "kv_heads": heads[1], "hidden_dim": hidden}
    model = tiny(shape, encoding=encoding, tied=tied, vocab_size=vocab, context=40, **sizes)
    tokens = random_tokens(time, vocab_size=vocab)
    own = scores_of(pack(stored(model)), tokens.tolist(), iterations, threads)
    assert own.dtype == np.float32
    np.testing.assert_allclose(own, scores_in_torch(model, tokens, iterations), rtol=0, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("kind", get_args(Weights)[1:])
def test_rounded_weights_compute_what_torch_computes_with_them(
    kind: Weights, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("1+(2)^2", dim=48, heads=4, kv_heads=2, hidden_dim=100, tied=False)
    packed = pack(stored(model), kind)
    round_as(model, kind, monkeypatch)
    tokens = random_tokens(30)
    own = scores_of(packed, tokens.tolist(), threads=threads)
    # Int8 rounds the numbers that the weights meet, too: to 15 bits and more at these widths. Some keys and values then
    # fall on the other side of a half.
    np.testing.assert_allclose(own, scores_in_torch(model, tokens), rtol=0, atol=0.02 if kind == "int8" else 1e-4)


def test_what_is_kept_in_bfloat16_is_rounded_to_the_nearest() -> None:
    @numba.njit
    def keep(matrix, numbers):
        for i in range(len(numbers)):
            store(matrix, i, numbers[i])

    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    halves = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF], np.uint32).view(np.float32)
    numbers = np.concatenate((numbers, halves, -halves, np.zeros(1, np.float32)))
    kept = np.zeros(len(numbers), np.uint16)
    keep(kept, numbers)
    assert np.array_equal(kept, as_bfloat16(numbers))


def test_threads_do_not_change_a_bit() -> None:
    packed = pack(stored(tiny("2^3", dim=80, heads=5)), "int8")
    tokens = random_tokens(32).tolist()
    alone, *others = (scores_of(packed, tokens, threads=threads) for threads in (1, 2, 3, 8))
    for other in others:
        assert np.array_equal(alone, other)


def test_a_prompt_is_read_as_its_tokens_are() -> None:
    """Longer ones than are read in one call, too."""
    packed, tokens = pack(stored(tiny("1^3", context=100))), random_tokens(80).tolist()
    one_by_one = scores_of(packed, tokens)
    for prompt in (5, AT_ONCE, AT_ONCE + 1, 79, 80):
        assert np.array_equal(scores_of(packed, tokens, prompt=prompt), one_by_one[prompt - 1 :])


@pytest.mark.parametrize("maker", ["torch", "compiled"])
def test_rows_join_and_leave_while_others_go_on(maker: str) -> None:
    model = tiny("1+(2)^2", kv_heads=1, double=maker == "torch")
    texts = random_tokens(50, 12).tolist()

    def new() -> Decoder:
        return TorchDecoder(model) if maker == "torch" else CompiledDecoder(pack(stored(model)))

    def alone(text: list[int]) -> NDArray[np.float32]:
        decoder = new()
        return np.concatenate([decoder.add([text[:1]]), *(decoder.step([token]) for token in text[1:])])

    decoder, rows = new(), list[list[int]]()  # The number of a text, and how much of it was read.
    random = np.random.default_rng(0)
    expected = {number: alone(text) for number, text in enumerate(texts)}
    waiting = list(range(len(texts)))
    while waiting or rows:
        if waiting and (not rows or random.random() < 0.5):
            joining = [[waiting.pop(), int(random.integers(1, 12))] for _ in range(min(len(waiting), 3))]
            scores = decoder.add([texts[number][:read] for number, read in joining])
            rows += joining
            for (number, read), row in zip(joining, scores, strict=True):
                np.testing.assert_allclose(row, expected[number][read - 1], rtol=0, atol=1e-4)
        staying = random.permutation([i for i, (_, read) in enumerate(rows) if read < 12]).tolist()
        decoder.select(staying)
        rows = [rows[i] for i in staying]
        assert len(decoder.passes) == len(rows)
        if rows:
            scores = decoder.step([texts[number][read] for number, read in rows])
            for row, mine in zip(rows, scores, strict=True):
                row[1] += 1
                np.testing.assert_allclose(mine, expected[row[0]][row[1] - 1], rtol=0, atol=1e-4)


def test_what_cannot_be_read_is_refused() -> None:
    packed = pack(stored(tiny("1^3")))
    decoder = CompiledDecoder(packed)
    for tokens, message in (
        ([40], "40 is no token of a vocabulary of 40"),
        ([-1], "-1 is no token"),
        ([1] * 33, "33 tok"),
    ):
        with pytest.raises(InputError, match=message):
            decoder.add([tokens])
    decoder.add([[1] * 32])
    with pytest.raises(InputError, match="33 tokens are more than the model's context of 32"):
        decoder.step([1])
    with pytest.raises(InputError, match="2 tokens are given for 1 rows"):
        decoder.step([1, 1])
    with pytest.raises(InputError, match="passes 0 do not fit shape"):
        CompiledDecoder(packed, 0)
    with pytest.raises(InputError, match="threads is 0"):
        CompiledStoryteller(packed, TOKENIZER, threads=0)
    larger = stored(tiny("1^3"))
    larger.weights["groups.0.blocks.0.adapter.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(InputError, match=r"the compiled decoder cannot use the tensor groups.0.blocks.0.adapter"):
        pack(larger)
    broken = stored(tiny("1^3"))
    broken.weights["embedding.weight"][3, 3] = np.nan
    with pytest.raises(InputError, match="not all finite"):
        pack(broken, "int8")


# --- Stories ---


@pytest.mark.parametrize(
    ("shape", "context", "options"),
    [
        ("2", 64, {}),
        ("1^3", 24, {"encoding": "sinusoidal"}),
        ("1+(2)^2", 17, {"kv_heads": 1, "tied": False}),
        ("1^2", 1, {}),
        ("1^2", 2, {}),
    ],
)
def test_stories_are_those_of_torch(shape: str, context: int, options: dict[str, Any]) -> None:
    model = tiny(shape, vocab_size=TOKENIZER.vocab_size, context=context, **options)
    slow, fast = TorchStoryteller(model, TOKENIZER), CompiledStoryteller(pack(stored(model)), TOKENIZER)
    prompts = [*PROMPTS, TEXT, "Lily and"]
    for sampling in (replace(GREEDY, max_tokens=40), Sampling(max_tokens=40, seed=3, top_k=20, temperature=0.8)):
        for iterations in (None, 3):
            expected = slow.generate(prompts, sampling, iterations=iterations)
            assert fast.generate(prompts, sampling, iterations=iterations) == expected
    assert "".join(fast.stream("Lily", GREEDY)) == slow.generate(["Lily"], GREEDY)[0]


def test_a_saved_model_is_read_without_torch(tmp_path: Path) -> None:
    model = tiny("1+1^3", vocab_size=TOKENIZER.vocab_size)
    save_model(model, tmp_path)
    TOKENIZER.save(tmp_path / "tokenizer.json")
    expected = TorchStoryteller(model, TOKENIZER).generate(["Lily"], GREEDY)
    assert frailt.load(tmp_path).generate(["Lily"], GREEDY) == expected
    script = (
        "import sys, frailt; teller = frailt.load(sys.argv[1]); "
        "print(ascii(teller.generate(['Lily'], frailt.Sampling(temperature=0, max_tokens=12))[0])); "
        "sys.exit(sorted({'torch', 'scipy', 'matplotlib', 'tyro'} & sys.modules.keys()) or None)"
    )
    found = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, ascii(expected[0]) + "\n", "")


# --- Files and numbers ---


def test_bfloat16_files_are_kept_as_they_are(tmp_path: Path) -> None:
    model = tiny("1^3", tied=False)
    save_model(model, tmp_path)
    save_file({n: p.detach().bfloat16() for n, p in model.named_parameters()}, tmp_path / "model.safetensors")
    packed = pack(read_model(tmp_path))
    assert packed.weights.dtype == np.uint16
    assert np.array_equal(packed.weights, pack(stored(model), "bfloat16").weights)
    assert np.array_equal(read_model(tmp_path).weights["head.weight"], as_bfloat16(model.head.weight.detach().numpy()))
    tokens = random_tokens(9)
    own = scores_of(packed, tokens.tolist())
    loaded = load_model(tmp_path)
    np.testing.assert_allclose(own, scores_in_torch(loaded, tokens), rtol=0, atol=1e-4)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    model = tiny("1")
    save_model(model, tmp_path)
    save_file({n: p.detach().int() for n, p in model.named_parameters()}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="is of type I32; weights must be floating point numbers"):
        read_model(tmp_path)


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1))
@example([1 + 2**-8, 1 + 3 * 2**-8])  # Halfway between two: the even one.
def test_bfloat16_rounds_as_torch_does(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    expected = torch.from_numpy(array).bfloat16().float().numpy()
    np.testing.assert_array_equal(as_float32(as_bfloat16(array)), expected)


def test_int8_is_off_by_half_a_step_at_most() -> None:
    matrix = np.random.default_rng(0).normal(size=(50, 33)).astype(np.float32)
    matrix[7] = 0
    whole, scales = as_int8(matrix)
    assert (np.abs(whole).max(axis=1)[np.arange(50) != 7] == 127).all()
    assert np.all(np.abs(whole * scales[:, None] - matrix) <= scales[:, None] * 0.5001)
    assert not whole[7].any()


def test_memory_is_what_the_weights_ask_for() -> None:
    """Padding aside: 16 rows and 8 columns divide these widths."""
    model = tiny("2", dim=64, heads=4, hidden_dim=160, vocab_size=48)
    count = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    sizes = [pack(stored(model), kind).weights.nbytes for kind in ("float32", "bfloat16", "int8")]
    assert sizes == [4 * count, 2 * count, count]
