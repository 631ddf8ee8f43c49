"""Losses against a plain loop over windows, and what a pass changes by its definition."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from models import random_tokens, tiny
from numpy.typing import NDArray
from torch import Tensor

from frailt.data.tokenizer import Tokenizer
from frailt.errors import InputError
from frailt.evaluation.loss import Loss, pass_losses, stream_loss, token_losses
from frailt.evaluation.text import encode_text
from frailt.model.frailt import FraiLT

CONTEXT = 12


def model_of(shape: str) -> FraiLT:
    return tiny(shape, context=CONTEXT)


def stream(length: int) -> NDArray[np.uint16]:
    return random_tokens(length).numpy().astype(np.uint16)


def windows(tokens: NDArray[np.uint16]) -> list[tuple[Tensor, Tensor]]:
    """Window after window: the tokens read, and for each of them the one after it."""
    ids = torch.from_numpy(tokens.astype(np.int64))
    starts = range(0, len(ids) - 1, CONTEXT)
    return [(ids[i : i + CONTEXT][: len(ids) - 1 - i], ids[i + 1 : i + 1 + CONTEXT]) for i in starts]


def predictions(model: FraiLT, x: Tensor, passes: int | None = None) -> Tensor:
    return model(x[None], iterations=passes).logits[0].double().log_softmax(1)


@pytest.mark.parametrize("length", [2, 5, CONTEXT, CONTEXT + 1, CONTEXT + 2, 3 * CONTEXT, 5 * CONTEXT + 6])
@pytest.mark.parametrize("passes", [None, 1, 4])
def test_each_token_but_the_first_is_scored_once(length: int, passes: int | None) -> None:
    model, tokens = model_of("1^2"), stream(length)
    losses = token_losses(model, tokens, iterations=passes, batch=2)
    assert losses.shape == (length - 1,)
    assert losses.dtype == np.float64
    expected = [-predictions(model, x, passes)[range(len(y)), y] for x, y in windows(tokens)]
    np.testing.assert_allclose(losses, torch.cat(expected).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_batch_does_not_change_the_result(batch: int) -> None:
    model, tokens = model_of("2^2"), stream(5 * CONTEXT + 6)
    np.testing.assert_allclose(
        token_losses(model, tokens, batch=batch), token_losses(model, tokens), rtol=1e-5, atol=1e-5
    )


def test_a_window_does_not_see_the_one_before() -> None:
    model, tokens = model_of("1^2"), stream(3 * CONTEXT)
    other = tokens.copy()
    other[:CONTEXT] = (other[:CONTEXT] + 1) % 40
    np.testing.assert_allclose(token_losses(model, tokens)[CONTEXT:], token_losses(model, other)[CONTEXT:], rtol=1e-6)


def test_loss_in_nats_per_token_and_bits_per_byte() -> None:
    loss = Loss(nats=6.0, tokens=4, bytes=10)
    assert loss.nats_per_token == 1.5
    assert loss.bits_per_byte == pytest.approx(6 / math.log(2) / 10)
    model, tokens = model_of("1^2"), stream(31)
    loss = stream_loss(model, tokens, text_bytes=77)
    assert (loss.tokens, loss.bytes) == (30, 77)
    assert loss.nats == pytest.approx(token_losses(model, tokens).sum())
    assert stream_loss(model, tokens, text_bytes=77, iterations=5, batch=1).nats == pytest.approx(
        token_losses(model, tokens, iterations=5).sum()
    )


@pytest.mark.parametrize("shape", ["1^3", "2^3", "1+(2)^3+1"])
def test_each_number_of_passes_has_its_own_loss(shape: str) -> None:
    model, tokens = model_of(shape), stream(4 * CONTEXT + 5)
    found = pass_losses(model, tokens, most=5, text_bytes=100, batch=3)
    assert [each.passes for each in found] == [1, 2, 3, 4, 5]
    for each in found:
        expected = stream_loss(model, tokens, text_bytes=100, iterations=each.passes)
        assert each.loss.nats == pytest.approx(expected.nats)
        assert (each.loss.tokens, each.loss.bytes) == (expected.tokens, 100)
    assert found[2].loss.nats == pytest.approx(stream_loss(model, tokens, text_bytes=100).nats)


@pytest.mark.parametrize("shape", ["1^3", "2^3", "1+(2)^3+1"])
def test_change_and_divergence_by_their_definitions(shape: str) -> None:
    model, tokens = model_of(shape), stream(4 * CONTEXT + 5)
    found = pass_losses(model, tokens, most=4, text_bytes=1, batch=2)
    assert found[0].change is None
    assert found[0].divergence is None
    for p in (2, 3, 4):
        changes, divergences = [], []
        for x, _ in windows(tokens):
            now, before = (model(x[None], iterations=m).states[-1][-1][0].double() for m in (p, p - 1))
            changes += (torch.linalg.norm(now - before, dim=1) / torch.linalg.norm(now, dim=1)).tolist()
            now, before = (predictions(model, x, m) for m in (p, p - 1))
            divergences += (now.exp() * (now - before)).sum(1).tolist()
        assert len(changes) == len(tokens) - 1
        assert found[p - 1].change == pytest.approx(np.mean(changes), rel=1e-4)
        assert found[p - 1].divergence == pytest.approx(np.mean(divergences), rel=1e-4)


def test_a_pass_that_changes_nothing() -> None:
    model = tiny("1^3", context=CONTEXT, encoding="none")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("wo.weight", "w2.weight")):
                parameter.zero_()
    for each in pass_losses(model, stream(30), most=3, text_bytes=1)[1:]:
        assert each.change == 0
        assert each.divergence == pytest.approx(0, abs=1e-7)


def test_text_becomes_a_stream_of_stories(tmp_path: Path) -> None:
    stories = ["Lily saw a café.", "Ben ran home."]
    files = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for file, story in zip(files, stories, strict=True):
        file.write_text(f"\n{story}\n<|endoftext|>\n", encoding="utf-8")
    tokenizer = Tokenizer.train(stories, vocab_size=280)
    tokens, size = encode_text(files, tokenizer)
    assert tokens.tolist() == [1, *tokenizer.encode(stories[0]), 1, *tokenizer.encode(stories[1])]
    assert size == len("".join(stories).encode())


def test_text_without_a_story_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n<|endoftext|>\n\n")
    with pytest.raises(InputError, match=r"empty\.txt holds no story"):
        encode_text([tmp_path / "empty.txt"], Tokenizer.train(["A story."], vocab_size=280))


@pytest.mark.parametrize(("shape", "calls"), [("1^3", 1), ("2+(2)^2", 1), ("1^2+1", 4), ("2^2", 4)])
def test_one_forward_pass_gives_all_numbers_of_passes_where_the_last_group_alone_is_looped(
    shape: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokens = model_of(shape), stream(CONTEXT)
    one_by_one = [stream_loss(model, tokens, text_bytes=1, iterations=p).nats for p in range(1, 5)]
    forward, made = FraiLT.forward, []
    monkeypatch.setattr(FraiLT, "forward", lambda *args, **options: (made.append(1), forward(*args, **options))[1])
    found = pass_losses(model, tokens, most=4, text_bytes=1)
    assert [loss.loss.nats for loss in found] == pytest.approx(one_by_one, rel=1e-6)
    assert len(made) == calls
