"""The model: its equation against a plain loop, and what must be equal, whatever the shape."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, assert_never

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_tokens, tiny
from torch import Tensor
from torch.testing import assert_close

from frailt.errors import InputError
from frailt.model.attention import attend, repeat_heads
from frailt.model.cache import Cache
from frailt.model.config import ModelConfig
from frailt.model.frailt import FraiLT
from frailt.model.operations import Encode, Transform, operations

SHAPES = ["3", "1^1", "1^4", "2^3", "(2)^3", "1+(2)^2+1", "1^2+2"]
shapes = st.sampled_from(SHAPES)


def reference(model: FraiLT, tokens: Tensor, passes: tuple[int, ...], encoding: Callable[[int, int], Tensor]) -> Tensor:
    """The model for one sequence in float64, its operations one by one.

    ``encoding``: E of a block (counted through all groups) in pass m.
    """
    config = model.config
    w = {name: p.detach().double() for name, p in model.named_parameters()}
    time, heads, kv_heads, width = (
        len(tokens),
        config.heads,
        config.key_value_heads,
        config.dim // config.heads,
    )
    turns = torch.outer(torch.arange(time).double(), config.rope_theta ** (-torch.arange(0, width, 2).double() / width))

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + config.norm_eps) * gain

    def rotate(x: Tensor) -> Tensor:
        """One head (time, width): numbers i and i + width/2 are a complex number, turned by its angle."""
        turned = torch.complex(x[:, : width // 2], x[:, width // 2 :]) * torch.polar(torch.ones_like(turns), turns)
        return torch.cat((turned.real, turned.imag), dim=1)

    def block(x: Tensor, prefix: str) -> Tensor:
        def project(y: Tensor, name: str) -> Tensor:
            return y @ w[f"{prefix}.{name}.weight"].T

        y = norm(x, w[f"{prefix}.attention_norm.weight"])
        q, k, v = (project(y, f"attention.{name}").split(width, dim=1) for name in ("wq", "wk", "wv"))
        attended = []
        for h in range(heads):
            g = h // (heads // kv_heads)
            scores = rotate(q[h]) @ rotate(k[g]).T / math.sqrt(width)
            later = torch.ones(time, time).triu(1).bool()
            attended.append(scores.masked_fill(later, -math.inf).softmax(1) @ v[g])
        x = x + project(torch.cat(attended, dim=1), "attention.wo")
        y = norm(x, w[f"{prefix}.feed_forward_norm.weight"])
        gate = project(y, "feed_forward.w1")
        return x + project(gate * torch.sigmoid(gate) * project(y, "feed_forward.w3"), "feed_forward.w2")

    x = w["embedding.weight"][tokens]
    names = prefixes(config)
    for operation in operations(config, passes):
        match operation:
            case Encode(l, m):
                x = x + encoding(l, m)
            case Transform(l, _):
                x = block(x, names[l])
            case _:
                assert_never(operation)
    return norm(x, w["norm.weight"]) @ w["embedding.weight" if config.tied else "head.weight"].T


def prefixes(config: ModelConfig) -> list[str]:
    """The names of all blocks, in order."""
    return [f"groups.{n}.blocks.{l}" for n, group in enumerate(config.groups) for l in range(group.blocks)]  # noqa: E741


def learned(model: FraiLT) -> Callable[[int, int], Tensor]:
    """The model's own tables as ``reference`` takes them; past M the last vector again."""
    names, tensors = prefixes(model.config), dict(model.named_parameters())
    tables = [tensors.get(f"{name}.encoding.table") for name in names]

    def encoding(block: int, m: int) -> Tensor:
        table = tables[block]
        assert table is not None
        return table.detach().double()[min(m, len(table)) - 1]

    return encoding


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"kv_heads": 1, "tied": False}, {"dim": 48, "rope_theta": 100.0, "norm_eps": 0.1}]
)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_equation(shape: str, options: dict[str, Any], double: bool) -> None:
    model = tiny(shape, double=double, **options)
    tokens = random_tokens(11)
    logits = model(tokens[None]).logits[0]
    expected = reference(model, tokens, model.config.passes(), learned(model))
    assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)


