"""Generation: what is drawn from, and texts that depend on nothing but model, prompt, options and seed."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import GREEDY, PROMPTS, TEXT, TOKENIZER, stored, teller, tiny
from shared_data import TOK512, needs_shared

import frailt
from frailt.errors import InputError
from frailt.inference.cpu.decoder import CompiledStoryteller
from frailt.inference.cpu.packing import pack
from frailt.inference.sampling import Sampling, draw, probabilities
from frailt.inference.torch_decoder import TorchStoryteller
from frailt.model.checkpoint import save_model

# --- Sampling ---


def brute_force(logits: list[float], sampling: Sampling) -> list[float]:
    """Filter by filter over a sorted list of (probability, token)."""
    weights = [math.exp(x / sampling.temperature) for x in logits]
    ranked = sorted(((w / sum(weights), i) for i, w in enumerate(weights)), reverse=True)
    if sampling.top_k is not None:
        ranked = ranked[: sampling.top_k]
    total = sum(p for p, _ in ranked)
    ranked = [(p / total, i) for p, i in ranked]
    if sampling.top_p is not None:
        reached, kept = 0.0, []
        for p, i in ranked:
            if reached >= sampling.top_p:
                break
            kept.append((p, i))
            reached += p
        ranked = kept
    if sampling.min_p is not None:
        ranked = [(p, i) for p, i in ranked if p >= sampling.min_p * ranked[0][0]]
    total = sum(p for p, _ in ranked)
    found = {i: p / total for p, i in ranked}
    return [found.get(i, 0.0) for i in range(len(logits))]


shares = st.one_of(st.none(), st.floats(0.01, 0.999))


@given(
    st.lists(st.floats(-20, 20), min_size=1, max_size=30, unique_by=lambda x: round(x, 3)),
    st.floats(0.1, 5),
    st.one_of(st.none(), st.integers(1, 40)),
    shares,
    shares,
)
def test_filters(logits: list[float], temperature: float, k: int | None, p: float | None, m: float | None) -> None:
    sampling = Sampling(temperature=temperature, top_k=k, top_p=p, min_p=m)
    found = probabilities(np.array([logits]), sampling)[0]
    np.testing.assert_allclose(found, brute_force(logits, sampling), rtol=1e-9, atol=1e-12)


def test_filters_see_each_row_by_itself() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 20))
    sampling = Sampling(temperature=0.7, top_k=9, top_p=0.8, min_p=0.1)
    rows = [probabilities(row[None], sampling) for row in logits]
    assert np.array_equal(probabilities(logits, sampling), np.concatenate(rows))


def test_temperature_zero_takes_the_first_likeliest() -> None:
    logits = np.array([[0.0, 3.0, 1.0, 3.0], [-1.0, -5.0, -2.0, -9.0]])
    sampling = Sampling(temperature=0, top_k=3, top_p=0.5, min_p=0.5)
    assert probabilities(logits, sampling).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_the_likeliest_token_is_never_filtered_out() -> None:
    logits = np.array([[1.0, 2.0, 0.0]])
    for sampling in (Sampling(top_k=1), Sampling(top_p=1e-9), Sampling(min_p=1.0)):
        assert probabilities(logits, sampling).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(temperature: float, broken: float) -> None:
    own = teller()
    with torch.no_grad():
        own.model.norm.weight[3] = broken
    fast = CompiledStoryteller(pack(stored(own.model.float())), TOKENIZER)
    for model in (own, fast):
        with pytest.raises(InputError, match="the model's scores are not finite numbers: its weights are damaged"):
            model.generate(["Lily"], Sampling(temperature=temperature))


def test_drawing_follows_the_probabilities() -> None:
    p = np.array([[0.0, 0.5, 0.0, 0.3, 0.2, 0.0]])
    random = np.random.default_rng(0)
    drawn = [draw(p, [random])[0] for _ in range(4000)]
    frequencies = np.bincount(drawn, minlength=6) / 4000
    assert not frequencies[[0, 2, 5]].any()
    assert np.abs(frequencies - p[0]).max() < 4 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"min_p": -0.5}, "min_p is -0.5"),
        ({"min_p": 2.0}, "min_p is 2.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**options)


# --- Generation ---


def naive(teller: TorchStoryteller, prompt: str, length: int, iterations: int | None = None) -> str:
    """Greedy decoding of one prompt without a cache, by the stated rule for a full context."""
    context = teller.model.config.context
    prompted = [1, *teller.tokenizer.encode(prompt)]
    window, new = prompted, []
    while len(new) < length:
        if len(window) >= context:
            window = window[-max(1, context // 2) :]
        token = int(teller.model(torch.tensor([window]), iterations=iterations).logits[0, -1].argmax())
        if token in (1, 2):
            break
        new.append(token)
        window = [*window, token]
    before = teller.tokenizer.decode(prompted)
    return teller.tokenizer.decode([*prompted, *new]).removeprefix(before)


@pytest.mark.parametrize(("shape", "iterations"), [("2", None), ("1^3", None), ("1+(2)^2", 4)])
def test_a_batch_gives_what_a_plain_loop_gives(shape: str, iterations: int | None) -> None:
    own = teller(shape)
    texts = own.generate(PROMPTS, GREEDY, iterations=iterations)
    assert texts == [naive(own, prompt, 12, iterations) for prompt in PROMPTS]


@pytest.mark.parametrize("context", [2, 3, 16, 17])
def test_a_full_context_forgets_its_older_half(context: int) -> None:
    own = teller(context=context)
    prompts = [*PROMPTS, TEXT]
    assert len(TOKENIZER.encode(TEXT)) > 2 * context
    texts = own.generate(prompts, replace(GREEDY, max_tokens=40))
    assert texts == [naive(own, prompt, 40) for prompt in prompts]


def test_a_context_of_one_token_goes_on() -> None:
    own = teller(context=1)
    assert own.generate(["Lily"], GREEDY) == [naive(own, "Lily", 12)]


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from([*PROMPTS, TEXT]), min_size=1, max_size=4, unique=True),
    st.sampled_from([Sampling(), Sampling(temperature=0.8, top_k=20), Sampling(top_p=0.9, min_p=0.01)]),
    st.integers(0, 5),
)
def test_a_text_does_not_depend_on_its_neighbours(prompts: list[str], sampling: Sampling, seed: int) -> None:
    own = teller(context=24)
    sampling = replace(sampling, seed=seed, max_tokens=20)
    assert own.generate(prompts, sampling) == [own.generate([prompt], sampling)[0] for prompt in prompts]


def test_seeds_decide() -> None:
    own = teller()
    texts = [own.generate(["Lily"], Sampling(seed=seed, max_tokens=20))[0] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_the_same_prompt_gets_another_completion_each_time() -> None:
    own, sampling = teller(), Sampling(max_tokens=20)
    texts = own.generate(["Lily", "Ben", "Lily", "Lily"], sampling)
    assert len(set(texts)) == 4
    assert [texts[0], texts[2]] == own.generate(["Lily", "Lily"], sampling)
    assert texts[0] == own.generate(["Lily"], sampling)[0]
    apart = {2: "", 1: ""}
    for token in own.write(["Lily", "Ben", "Lily", "Lily"], sampling, rows=[2, 1]):
        apart[token.row] += token.text
    assert apart == {2: texts[2], 1: texts[1]}, "a part of the prompts is completed as with all of them"


@pytest.mark.parametrize("prompt", [*PROMPTS, TEXT])
def test_a_stream_adds_up_to_the_text(prompt: str) -> None:
    own, sampling = teller(context=24), Sampling(max_tokens=30, seed=3)
    assert "".join(own.stream(prompt, sampling)) == own.generate([prompt], sampling)[0]


def test_options_left_out_are_the_defaults() -> None:
    own = teller(context=16)
    assert own.generate(["Lily"]) == own.generate(["Lily"], Sampling())
    assert "".join(own.stream("Lily")) == own.generate(["Lily"])[0]


def test_spaces_at_the_end_of_a_prompt_are_dropped() -> None:
    own = teller()
    assert own.generate(["Lily and  "], GREEDY) == own.generate(["Lily and"], GREEDY)


def test_no_prompts_no_texts() -> None:
    assert teller().generate([]) == []


def chain(successor: Callable[[int], int]) -> TorchStoryteller:
    """A model whose next token is always ``successor(token)``, whatever came before."""
    size = TOKENIZER.vocab_size
    model = tiny("1", dim=size, heads=1, vocab_size=size, tied=False, context=32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0 if parameter.ndim == 1 else 0.0)
        model.embedding.weight.copy_(torch.eye(size))
        for token in range(size):
            model.head.weight[successor(token), token] = 100.0
    return TorchStoryteller(model, TOKENIZER)


def steps(tokens: list[int]) -> Callable[[int], int]:
    """Each of ``tokens`` follows the one before it; any other token is followed by BOS."""
    following = dict(pairwise(tokens))
    return lambda token: following.get(token, 1)


@pytest.mark.parametrize("end", [1, 2])
def test_a_story_ends_where_the_next_begins(end: int) -> None:
    tokens = TOKENIZER.encode("big toy")
    own = chain(steps([*tokens, end, tokens[0]]))
    assert len(tokens) == len(set(tokens)) > 2
    # The prompts are at different places of the chain, so rows leave the batch one by one.
    prompts = [TOKENIZER.decode(tokens[:count]) for count in (1, 2, 3, len(tokens))]
    assert own.generate(prompts, GREEDY) == ["big toy".removeprefix(prompt) for prompt in prompts]
    assert own.generate(prompts) == own.generate(prompts, GREEDY)


def test_texts_stay_the_same_when_others_end() -> None:
    own = teller(tied=False)
    with torch.no_grad():
        own.model.head.weight[1] *= 5  # So that the end comes soon, and at another time for each.
    sampling = Sampling(max_tokens=30)
    texts = own.generate(PROMPTS, sampling)
    assert len({len(text) for text in texts}) > 2
    assert texts == [own.generate([prompt], sampling)[0] for prompt in PROMPTS]


def test_no_more_than_max_tokens() -> None:
    letter = TOKENIZER.pieces.index("e")
    own = chain(lambda _: letter)
    for most in (1, 5, 31, 32, 33, 100):
        assert own.generate(["th", ""], Sampling(max_tokens=most)) == ["e" * most] * 2


def test_half_a_character_at_the_end_is_marked() -> None:
    letter, *euro = TOKENIZER.pieces.index("e"), *TOKENIZER.encode("€")[-3:]
    own = chain(steps([letter, *euro]))
    assert own.generate(["e"], Sampling(max_tokens=3)) == ["€"]
    assert list(own.stream("e", Sampling(max_tokens=3))) == ["", "", "€"]
    assert own.generate(["e"], Sampling(max_tokens=2)) == ["\ufffd"]
    events = list(own.write(["e"], Sampling(max_tokens=5)))
    assert [(token.id, token.text, token.finish) for token in events] == [
        (euro[0], "", None),
        (euro[1], "", None),
        (euro[2], "€", None),
        (1, "", "end"),
    ]
    assert {(token.row, token.passes) for token in events} == {(0, (1,))}
    assert [token.finish for token in own.write(["e"], Sampling(max_tokens=2))] == [None, "length"]


# --- Loading ---


def test_a_saved_model_tells_the_same_story(tmp_path: Path) -> None:
    model = tiny(vocab_size=TOKENIZER.vocab_size)
    save_model(model, tmp_path)
    TOKENIZER.save(tmp_path / "tokenizer.json")
    expected = TorchStoryteller(model, TOKENIZER).generate(["Lily"], GREEDY)
    assert frailt.load(str(tmp_path)).generate(["Lily"], GREEDY) == expected
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tokenizer.json").rename(tmp_path / "elsewhere" / "own.json")
    assert frailt.load(tmp_path, tokenizer=tmp_path / "elsewhere" / "own.json").generate(["Lily"], GREEDY) == expected


def test_a_model_needs_its_own_tokenizer(tmp_path: Path) -> None:
    save_model(tiny(vocab_size=TOKENIZER.vocab_size + 2), tmp_path)
    with pytest.raises(InputError, match="holds no tokenizer"):
        TorchStoryteller.load(tmp_path)
    TOKENIZER.save(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"vocabulary of 302, its tokenizer 300.*--tokenizer"):
        TorchStoryteller.load(tmp_path)
    with pytest.raises(InputError, match="holds no model"):
        TorchStoryteller.load(tmp_path / "nowhere")


@needs_shared
def test_stories260k_tells_a_story_with_the_tokenizer_beside_it() -> None:
    file = TOK512 / "stories260K.bin"
    for own in (frailt.load(file), TorchStoryteller.load(file)):
        text = own.generate(["Once upon a time"], Sampling(temperature=0, max_tokens=60))[0]
        assert text.startswith(", there was a little girl named Lily.")
