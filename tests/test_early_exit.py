"""Early exit: tokens that leave their passes when they have converged, and what the cache holds for the rest."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import GREEDY, PROMPTS, TEXT, TOKENIZER, random_tokens, round_as, stored, teller, tiny

from frailt.errors import InputError
from frailt.inference.cpu import decoder as compiled_decoder
from frailt.inference.cpu.decoder import CompiledDecoder, CompiledStoryteller
from frailt.inference.cpu.kernels import SCORE
from frailt.inference.cpu.packing import Weights, pack
from frailt.inference.exit_rule import EarlyExit
from frailt.inference.exit_torch import step
from frailt.inference.generation import Decoder
from frailt.inference.sampling import Sampling
from frailt.inference.torch_decoder import TorchDecoder
from frailt.model.attention import View, rotary_angles, rotate
from frailt.model.cache import Cache
from frailt.model.frailt import Block, FraiLT
from frailt.model.shape import Shape

RULES = ["l2:0.4", "l2:0.35:3", "kl:0.03"]
"""With these, tokens of small random models leave after different passes."""
SHAPES = ["1^6", "(2)^5", "2^4", "1+(2)^4+1"]
ALWAYS, NEVER = "l2:1000", "l2:1e-30"


def read_on(decoder: Decoder, tokens: torch.Tensor, prompt: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``(time, batch, vocab)`` and passes ``(time, batch, groups)`` of the tokens after the prompt."""
    decoder.add(tokens[:, :prompt].tolist())
    scores, passes = [], []
    for column in tokens[:, prompt:].T.tolist():
        scores.append(decoder.step(column))
        passes.append(np.array(decoder.passes))
    return np.stack(scores), np.stack(passes)


# The rule, written once more: one text, no batch, no slots