def test_sinusoidal_encodings_follow_their_formula_past_the_trained_passes() -> None:
    model = tiny("(2)^3", encoding="sinusoidal")
    tokens = random_tokens(9)

    def encoding(_: int, m: int) -> Tensor:
        angles = [m / 10000 ** (2 * i / 16) for i in range(8)]
        return 0.02 * math.sqrt(2) * torch.tensor([f(a) for a in angles for f in (math.sin, math.cos)]).double()

    for passes in (1, 3, 5):
        logits = model(tokens[None], iterations=passes).logits[0]
        assert_close(logits.double(), reference(model, tokens, (passes,), encoding), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "iterations", "passes"),
    [
        ("2^3", 5, (5, 5)),
        ("2^3", 1, (1, 1)),
        ("1+(2)^2+1", 4, (1, 4, 1)),
        ("2^3", (1, 6), (1, 6)),
        ("1+(2)^2+1", (2, 1, 1), (2, 1, 1)),
        ("1^1", 3, (1,)),
        ("1^1", (3,), (3,)),
        ("3", 7, (1,)),
    ],
)
def test_iterations_past_the_trained_ones_repeat_the_last_encoding(
    shape: str, iterations: int | tuple[int, ...], passes: tuple[int, ...]
) -> None:
    model = tiny(shape, double=True)
    tokens = random_tokens(9)
    output = model(tokens[None], iterations=iterations)
    expected = reference(model, tokens, passes, learned(model))
    assert_close(output.logits[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert tuple(len(states) for states in output.states) == passes


@pytest.mark.parametrize("iterations", [0, (2,), (2, 0), (1, 1, 1)])
def test_iterations_that_do_not_fit_are_refused(iterations: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="2 groups"):
        tiny("2^3")(random_tokens(1, 4), iterations=iterations)


@settings(max_examples=25)
@given(shapes, st.integers(1, 11), st.integers(0, 100))
def test_later_tokens_never_change_earlier_logits(shape: str, time: int, seed: int) -> None:
    model = tiny(shape)
    tokens = random_tokens(2, 12, seed=seed)
    changed = torch.cat((tokens[:, :time], random_tokens(2, 12 - time, seed=seed + 1)), dim=1)
    before, after = (model(rows).logits[:, :time] for rows in (tokens, changed))
    assert_close(before, after, rtol=0, atol=1e-6)


def test_earlier_tokens_do_change_later_logits() -> None:
    model = tiny("1^2")
    tokens = random_tokens(1, 12)
    changed = tokens.clone()
    changed[0, 0] = (tokens[0, 0] + 1) % 40
    difference = (model(tokens).logits - model(changed).logits).abs().amax(-1)
    assert (difference > 1e-3).all()


@settings(max_examples=40)
@given(shapes, st.lists(st.integers(1, 5), min_size=1, max_size=5), st.sampled_from([1, 2]), st.booleans())
def test_cached_and_uncached_logits_agree(shape: str, pieces: list[int], kv_heads: int, more: bool) -> None:
    model = tiny(shape, kv_heads=kv_heads).double()  # So that nothing but the final rounding to float32 is left.
    iterations = 3 if more else None
    tokens = random_tokens(2, sum(pieces))
    cache = Cache(sum(pieces))
    parts = [model(piece, cache, iterations) for piece in tokens.split(pieces, dim=1)]
    assert all(part.cache is cache for part in parts)
    assert cache.length == sum(pieces)
    together = torch.cat([part.logits for part in parts], dim=1)
    assert_close(together, model(tokens, iterations=iterations).logits, rtol=1e-6, atol=1e-6)


def test_a_cache_keeps_the_selected_sequences() -> None:
    model = tiny("2^2")
    tokens, cache = random_tokens(3, 8), Cache(8)
    model(tokens[:, :5], cache)
    cache.select([2, 0])
    logits = model(tokens[[2, 0], 5:], cache).logits
    assert_close(logits, model(tokens[[2, 0]]).logits[:, 5:], rtol=1e-5, atol=1e-5)


def test_a_cache_keeps_to_its_passes() -> None:
    model, cache = tiny("2^3"), Cache(10)
    tokens = random_tokens(1, 6)
    model(tokens[:, :3], cache, 2)
    for other in (None, 3, (2, 1)):
        with pytest.raises(InputError, match=r"read with \(2, 2\) passes"):
            model(tokens[:, 3:], cache, other)
    logits = model(tokens[:, 3:], cache, (2, 2)).logits
    assert_close(logits, model(tokens, iterations=2).logits[:, 3:], rtol=1e-5, atol=1e-5)


def test_a_full_cache_and_a_full_context_are_refused() -> None:
    model, cache = tiny("1^2"), Cache(6)
    model(random_tokens(1, 4), cache)
    with pytest.raises(InputError, match="holds 6 tokens and 7"):
        model(random_tokens(1, 3), cache)
    with pytest.raises(InputError, match="33 tokens are more than the model's context of 32"):
        model(random_tokens(1, 33))
    cache = Cache(100)
    model(random_tokens(1, 30), cache)
    with pytest.raises(InputError, match="33 tokens are more than the model's context of 32"):
        model(random_tokens(1, 3), cache)


paddings = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=4)


@settings(max_examples=40)
@given(shapes, paddings, st.sampled_from([1, 2]))
def test_padding_changes_nothing(shape: str, rows: list[tuple[int, int, int]], kv_heads: int) -> None:
    model = tiny(shape, kv_heads=kv_heads)
    time = max(map(sum, rows))
    tokens, real = random_tokens(len(rows), time), torch.zeros(len(rows), time, dtype=torch.bool)
    for row, (left, length, _) in enumerate(rows):
        real[row, left : left + length] = True
    logits = model(tokens, real=real).logits
    assert logits.isfinite().all()
    for row in range(len(rows)):
        alone = model(tokens[row][real[row]][None]).logits[0]
        assert_close(logits[row][real[row]], alone, rtol=1e-5, atol=1e-5)


@settings(max_examples=30)
@given(shapes, paddings, st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_padding_and_cache_together(shape: str, rows: list[tuple[int, int, int]], pieces: list[int]) -> None:
    model = tiny(shape)
    time, more = max(map(sum, rows)), sum(pieces)
    tokens, real = random_tokens(len(rows), time + more), torch.zeros(len(rows), time, dtype=torch.bool)
    for row, (left, length, _) in enumerate(rows):
        real[row, left : left + length] = True
    cache = Cache(32)
    model(tokens[:, :time], cache, real=real)
    logits = torch.cat([model(piece, cache).logits for piece in tokens[:, time:].split(pieces, dim=1)], dim=1)
    for row in range(len(rows)):
        alone = torch.cat((tokens[row, :time][real[row]], tokens[row, time:]))
        assert_close(logits[row], model(alone[None]).logits[0, -more:], rtol=1e-5, atol=1e-5)


def test_padding_may_come_after_unpadded_tokens() -> None:
    model, cache = tiny("1^3"), Cache(12)
    tokens = random_tokens(2, 9)
    real = torch.tensor([[True, True, True], [True, False, False]])
    model(tokens[:, :4], cache)
    model(tokens[:, 4:7], cache, real=real)
    logits = model(tokens[:, 7:], cache).logits
    assert_close(logits[0], model(tokens[:1]).logits[0, -2:], rtol=1e-5, atol=1e-5)
    second = tokens[1, [0, 1, 2, 3, 4, 7, 8]]
    assert_close(logits[1], model(second[None]).logits[0, -2:], rtol=1e-5, atol=1e-5)


def test_real_everywhere_is_no_padding() -> None:
    model, tokens = tiny("2^2"), random_tokens(2, 7)
    everywhere = torch.ones(2, 7, dtype=torch.bool)
    assert_close(model(tokens, real=everywhere).logits, model(tokens).logits, rtol=1e-5, atol=1e-5)


def stacked(model: FraiLT) -> FraiLT:
    """The standard model with a block for each pass, all copies of the shared ones."""
    own = dict(model.named_parameters())
    standard = FraiLT(replace(model.config, shape=str(model.config.depth)))
    order = [
        f"groups.{n}.blocks.{l}."
        for n, group in enumerate(model.config.groups)
        for _ in range(group.iterations)
        for l in range(group.blocks)  # noqa: E741
    ]
    with torch.no_grad():
        for name, parameter in standard.named_parameters():
            if name.startswith("groups."):
                _, _, _, place, rest = name.split(".", 4)
                name = order[int(place)] + rest
            parameter.copy_(own[name])
    return standard.eval()


@pytest.mark.parametrize("shape", ["1^1", "1^4", "2^3", "(2)^3", "1+(2)^2+1"])
def test_without_encodings_passes_are_stacked_blocks(shape: str) -> None:
    tokens = random_tokens(2, 9)
    without = tiny(shape, encoding="none")
    assert not any("encoding" in name for name, _ in without.named_parameters())
    assert_close(without(tokens).logits, stacked(without).eval()(tokens).logits, rtol=1e-5, atol=1e-5)
    zeroed = tiny(shape)
    assert (zeroed(tokens).logits - stacked(zeroed)(tokens).logits).abs().max() > 1e-3
    with torch.no_grad():
        for name, parameter in zeroed.named_parameters():
            if "encoding" in name:
                parameter.zero_()
    assert_close(zeroed(tokens).logits, stacked(zeroed)(tokens).logits, rtol=1e-5, atol=1e-5)


def test_one_pass_without_encodings_is_the_plain_model() -> None:
    plain, looped = tiny("3"), tiny("(3)^1", encoding="none")
    assert plain.state_dict().keys() == looped.state_dict().keys()
    tokens = random_tokens(2, 9)
    assert torch.equal(plain(tokens).logits, looped(tokens).logits)


@pytest.mark.parametrize("form", ["1^{}", "3^{}", "(3)^{}", "1+(2)^{}"])
def test_only_encodings_grow_with_the_passes(form: str) -> None:
    sizes = {}
    for passes in (1, 2, 8):
        model = FraiLT(ModelConfig(shape=form.format(passes), dim=16, heads=2, vocab_size=40))
        sizes[passes] = {name: tuple(p.shape) for name, p in model.named_parameters()}
        tables = [shape for name, shape in sizes[passes].items() if "encoding" in name]
        assert tables == [(passes, 16)] * (model.config.depth // passes if "+" not in form else 2)
    for others in (sizes[2], sizes[8]):
        assert others.keys() == sizes[1].keys()
        assert all(others[name] == size for name, size in sizes[1].items() if "encoding" not in name)


def test_grouped_heads_are_repeated_heads() -> None:
    grouped, tokens = tiny("1^3", heads=4, kv_heads=2, dim=32), random_tokens(2, 9)
    full = tiny("1^3", heads=4, dim=32)
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            own = grouped.get_parameter(name)
            if name.endswith(("wk.weight", "wv.weight")):
                own = own.view(2, 8, 32).repeat_interleave(2, dim=0).view(32, 32)
            parameter.copy_(own)
    assert_close(grouped(tokens).logits, full(tokens).logits, rtol=1e-5, atol=1e-5)


def test_heads_can_be_repeated_before_attention() -> None:
    """What CUDA gets where a mask meets grouped heads."""
    q, k, v = (torch.randn(2, heads, 5, 8, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2))
    mask = torch.ones(5, 5).tril().bool()[None, None]
    expected = attend(q, k, v, mask)
    assert_close(attend(q, repeat_heads(k, 4), repeat_heads(v, 4), mask), expected, rtol=1e-5, atol=1e-6)


def test_a_tied_head_is_the_embedding() -> None:
    tied, free = tiny("1^2"), tiny("1^2", tied=False)
    assert tied.head.weight is tied.embedding.weight
    assert free.head.weight is not free.embedding.weight
    assert len(list(free.parameters())) == len(list(tied.parameters())) + 1
    tokens = random_tokens(1, 5)
    before = free(tokens)
    with torch.no_grad():
        free.head.weight.mul_(2)
    after = free(tokens)
    assert_close(after.logits, 2 * before.logits)
    assert torch.equal(after.states[0][-1], before.states[0][-1])


@pytest.mark.parametrize("shape", SHAPES)
def test_states_are_the_signal_after_each_pass(shape: str) -> None:
    model, tokens = tiny(shape), random_tokens(2, 6)
    output = model(tokens)
    assert output.cache is None
    assert output.logits.dtype == torch.float32
    assert [len(states) for states in output.states] == [group.iterations for group in model.config.groups]
    assert all(state.shape == (2, 6, 16) for states in output.states for state in states)
    assert torch.equal(model.read_out(output.states[-1][-1]), output.logits)
    earlier = [group.iterations for group in model.config.groups[:-1]]
    for m, state in enumerate(output.states[-1], start=1):
        assert torch.equal(state, model(tokens, iterations=(*earlier, m)).states[-1][-1])


@pytest.mark.parametrize(("shape", "depth"), [("2^4", 8), ("3", 3), ("(2)^4", 8)])
def test_fresh_weights(shape: str, depth: int) -> None:
    torch.manual_seed(0)
    model = FraiLT(ModelConfig(shape=shape, dim=128, vocab_size=300))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert (parameter == 1).all()
            continue
        expected = 0.02 / math.sqrt(2 * depth) if name.endswith(("wo.weight", "w2.weight")) else 0.02
        spread = 5 / math.sqrt(2 * parameter.numel())  # Five standard errors of a standard deviation.
        assert parameter.std().item() == pytest.approx(expected, rel=spread)
        assert abs(parameter.mean().item()) < 5 * expected / math.sqrt(parameter.numel())


def test_sizes_left_open_are_filled_in() -> None:
    config = ModelConfig(shape="(1)^8", dim=64)
    assert (config.shape, config.key_value_heads, config.feed_forward_dim) == ("1^8", 8, 172)
    assert ModelConfig(dim=48, heads=2).feed_forward_dim == 128
    assert ModelConfig(dim=64, multiple_of=32).feed_forward_dim == 192
    assert ModelConfig(dim=64, hidden_dim=7).feed_forward_dim == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "2^"}, "shape '2\\^'"),
        ({"dim": 0}, "dim is 0"),
        ({"heads": -1}, "heads is -1"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"context": 0}, "context is 0"),
        ({"multiple_of": 0}, "multiple_of is 0"),
        ({"hidden_dim": 0}, "hidden_dim is 0"),
        ({"dim": 20, "heads": 3}, "multiple of 6"),
        ({"dim": 24, "heads": 8}, "multiple of 16"),
        ({"kv_heads": 3}, "kv_heads 3 must divide heads 8"),
        ({"kv_heads": 0}, "kv_heads 0 must divide heads 8"),
        ({"kv_heads": -2}, "kv_heads -2 must divide heads 8"),
    ],
)
def test_impossible_sizes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelConfig(**options)


