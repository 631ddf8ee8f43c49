"""Tables 4 and 5, the power law that the paper finds in them, its claims, and the same for models of one's own."""

import math
import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pytest
from shared_data import SHARED

from frailt.evaluation.judge.grading import METRICS
from frailt.paper.grades import KINDS, GradedModel, published_models, table_4, table_5
from frailt.paper.grades_figures import draw_figure_6, draw_figure_7
from frailt.paper.power_law import fit, fitted, power_laws
from frailt.paper.published import LOSSES, TABLE_2, TABLE_3, TABLE_4, TABLE_5
from frailt.paper.section_4_2 import claims
from frailt.statistics import Mean, mean, resample

PAPER = SHARED / "paper" / "frailt.txt"


def model(shape: str, loss: float | None, grades: float | dict[str, float], dim: int = 64) -> GradedModel:
    values: dict[str, float] = grades if isinstance(grades, dict) else dict.fromkeys(METRICS, grades)
    full = values | {"average": sum(values.values()) / 4}
    return GradedModel(
        name=f"{shape}-{dim}",
        dim=dim,
        shape=shape,
        loss=loss,
        grades={name: Mean(value=value, interval=(value * 0.9, value * 1.1), count=20) for name, value in full.items()},
    )


# The paper's tables


def rows_of(caption: str, columns: int) -> dict[int, dict[str, list[str]]]:
    """The cells of a table of the paper, as printed, by width and shape."""
    text = PAPER.read_text(encoding="utf-8")
    above = text[: text.index(caption)]
    found: dict[int, dict[str, list[str]]] = {}
    dim = 0
    for line in above[above.rindex("Embedding Dimension\t") :].splitlines():
        width, *rest = line.split("\t")
        if not rest or not (shapes := re.fullmatch(r"(\d) / (.+)", rest[0])):
            continue
        dim = int(width) if width.strip() else dim
        cells = found.setdefault(dim, {})
        cells[shapes[1]] = rest[1 : 1 + columns]
        if shapes[2] != "-":
            cells[shapes[2].translate(str.maketrans("²⁴⁸", "248")).replace(" ", "^")] = rest[1 + columns :]
    return found


@pytest.mark.skipif(not PAPER.is_file(), reason="the paper's text is not on this machine")
def test_tables_4_and_5_are_the_papers() -> None:
    four, five = rows_of("Table 4:", 5), rows_of("Table 5:", 1)
    assert {d: {s: tuple(map(float, c)) for s, c in cells.items()} for d, cells in four.items()} == TABLE_4
    assert {d: {s: float(c[0]) for s, c in cells.items()} for d, cells in five.items()} == TABLE_5
    assert sum(map(len, TABLE_4.values())) == 35


def rounded_average(grades: Sequence[float]) -> Decimal:
    """The mean as Table 5 rounds it: exactly, to two places, a half upwards."""
    total = sum((Decimal(str(grade)) for grade in grades), Decimal(0))
    return (total / len(grades)).quantize(Decimal("0.01"), ROUND_HALF_UP)


def test_table_5_follows_from_table_4_everywhere() -> None:
    """The paper's own rounding disagrees nowhere with halves rounded upwards; to even, it would in some cells."""
    cells = [(dim, shape, grades) for dim, own in TABLE_4.items() for shape, (_, *grades) in own.items()]
    wrong = [
        (dim, shape) for dim, shape, grades in cells if rounded_average(grades) != Decimal(str(TABLE_5[dim][shape]))
    ]
    assert wrong == []
    to_even = [(dim, shape) for dim, shape, grades in cells if f"{sum(grades) / 4:.2f}" != f"{TABLE_5[dim][shape]:.2f}"]
    assert to_even, "so the rule of rounding is seen in the table"


def test_losses_of_table_4_are_those_of_tables_2_and_3() -> None:
    for dim, own in TABLE_4.items():
        for shape, (loss, *_) in own.items():
            exact = Decimal(str(LOSSES[dim][shape]))
            assert Decimal(str(loss)) == exact.quantize(Decimal("0.01"), ROUND_HALF_UP), (dim, shape)
    assert {s for own in TABLE_4.values() for s in own} == {*TABLE_2[64], *TABLE_3[64]} - {"1^2"}


def test_no_number_is_invented_for_the_papers_grades() -> None:
    """The paper does not say of how many completions they are means: 6.38 is no mean of 20 whole grades."""
    assert {grade.count for one in published_models() for grade in one.grades.values()} == {None}


# The power law


