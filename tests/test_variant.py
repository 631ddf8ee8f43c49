"""Names of models: read, printed, and made into configs."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frailt.errors import InputError
from frailt.model.config import ModelConfig
from frailt.model.shape import Shape
from frailt.model.variant import Variant, split_names

SHAPES = st.sampled_from(["1", "8", "1^8", "2^4", "(2)^4", "1+(4)^3+1", "1^1"])
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "encoding": st.sampled_from(["learned", "sinusoidal", "none"]),
        "tied": st.booleans(),
        "rope_theta": st.one_of(st.integers(1, 10**6), st.floats(1, 1e6)),
        "norm_eps": st.floats(1e-9, 1e-3),
        "dim": st.sampled_from([32, 64, 128]),
        "heads": st.sampled_from([2, 4]),
        "kv_heads": st.sampled_from([1, 2, None]),
        "passes": st.sampled_from(["random", "fixed"]),
        "lr": st.floats(1e-6, 1),
    },
)
TRAINING = {"passes", "lr"}


@given(SHAPES, SETTINGS)
def test_names_round_trip(shape: str, settings: dict) -> None:
    if Shape.parse(shape).standard:
        settings.pop("encoding", None)
    variant = Variant.make(Shape.parse(shape), settings)
    assert Variant.parse(str(variant)) == variant
    assert str(Variant.parse(str(variant))) == str(variant)
    assert split_names(f"8,{variant},(2)^4") == ("8", str(variant), "(2)^4")
    assert re.fullmatch(r"[\w.-]+", variant.slug, re.ASCII)
    assert variant.training == {name: settings[name] for name in TRAINING & settings.keys()}
    base = ModelConfig(heads=4)
    model = variant.model(base)
    assert model.shape == shape
    assert all(getattr(model, name) == value for name, value in settings.items() if name not in TRAINING)
    again = Variant.of(model, base)
    assert again.model(base) == model
    assert dict(again.settings).items() <= dict(variant.settings).items(), "a setting that is the base's is not named"


def test_a_list_of_names_is_split_between_names_and_not_between_settings() -> None:
    assert split_names("1,1^8:none,tied=false,(2)^4,x,8:a=1") == ("1", "1^8:none,tied=false", "(2)^4", "x", "8:a=1")
    assert split_names("") == ("",)
    assert split_names("1,") == ("1", "")


@pytest.mark.parametrize(
    ("text", "name", "slug"),
    [
        ("1^8", "1^8", "1x8"),
        ("(1)^8", "1^8", "1x8"),
        ("1^8:learned", "1^8", "1x8"),
        ("(2)^4:none", "(2)^4:none", "g2x4-none"),
        ("1^8: none", "1^8:none", "1x8-none"),
        ("8:tied=false", "8:tied=false", "8-tied_false"),
        ("1^8:tied=false,none", "1^8:none,tied=false", "1x8-none-tied_false"),
        ("1^8:rope_theta=1e4", "1^8:rope_theta=10000", "1x8-rope_theta_10000"),
    ],
)
def test_names_have_one_form(text: str, name: str, slug: str) -> None:
    variant = Variant.parse(text)
    assert (str(variant), variant.slug) == (name, slug)


def test_a_variant_sets_what_it_names_and_the_papers_encoding() -> None:
    base = ModelConfig(dim=32, encoding="none", kv_heads=2)
    assert Variant.parse("2^4").model(base) == replace(base, shape="2^4", encoding="learned")
    assert Variant.parse("2^4:sinusoidal,tied=false").model(base) == replace(
        base, shape="2^4", encoding="sinusoidal", tied=False
    )


def test_a_model_by_itself_is_named_without_its_sizes() -> None:
    config = ModelConfig(shape="1^8", dim=32, kv_heads=2, hidden_dim=99, vocab_size=300, context=32)
    assert str(Variant.of(config)) == "1^8"
    assert str(Variant.of(replace(config, encoding="none", tied=False))) == "1^8:none,tied=false"
    assert str(Variant.of(replace(config, shape="8", encoding="none"))) == "8", "a standard model has no encodings"
    assert str(Variant.of(config, replace(config, kv_heads=4))) == "1^8:kv_heads=2"


def test_twins_are_plain_and_have_its_other_settings() -> None:
    variant = Variant.parse("1+(4)^3+1:none,tied=false")
    assert (str(variant.shallow), str(variant.deep)) == ("6:tied=false", "14:tied=false")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8:none", "shape '8:none' is a standard model and has no encodings; leave out :none"),
        ("1^8:", "model '1.8:' is not understood at ''; after the colon write an encoding, like 1.8:none"),
        ("1^8:none,none", "not understood at 'none'"),
        ("1^8:tied=", "not understood at 'tied='"),
        ("1^8:=3", "not understood at '=3'"),
        ("1^8:\x1b[31m", "not understood"),
        ("1^8:context=4", "context is the same for all models that are compared; leave it out of '1.8:context=4'"),
        ("1^8:shape=4", "shape is the same"),
        ("1^8:fourier", "encoding is 'fourier', which is not of type 'learned' or 'sinusoidal' or 'none'"),
        ("1^8:tied=3", "tied is 3, which is not of type bool"),
        ("1^8:rope_theta=NaN", "rope_theta is 'NaN', which is not of type finite number"),
        ("1^8:rope_theta=-1", "rope_theta is -1"),
        ("1^8:dim=7", "dim 7 with 8 heads gives no even head width"),
        ("1^8:dim=" + "9" * 5000, "dim is"),
        ("1^", "is not understood"),
        (":none", "is not understood"),
        ("", "is not understood"),
    ],
)
def test_bad_names_are_refused_in_one_short_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Variant.parse(text).model(ModelConfig())
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