def test_a_seed_gives_the_same_blocks_with_any_encodings() -> None:
    """So that a comparison of encodings compares nothing else."""
    weights = {}
    for kind in ("learned", "sinusoidal", "none"):
        torch.manual_seed(3)
        weights[kind] = FraiLT(ModelConfig(shape="2^3", dim=16, heads=2, encoding=kind)).state_dict()
    assert weights["learned"].keys() - weights["none"].keys(), "learned encodings are parameters"
    for name, tensor in weights["none"].items():
        assert torch.equal(tensor, weights["learned"][name])
        assert torch.equal(tensor, weights["sinusoidal"][name])


def test_fresh_learned_encodings_have_their_own_size() -> None:
    weights = FraiLT(ModelConfig(shape="1^8", dim=512)).state_dict()
    table = weights["groups.0.blocks.0.encoding.table"]
    assert table.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("cached", [True, False])
def test_the_last_position_alone_may_be_scored(cached: bool) -> None:
    model, tokens = tiny("1+(2)^2"), random_tokens(2, 9)
    real = torch.ones(2, 9, dtype=torch.bool)
    real[1, :4] = False
    output = model(tokens, Cache(9) if cached else None, real=real, last_only=True)
    assert output.logits.shape == (2, 1, 40)
    assert output.states[-1][-1].shape == (2, 9, 16)
    assert_close(output.logits[:, 0], model(tokens, real=real).logits[:, -1], rtol=1e-5, atol=1e-6)