class Naive:
    """One text in plain words. Keys and values are lists by (group, pass, block)."""

    def __init__(self, model: FraiLT, rule: EarlyExit) -> None:
        self.model, self.rule = model, rule
        self.lists: dict[tuple[int, int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.length = 0

    def read(self, token: int, *, early: bool) -> tuple[torch.Tensor, list[int]]:
        """Scores of the next token, and the passes through each group."""
        model, groups = self.model, Shape.parse(self.model.config.shape).groups
        several = [n for n, group in enumerate(groups) if group.iterations > 1]
        head = model.config.dim // model.config.heads
        view = View(*rotary_angles(torch.tensor([[self.length]]), head, model.config.rope_theta), None)
        x, done = model.embedding.weight[token], []
        for n, shape in enumerate(groups):
            blocks: Any = model.groups[n].blocks
            before, left = None, None
            for m in range(1, shape.iterations + 1):
                if left is not None:
                    for l in range(len(blocks)):  # noqa: E741
                        self.lists.setdefault((n, m, l), []).append(self.lists[n, left, l][-1])
                    continue
                for l, block in enumerate(blocks):  # noqa: E741
                    x = self.block(block, x, (n, m, l), view)
                may = early and (n in several if self.rule.criterion == "l2" else n == several[-1])
                if may and before is not None and m >= self.rule.least and self.change(before, x) < self.rule.threshold:
                    left = m
                before = x
            done.append(left or shape.iterations)
        self.length += 1
        return model.head(model.norm(x)), done

    def block(self, block: Block, x: torch.Tensor, key: tuple[int, int, int], view: View) -> torch.Tensor:
        a = block.attention
        x = block.encoding(x[None, None], key[1])[0, 0] if block.encoding is not None else x
        normal = block.attention_norm(x)
        q = rotate(a.wq(normal).view(1, a.heads, 1, a.head_dim), view)[0, :, 0]
        k = rotate(a.wk(normal).view(1, a.kv_heads, 1, a.head_dim), view)[0, :, 0]
        own = self.lists.setdefault(key, [])
        own.append((k, a.wv(normal).view(a.kv_heads, a.head_dim)))
        heads = []
        for h in range(a.heads):
            g = h * a.kv_heads // a.heads
            weights = torch.stack([q[h] @ k[g] for k, _ in own]).div(a.head_dim**0.5).softmax(0)
            heads.append(sum(w * v[g] for w, (_, v) in zip(weights, own, strict=True)))
        x = x + a.wo(torch.cat(heads))
        f = block.feed_forward
        normal = block.feed_forward_norm(x)
        return x + f.w2(F.silu(f.w1(normal)) * f.w3(normal))

    def change(self, before: torch.Tensor, now: torch.Tensor) -> float:
        if self.rule.criterion == "l2":
            return float(torch.linalg.norm(now - before) / torch.linalg.norm(now))
        p, q = (self.model.head(self.model.norm(x)).softmax(0) for x in (now, before))
        return float((p * (p / q).log()).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", RULES)
def test_a_batch_gives_what_each_text_alone_would_give(shape: str, text: str) -> None:
    model, tokens, rule = tiny(shape, double=True, kv_heads=1), random_tokens(6, 14), EarlyExit.parse(text)
    with torch.inference_mode():
        scores, passes = read_on(TorchDecoder(model, None, rule), tokens, prompt=3)
        for row in range(len(tokens)):
            naive = Naive(model, rule)
            for at, token in enumerate(tokens[row].tolist()):
                own, done = naive.read(token, early=at >= 3)
                if at >= 3:
                    assert passes[at - 3, row].tolist() == done
                    # The model gives float32.
                    np.testing.assert_allclose(scores[at - 3, row], own.numpy(), rtol=0, atol=1e-5)
    assert max(len(np.unique(group)) for group in passes.T) > 1, "not all leave after the same pass"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", RULES)
@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_code_gives_what_torch_gives(shape: str, text: str, threads: int) -> None:
    model, rule = tiny(shape, dim=40, heads=4, kv_heads=2, vocab_size=41), EarlyExit.parse(text)
    tokens = random_tokens(5, 20)
    scores, passes = read_on(TorchDecoder(model, None, rule), tokens)
    own, done = read_on(CompiledDecoder(pack(stored(model)), None, rule, threads=threads), tokens)
    assert np.array_equal(done, passes)
    assert max(len(np.unique(group)) for group in passes.T) > 1, "not all leave after the same pass"
    np.testing.assert_allclose(own, scores, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", get_args(Weights)[1:])
def test_compiled_code_copies_keys_and_values_of_every_kind(kind: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tokens leave at once but the last, which does all passes and so attends to nothing but copies in most."""
    model, tokens = tiny("1^6", dim=48, heads=4, kv_heads=2), random_tokens(1, 20)
    decoder = CompiledDecoder(pack(stored(model), kind), None, EarlyExit.parse(ALWAYS), threads=1)
    round_as(model, kind, monkeypatch)
    decoder.add(tokens[:, :1].tolist())
    for token in tokens[0, 1:19].tolist():
        decoder.step([token])
    cache = Cache(20)
    with torch.inference_mode():
        model(tokens[:, :1], cache)
        for token in tokens[0, 1:19]:
            step(model, token[None], cache, EarlyExit.parse(ALWAYS))
        expected = model(tokens[:, 19:], cache).logits[0].numpy()
    # The last token is read as a prompt is: with all passes.
    monkeypatch.setattr(compiled_decoder, "STEP", SCORE)
    own = decoder.step(tokens[0, 19:].tolist())
    np.testing.assert_allclose(own, expected, rtol=0, atol=0.02 if kind == "int8" else 1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", ["l2:0", "kl:0", NEVER, "kl:1e-30"])
def test_who_never_leaves_takes_the_plain_path_bit_for_bit(shape: str, text: str) -> None:
    model, tokens, rule = tiny(shape), random_tokens(4, 12), EarlyExit.parse(text)
    packed = pack(stored(model))
    for plain, decoder in (
        (TorchDecoder(model), TorchDecoder(model, None, rule)),
        (CompiledDecoder(packed, threads=1), CompiledDecoder(packed, None, rule, threads=1)),
    ):
        scores, passes = read_on(decoder, tokens)
        expected, all_passes = read_on(plain, tokens)
        assert np.array_equal(scores, expected)
        assert np.array_equal(passes, all_passes)
        assert (passes == Shape.parse(shape).passes(None)).all()


# What the cache holds


def slots_after(shape: str, rule: str) -> tuple[FraiLT, Cache, torch.Tensor]:
    """A model, its cache after a prompt of two tokens and one more, and the passes that this one did."""
    model, cache = tiny(shape, double=True), Cache(8)
    tokens = random_tokens(40, 3)
    with torch.inference_mode():
        model(tokens[:, :2], cache)
        passes = step(model, tokens[:, 2], cache, EarlyExit.parse(rule)).passes
    return model, cache, passes


@pytest.mark.parametrize("shape", ["1^6", "(2)^5"])
def test_skipped_slots_hold_keys_and_values_of_the_last_pass_done(shape: str) -> None:
    model, cache, passes = slots_after(shape, "l2:0.4")
    most = int(Shape.parse(shape).passes(None)[0])
    left = passes[:, 0].tolist()
    assert len(set(left)) > 1
    assert min(left) < most
    for (_, m, block), slot in cache.slots.items():
        assert slot.length == cache.length == 3
        for row, p in enumerate(left):
            last = cache.slots[(0, p, block)]
            for own, kept in zip(slot.buffer, last.buffer, strict=True):
                assert torch.equal(own[row, :, 2], kept[row, :, 2]) == (m >= p), (m, p)
    assert len(cache.slots) == most * len(model.groups[0].blocks)  # pyright: ignore[reportArgumentType]


def test_a_later_token_that_goes_deeper_attends_to_them() -> None:
    model, cache, passes = slots_after("1^6", "l2:0.4")
    row = int(passes[:, 0].argmin())
    p = int(passes[row, 0])
    assert p < 6
    next_tokens = torch.full((40,), 7)
    with torch.inference_mode():
        other = deepcopy(cache)
        other.slots[(0, p + 1, 0)].buffer[1, row, :, 2] += 1
        deep = [step(model, next_tokens, c, EarlyExit.parse(NEVER)).logits for c in (cache, other)]
    moved = (deep[0] - deep[1]).abs().amax(1) > 1e-3
    assert moved.tolist() == [n == row for n in range(40)]


def test_finished_rows_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = tiny("1+(2)^5"), random_tokens(8, 9)
    computed: list[tuple[int, int]] = []
    forward = Block.forward

    def counted(self: Block, x: torch.Tensor, m: int, *rest: Any) -> torch.Tensor:
        if self.encoding is not None:
            computed.append((m, len(x)))
        return forward(self, x, m, *rest)

    decoder = TorchDecoder(model, None, EarlyExit.parse("l2:0.45"))
    decoder.add(tokens[:, :1].tolist())
    monkeypatch.setattr(Block, "forward", counted)
    for column in tokens[:, 1:].T.tolist():
        computed.clear()
        decoder.step(column)
        passes = np.array(decoder.passes)[:, 1]
        going = [(m, int((passes >= m).sum())) for m in range(1, 6) for _ in range(2)]
        assert computed == [(m, rows) for m, rows in going if rows]


# Who leaves when


@pytest.mark.parametrize("maker", ["torch", "compiled"])
def test_groups_that_may_be_left(maker: str) -> None:
    model, tokens = tiny("1+2^4+1"), random_tokens(3, 4)
    packed = pack(stored(model))

    def passes(rule: str, iterations: Any = None) -> list[list[int]]:
        own = EarlyExit.parse(rule)
        new = TorchDecoder(model, iterations, own) if maker == "torch" else CompiledDecoder(packed, iterations, own)
        found = read_on(new, tokens)[1].reshape(-1, 4)
        new.select([])
        new.add(tokens[:, :1].tolist())
        assert new.passes == [(1, *[iterations or 4] * 2, 1)] * 3
        return np.unique(found, axis=0).tolist()

    assert passes(ALWAYS) == [[1, 2, 2, 1]]
    assert passes("l2:1000:3") == [[1, 3, 3, 1]]
    assert passes("l2:1000:4") == [[1, 4, 4, 1]]
    assert passes("l2:1000:9") == [[1, 4, 4, 1]]
    assert passes("kl:1000") == [[1, 4, 2, 1]], "the head is not made for earlier groups"
    assert passes(ALWAYS, 7) == [[1, 2, 2, 1]]
    assert passes(ALWAYS, 2) == [[1, 2, 2, 1]]
    assert passes(NEVER, 7) == [[1, 7, 7, 1]]


def test_threshold_zero_does_not_even_look() -> None:
    """A KL of equal predictions may be rounded to less than 0."""
    for criterion in ("l2", "kl"):
        assert EarlyExit(criterion=criterion, threshold=0).groups(Shape.parse("1^8"), (8,)) == (False,)
        assert EarlyExit(criterion=criterion, threshold=1e-9).groups(Shape.parse("1^8"), (8,)) == (True,)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("l2:0.05", EarlyExit(threshold=0.05)),
        ("kl:1e-3", EarlyExit(criterion="kl", threshold=0.001)),
        ("l2:0.1:4", EarlyExit(threshold=0.1, least=4)),
    ],
)
def test_rules_as_text(text: str, rule: EarlyExit) -> None:
    assert EarlyExit.parse(text) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "exit '' is not understood; write l2:0.05"),
        ("l2", "exit 'l2' is not understood"),
        ("0.05", "exit '0.05' is not understood"),
        ("l2:", "exit 'l2:' is not understood"),
        ("l2:0.1:2:3", "exit 'l2:0.1:2:3' is not understood"),
        ("l2:0.1:2.5", "exit 'l2:0.1:2.5' is not understood"),
        ("cos:0.1", "exit 'cos:0.1' is not understood"),
        ("l2:-1", "exit 'l2:-1' is not understood"),
        ("l2:nan", "exit 'l2:nan' is not understood"),
        ("l2:inf", "exit 'l2:inf' is not understood"),
        ("l2:0.1:1", "least passes before an exit are 1; they must be at least 2"),
    ],
)
def test_impossible_rules_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EarlyExit.parse(text)


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf")])
def test_impossible_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(InputError, match=r"exit threshold is .*; it must be at least 0 and finite"):
        EarlyExit(threshold=threshold)


def test_a_model_of_one_pass_is_refused_before_it_reads() -> None:
    model = tiny("1^1+2")
    for new in (
        lambda rule: TorchDecoder(model, None, rule),
        lambda rule: CompiledDecoder(pack(stored(model)), None, rule),
    ):
        with pytest.raises(InputError, match=r"shape 1\^1\+2 has only one pass; leave out the early exit"):
            new(EarlyExit.parse("l2:0.1"))


# Stories


@pytest.mark.parametrize("text", RULES)
def test_a_text_does_not_depend_on_its_neighbours(text: str) -> None:
    """Prompts of different lengths, so with padding; texts that end at different times; a context that fills up."""
    own = teller("1+1^5", context=24)
    with torch.no_grad():
        own.model.embedding.weight[1] *= 3  # So that the end comes soon for some.
    rule, sampling = EarlyExit.parse(text), Sampling(max_tokens=30)
    prompts = [*PROMPTS, TEXT]
    texts = own.generate(prompts, sampling, early_exit=rule)
    assert texts == [own.generate([prompt], sampling, early_exit=rule)[0] for prompt in prompts]
    assert texts != own.generate(prompts, sampling)
    assert "".join(own.stream("One day", sampling, early_exit=rule)) == texts[3]


def test_stories_without_exits_are_the_plain_ones() -> None:
    own = teller("2^3", context=24)
    sampling = replace(GREEDY, max_tokens=30)
    for rule in ("l2:0", NEVER):
        assert own.generate(PROMPTS, sampling, early_exit=EarlyExit.parse(rule)) == own.generate(PROMPTS, sampling)


@pytest.mark.parametrize("text", RULES)
def test_compiled_stories_are_those_of_torch(text: str) -> None:
    slow = teller("1+(2)^4", context=24)
    fast = CompiledStoryteller(pack(stored(slow.model.float())), TOKENIZER)
    rule, sampling = EarlyExit.parse(text), Sampling(max_tokens=30, seed=2)
    texts = fast.generate(PROMPTS, sampling, early_exit=rule)
    assert texts == slow.generate(PROMPTS, sampling, early_exit=rule)
