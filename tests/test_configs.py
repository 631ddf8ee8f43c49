"""Records from JSON: what is taken, what is refused, and in which words."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frailt.configs import changed, from_json
from frailt.errors import InputError
from frailt.model.config import ModelConfig
from frailt.training.config import OptimizerConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise InputError(f"rate is {self.rate}; it must not be negative")


@dataclass(frozen=True, kw_only=True)
class Record:
    name: str
    count: int = 1
    share: float = 0.0
    on: bool = False
    kind: Literal["a", "b", 3] = "a"
    limit: int | None = None
    passes: int | tuple[int, ...] = 1
    names: tuple[str, ...] = ()
    scores: list[float] = field(default_factory=list)
    parts: dict[str, Inner] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    path: Path | None = None
    anything: Any = None


def read(**stored: Any) -> Record:
    return from_json(Record, {"name": "n", **stored}, "the file")


def test_a_record_comes_back() -> None:
    record = Record(
        name="n",
        limit=3,
        passes=(1, 2),
        names=("x",),
        scores=[0.5],
        parts={"p": Inner(rate=1.0)},
        inner=Inner(rate=2.0),
    )
    assert from_json(Record, json.loads(json.dumps(dataclasses.asdict(record))), "the file") == record
    assert from_json(TrainConfig, json.loads(json.dumps(dataclasses.asdict(TrainConfig()))), "f") == TrainConfig()


def test_a_missing_key_takes_its_default() -> None:
    """So that a new setting leaves every file of earlier versions readable."""
    assert read() == Record(name="n")
    assert from_json(ModelConfig, {"dim": 32}, "f") == ModelConfig(dim=32)
    assert from_json(TrainConfig, {"optimizer": {"lr": 0.5}}, "f") == TrainConfig(optimizer=OptimizerConfig(lr=0.5))
    with pytest.raises(InputError, match="the file lacks name"):
        from_json(Record, {}, "the file")


def test_an_unknown_key_is_refused_unless_it_may_be_ignored() -> None:
    with pytest.raises(InputError, match="the file has a setting 'surprise' that this version of frailt does not know"):
        read(surprise=1)
    with pytest.raises(InputError, match="the file: inner has a setting 'surprise'"):
        read(inner={"surprise": 1})
    stored = {"name": "n", "surprise": 1, "inner": {"rate": 1, "surprise": 1}, "parts": {"p": {"surprise": 1}}}
    read_leniently = from_json(Record, stored, "the file", ignore_unknown=True)
    assert read_leniently == Record(name="n", inner=Inner(rate=1.0), parts={"p": Inner()})


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"name": 1}, "name is 1, which is not of type str"),
        ({"name": None}, "name is None, which"),
        ({"count": True}, "count is True, which is not of type 64-bit int"),
        ({"count": 1.0}, "count is 1.0, which is not of type 64-bit int"),
        ({"count": "1"}, "count is '1', which"),
        ({"count": 2**63}, "count is 9223372036854775808, which"),
        ({"count": -(10**200)}, "count is -1000"),
        ({"share": "0.5"}, "share is '0.5', which is not of type finite number"),
        ({"share": math.nan}, "share is nan, which"),
        ({"share": math.inf}, "share is inf, which"),
        ({"share": 10**400}, "share is 1000"),
        ({"share": False}, "share is False, which"),
        ({"on": 1}, "on is 1, which is not of type bool"),
        ({"kind": "c"}, "kind is 'c', which is not of type 'a' or 'b' or 3"),
        ({"kind": ["a"]}, "kind is "),
        ({"kind": 3.0}, "kind is 3.0"),
        ({"limit": "x"}, "limit is 'x', which is not of type 64-bit int"),
        ({"passes": ["x"]}, "passes is "),
        ({"passes": None}, "passes is None"),
        ({"names": "abc"}, "names is 'abc'"),
        ({"names": {"a": 1}}, "names is "),
        ({"names": ["a", 1]}, r"names\[1\] is 1, which is not of type str"),
        ({"scores": [0.5, None]}, r"scores\[1\] is None"),
        ({"parts": []}, "parts is "),
        ({"parts": {"p": {"rate": "x"}}}, r"parts\['p'\]: rate is 'x'"),
        ({"inner": []}, "inner is "),
        ({"inner": None}, "inner is None, not an object"),
        ({"inner": {"rate": -1}}, "the file: inner: rate is -1.0; it must not be negative"),
        ({"path": "a\0b"}, "path is "),
        ({"path": 3}, "path is 3"),
    ],
)
def test_values_of_other_types_are_refused(stored: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(**stored)


@pytest.mark.parametrize("stored", [None, [], "text", 5, [["name", "n"]]])
def test_what_is_no_object_is_refused(stored: Any) -> None:
    with pytest.raises(InputError, match=r"the file is .* not an object"):
        from_json(Record, stored, "the file")


def test_messages_stay_short() -> None:
    for stored in (
        {"name": ["x" * 10**6]},
        {"\x1b[31m" + "k" * 10**6: 1},
        {"parts": {"p" * 10**6: 5}},
        {"count": 10**4000},
    ):
        with pytest.raises(InputError) as caught:
            read(**stored)
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()


def test_whole_numbers_are_numbers() -> None:
    record = read(share=1, scores=[1, 2])
    assert [type(value) for value in (record.share, *record.scores)] == [float] * 3


def test_what_differs_from_the_defaults() -> None:
    assert changed(TrainConfig()) == {}
    config = TrainConfig(model=ModelConfig(dim=32, context=64), seed=3)
    assert changed(config) == {"model": {"dim": 32, "context": 64}, "seed": 3}
    assert changed(Record(name="n", scores=[])) == {"name": "n"}
    assert changed(Record(name="n", scores=[1.0], inner=Inner(rate=1.0))) == {
        "name": "n",
        "scores": [1.0],
        "inner": {"rate": 1.0},
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([field.name for kind in (ModelConfig, Record) for field in dataclasses.fields(kind)])


@given(st.sampled_from([ModelConfig, Record]), st.dictionaries(NAMES, json_values, max_size=4))
def test_any_json_is_a_record_or_refused(kind: type, stored: dict[str, Any]) -> None:
    message = ""
    try:
        assert isinstance(from_json(kind, stored, "the file"), kind)
    except InputError as error:
        message = str(error)
    assert len(message) < 600
    assert "\n" not in message
