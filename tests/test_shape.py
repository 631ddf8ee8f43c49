"""Shape notation: what a text stands for, and which texts are refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frailt.errors import InputError, excerpt
from frailt.model.shape import GroupShape, Shape


def plain(blocks: int) -> GroupShape:
    return GroupShape(blocks, 1, encoded=False)


def loop(blocks: int, passes: int) -> GroupShape:
    return GroupShape(blocks, passes, encoded=True)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("8", [plain(8)]),
        ("1", [plain(1)]),
        ("1^1", [loop(1, 1)]),
        ("1^8", [loop(1, 8)]),
        ("(1)^8", [loop(1, 8)]),
        ("2^4", [loop(1, 4), loop(1, 4)]),
        ("(2)^4", [loop(2, 4)]),
        ("1+(4)^3+1", [plain(1), loop(4, 3), plain(1)]),
        (" 1 + 2^3 ", [plain(1), loop(1, 3), loop(1, 3)]),
    ],
)
def test_notation(text: str, groups: list[GroupShape]) -> None:
    assert Shape.parse(text).groups == tuple(groups)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("(1)^8", "1^8"),
        ("1^8", "1^8"),
        ("1^4+1^4", "2^4"),
        ("1^4+(1)^4+2^4", "4^4"),
        ("(2)^4+(2)^4", "(2)^4+(2)^4"),
        ("1^4+1^3", "1^4+1^3"),
        (" 1+(4)^3 +1", "1+(4)^3+1"),
    ],
)
def test_canonical_text(text: str, canonical: str) -> None:
    assert str(Shape.parse(text)) == canonical


def test_neighbouring_plain_blocks_are_one_model() -> None:
    assert Shape.parse("1+2") == Shape.parse("3")


@pytest.mark.parametrize(
    ("text", "blocks", "depth", "standard"),
    [
        ("8", 8, 8, True),
        ("2^4", 2, 8, False),
        ("(2)^4", 2, 8, False),
        ("1+(4)^3+1", 6, 14, False),
        ("1^1", 1, 1, False),
    ],
)
def test_blocks_and_depth(text: str, blocks: int, depth: int, standard: bool) -> None:
    shape = Shape.parse(text)
    assert (shape.blocks, shape.depth, shape.standard) == (blocks, depth, standard)


counts = st.integers(1, 6)
terms = st.one_of(
    st.builds("{}".format, counts),
    st.builds("{}^{}".format, counts, counts),
    st.builds("({})^{}".format, counts, counts),
)
shapes = st.lists(terms, min_size=1, max_size=6).map("+".join)


@given(shapes)
@example("1+1")
def test_text_comes_back(text: str) -> None:
    shape = Shape.parse(text)
    again = Shape.parse(str(shape))
    assert again == shape
    assert str(again) == str(shape)
    assert (again.blocks, again.depth) == (shape.blocks, shape.depth)


@given(shapes, shapes)
def test_equal_shapes_have_equal_texts(one: str, other: str) -> None:
    assert (Shape.parse(one) == Shape.parse(other)) == (str(Shape.parse(one)) == str(Shape.parse(other)))


GARBAGE = """
    0 -1 a 1.5 08 2*4 2^ ^2 2^0 1^0 0^2 2^-1 2^^3 2^3^4 + 1+ +1 1++1
    (2) (0)^2 ()^2 (2^3 2)^3 (2^3) ((2))^3 (2)(3)^2 (1+1)^2 ２^４ ² 1^² 1٣ 1^1٣
"""


@pytest.mark.parametrize("text", ["", " ", "1\n", *GARBAGE.split()])
def test_garbage_is_refused_with_a_way_out(text: str) -> None:
    with pytest.raises(InputError, match=r"write 8 \(plain blocks\)") as caught:
        Shape.parse(text)
    assert repr(excerpt(text)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["9999999^9", "1025", "33^32", "(33)^32", "1000+25", "1^" + "9" * 10_000, "1025^1"])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(InputError, match="deeper than 1024"):
        Shape.parse(text)


@given(st.text(alphabet="0123456789()^+ ٣a-", max_size=12))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        shape = Shape.parse(text)
    except InputError:
        return
    assert Shape.parse(str(shape)) == shape


@pytest.mark.parametrize(
    ("text", "iterations", "passes"),
    [
        ("1+(4)^3+1^1", None, (1, 3, 1)),
        ("1+(4)^3+1^1", 5, (1, 5, 1)),
        ("2^4", 1, (1, 1)),
        ("2^4", (1, 9), (1, 9)),
        ("8", 5, (1,)),
        ("8", (2,), (2,)),
    ],
)
def test_passes(text: str, iterations: int | tuple[int, ...] | None, passes: tuple[int, ...]) -> None:
    assert Shape.parse(text).passes(iterations) == passes


@pytest.mark.parametrize("iterations", [0, -1, (4,), (4, 4, 4), (0, 4), ()])
def test_wrong_passes_are_refused(iterations: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="2 groups"):
        Shape.parse("2^4").passes(iterations)