def test_the_fit_of_the_papers_table_4() -> None:
    law = power_laws(published_models())["average"]["all"]
    assert law is not None
    assert law.n == 22
    assert round(law.exponent, 2) == -1.88
    assert round(law.r2, 2) == 0.94
    assert law.interval is not None
    assert law.interval[0] < -1.88 < law.interval[1]
    assert str(law).startswith("exponent -1.88 [-2.")


def test_the_fits_by_type_and_metric() -> None:
    laws = power_laws(published_models())
    assert set(laws) == {"average", *METRICS}
    for own in laws.values():
        numbers = {kind: law.n for kind, law in own.items() if law is not None}
        assert numbers == {"all": 22, "standard": 12, "FraiLT": 10}
    exponents = {metric: round(law.exponent, 2) for metric in METRICS if (law := laws[metric]["all"])}
    assert exponents == {"grammar": -1.94, "creativity": -1.03, "consistency": -2.48, "plot": -2.54}


def test_a_power_law_is_found_again() -> None:
    losses = [0.4, 0.5, 0.7, 0.9]
    law = fit(losses, [3 * loss**-1.5 for loss in losses])
    assert law is not None
    assert (law.exponent, law.factor, law.r2) == pytest.approx((-1.5, 3, 1))
    assert law.interval == pytest.approx((-1.5, -1.5))
    against = np.polyfit(np.log([0.4, 0.5, 0.7]), np.log([5, 4, 3.5]), 1)
    own = fit([0.4, 0.5, 0.7], [5, 4, 3.5])
    assert own is not None
    assert (own.exponent, math.log(own.factor)) == pytest.approx(tuple(against))


def test_no_fit_of_too_little() -> None:
    assert fit([0.5, 0.6], [4, 3]) is None
    assert fit([0.5, 0.5, 0.5], [4, 3, 2]) is None


def test_models_above_a_loss_of_1_are_not_fitted() -> None:
    models = [model("1", 1.0, 2), model("1^8", 1.01, 9), model("8", None, 9), model("2", 0.5, 8)]
    assert [one.shape for one in fitted(models)] == ["1", "2"]


def test_other_encodings_are_shown_but_no_part_of_fits_and_cells() -> None:
    ablation, own = model("1^8:none", 0.5, 9), model("1^8", 0.5, 3)
    assert ablation.kind == own.kind
    assert fitted([ablation, own]) == [own]
    _, rows = table_4([ablation, own])
    cells = {row[1]: row for row in rows if row[0] == "64"}
    assert "9.00" in cells["- / 1^8:none"]
    assert "9.00" not in cells["1 / 1^8"]


# The claims


def verdicts(models: list[GradedModel]) -> dict[str, str]:
    return {claim.text.split(" ")[0] + str(i): claim.verdict for i, claim in enumerate(claims(models))}


def test_the_claims_by_the_papers_own_numbers() -> None:
    found = claims(published_models())
    assert [claim.verdict for claim in found] == [
        "held",
        "held",
        "held",
        "held",
        "did not hold",  # Creativity has an R2 of 0.78.
        "held",
        "did not hold",
        "held",
    ]
    details = [claim.detail for claim in found]
    assert details[0] == "13 models; the highest is consistency 1.20 of 2, width 128"
    assert details[1].startswith("factor 1.06 [")
    assert "creativity 0.78" in details[4]
    assert details[5] == "2^4 reaches 8 at width 1024 of 5; 4^2 reaches 8 at width 512 of 5"
    assert "lower in creativity" in details[6]
    assert "1^8 beats 2 at width 256, 512, 1024 of 5" in details[7]
    assert all(claim.rule for claim in found)


def test_nothing_graded_nothing_measured() -> None:
    empty = GradedModel(name="x", dim=64, shape="8", loss=0.9, grades={})
    for models in ([], [empty]):
        assert {claim.verdict for claim in claims(models)} == {"not measured"}
        assert all(claim.detail for claim in claims(models))


def test_a_claim_can_fail() -> None:
    worse = [
        model(shape, loss, 2 * loss**-2 * (0.5 if "^" in shape else 1), dim)
        for dim, losses in ((64, (0.95, 0.9)), (128, (0.8, 0.75)), (256, (0.6, 0.55)), (512, (0.45, 0.42)))
        for shape, loss in zip(("8", "4^2"), losses, strict=True)
    ]
    worse += [model("2^4", loss, loss**-2, dim) for dim, loss in ((64, 0.9), (128, 0.75))]
    worse += [model("1", 1.5, {**dict.fromkeys(METRICS, 1.0), "plot": 2.0}), model("1^8", 1.4, 1)]
    found = [claim.verdict for claim in claims(worse)]
    assert found[0] == found[1] == found[5] == "did not hold"
    assert claims(worse)[1].detail.startswith("factor 0.50 [")
    steep = [model("8", x, x**-1.0, i) for i, x in enumerate((0.4, 0.5, 0.6, 0.7, 0.8, 0.9))]
    steep += [model("4^2", x, x**-2.0, i) for i, x in enumerate((0.4, 0.5, 0.6, 0.7, 0.8, 0.9))]
    assert claims(steep)[3].verdict == "did not hold", "both are power laws, but not the same one"
    random = np.random.default_rng(0)
    noise = [model("8", x, float(random.uniform(2, 9)), i) for i, x in enumerate(np.linspace(0.5, 1, 12).tolist())]
    assert claims(noise)[2].verdict == "did not hold"


def test_a_wide_interval_is_no_equality() -> None:
    few = [model("8", 0.5, 8), model("8", 0.7, 2), model("8", 0.9, 5)]
    few += [model("4^2", 0.5, 2), model("4^2", 0.7, 8), model("4^2", 0.9, 3)]
    assert claims(few)[1].verdict in ("not measured", "within chance")


# Ours beside theirs


def test_cells_that_were_not_graded_stay_empty() -> None:
    own = [model("1^8", 1.234, 3, 64), model("1^8", 1.434, 5, 64), model("5^2", 1.5, 2, 64), model("8", 2.0, 4, 96)]
    head, rows = table_4([*own, GradedModel(name="open", dim=64, shape="2", loss=1.4, grades={})])
    cells = {row[:2]: dict(zip(head, row, strict=True)) for row in rows}
    assert cells["64", "1 / 1^8"]["FraiLT grammar"] == "4.00 (1.10)", "the mean of two models"
    assert cells["64", "1 / 1^8"]["FraiLT loss"] == "1.33 (1.52)"
    assert cells["64", "1 / 1^8"]["standard grammar"] == "(1.10)"
    assert cells["64", "2 / 2^4"]["standard loss"] == "(1.41)"
    assert cells["64", "8 / -"]["FraiLT plot"] == ""
    assert cells["64", "- / 5^2"]["FraiLT plot"] == "2.00"
    assert cells["96", "8 / -"]["standard plot"] == "4.00"
    assert len(rows) == 20 + 2
    head, rows = table_5(own)
    assert ("64", "1 / 1^8", "(1.05)", "4.00 (1.11)") in rows
    assert ("128", "8 / -", "(2.33)", "") in rows


@pytest.mark.parametrize("number", [0, 4])
def test_figures_are_drawn_with_whatever_is_there(tmp_path: Path, number: int) -> None:
    own = [model("8", 0.6, 4), model("4^2", 0.7, 3), model("2", 0.9, 2), model("1", 2.4, 1)][:number]
    for draw, name in ((draw_figure_6, "6.png"), (draw_figure_7, "7.png")):
        draw(own, published_models(), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


# Intervals


def test_a_mean_and_its_interval() -> None:
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert found is not None
    assert (found.value, found.count) == (2.5, 4)
    assert found.interval is not None
    assert 1 <= found.interval[0] < 2.5 < found.interval[1] <= 4
    assert mean([]) is None
    one = mean([3.0])
    assert one is not None
    assert one.interval is None
    assert str(one) == "3.00"


def test_values_of_one_group_stay_together() -> None:
    """Twenty copies of two groups tell no more than two values."""
    values = [1.0] * 20 + [3.0] * 20
    alone, grouped = mean(values), mean(values, ["a"] * 20 + ["b"] * 20)
    assert alone is not None
    assert grouped is not None
    assert grouped.interval == (1, 3)
    assert alone.interval is not None
    assert alone.interval[0] > 1.5
    unequal = mean([1.0, 1.0, 1.0, 4.0], ["a", "a", "a", "b"])
    assert unequal is not None
    assert unequal.value == 1.75


def test_an_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        found = mean(random.normal(5, 2, 30).tolist())
        assert found is not None
        assert found.interval is not None
        covered += found.interval[0] <= 5 <= found.interval[1]
    assert covered >= 50


def test_a_statistic_that_is_often_missing_has_no_interval() -> None:
    assert resample(3, lambda weights: np.where(weights[:, 0] == 0, np.nan, 1.0)) is None
    assert resample(3, lambda weights: np.ones(len(weights))) == (1, 1)


def test_kinds_follow_from_shapes() -> None:
    assert [model(shape, 1, 1).kind for shape in ("8", "1", "1^8", "(2)^4", "1^1")] == [KINDS[0]] * 2 + [KINDS[1]] * 3
