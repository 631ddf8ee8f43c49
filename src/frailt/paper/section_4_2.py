"""What section 4.2 of the paper, and its abstract, say of grades, each with a verdict computed from graded models.

The paper's sentences leave open how near is near. Each function's docstring states the rule that it applies, with the
thresholds below; they were set before any model of this project was graded.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from frailt.evaluation.judge.grading import METRICS
from frailt.model.shape import Shape
from frailt.paper.grades import KINDS, GradedModel
from frailt.paper.power_law import LEAST_POINTS, MOST_LOSS, fitted, power_law, slopes
from frailt.paper.verdicts import Claim, DecidedClaim, Verdict, held
from frailt.statistics import resample

Models = Sequence[GradedModel]
FLOOR = 1.25
"""Highest grade that counts as none: the scale begins at 1."""
EQUAL = 1.25
"""Grades within this factor of each other count as equal."""
GOOD_FIT = 0.8
"""Least R2 of a power law."""
DEEP = "8"
"""The standard model that FraiLT is to reach."""
REACHING = ("2^4", "4^2")


def _floor(models: Models) -> Verdict:
    """No model with a loss above 1.0, of either type, has more than 1.25 for consistency or plot."""
    above = [model for model in models if model.loss is not None and model.loss > MOST_LOSS]
    if {model.kind for model in above} != set(KINDS):
        return _unknown("no graded models above a loss of 1.0 of both types")
    best, metric, model = max(
        ((m.grades[metric].value, metric, m) for m in above for metric in ("consistency", "plot")), key=lambda x: x[0]
    )
    return held(best <= FLOOR, f"{len(above)} models; the highest is {metric} {best:.2f} of {model.name}")


def _equal(models: Models) -> Verdict:
    """At equal loss, FraiLT's average is within 25% of the standard models': the interval of that factor, from a fit
    with one exponent for both types and loss at most 1.0, lies within 1/1.25 and 1.25. Wholly outside: did not hold."""
    x, y, frailt = _points(models)
    if min(frailt.sum(), (~frailt).sum()) < LEAST_POINTS:
        return _unknown(f"fewer than {LEAST_POINTS} models of one type with a loss of at most 1.0")
    design = np.column_stack([np.ones(len(x)), x, frailt])

    def factors(weights: np.ndarray) -> np.ndarray:
        normal = np.einsum("wp,pi,pj->wij", weights, design, design)
        right = np.einsum("wp,pi,p->wi", weights, design, y)
        result = np.full(len(weights), np.nan)
        solvable = np.linalg.det(normal) > 1e-9
        result[solvable] = np.exp(np.linalg.solve(normal[solvable], right[solvable, :, None])[:, 2, 0])
        return result

    value, interval = float(factors(np.ones((1, len(x))))[0]), resample(len(x), factors)
    if interval is None:
        return _unknown("too few different models for an interval")
    detail = f"factor {value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
    if interval[0] >= 1 / EQUAL and interval[1] <= EQUAL:
        return held(True, detail)
    outside = interval[0] > EQUAL or interval[1] < 1 / EQUAL
    return held(False, detail) if outside else Verdict(outcome="within chance", detail=detail)


def _power_law(models: Models) -> Verdict:
    """The average of all models with a loss of at most 1.0 follows a power law with R2 of at least 0.8."""
    law = power_law(models, "average")
    return _unknown(_few("all")) if law is None else held(law.r2 >= GOOD_FIT, str(law))


def _same_law(models: Models) -> Verdict:
    """Both types follow power laws of R2 at least 0.8, and the interval of their exponents' difference holds 0."""
    standard, passed = (power_law(models, "average", kind) for kind in KINDS)
    if standard is None or passed is None:
        return _unknown(_few("one type"))
    x, y, frailt = _points(models)
    interval = resample(
        len(x),
        lambda weights: (
            slopes(x[frailt], y[frailt], weights[:, frailt]) - slopes(x[~frailt], y[~frailt], weights[:, ~frailt])
        ),
    )
    if interval is None:
        return _unknown("too few different models for an interval")
    parts = [
        f"{kind}: {law.exponent:.2f}, R2 {law.r2:.2f}" for kind, law in zip(KINDS, (standard, passed), strict=True)
    ]
    gap = f"difference {passed.exponent - standard.exponent:+.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
    good = min(standard.r2, passed.r2) >= GOOD_FIT and interval[0] <= 0 <= interval[1]
    return held(good, "; ".join((*parts, gap)))


def _each_metric(models: Models) -> Verdict:
    """Each of the four grades of all models with a loss of at most 1.0 follows a power law with R2 of at least 0.8."""
    laws = {metric: power_law(models, metric) for metric in METRICS}
    shares = {metric: law.r2 for metric, law in laws.items() if law is not None}
    if len(shares) < len(METRICS):
        return _unknown(_few("all"))
    return held(min(shares.values()) >= GOOD_FIT, "R2: " + ", ".join(f"{m} {r2:.2f}" for m, r2 in shares.items()))


def _reach(models: Models) -> Verdict:
    """For 2^4 as for 4^2 there is a width at which its average is at least that of the standard model of 8 blocks."""
    return _somewhere(models, dict.fromkeys(REACHING, DEEP))


def _reach_in_each(models: Models) -> Verdict:
    """At the width where each comes nearest, 2^4 and 4^2 have at least the grade of the standard model of 8 blocks in
    each of the four categories."""
    notes, good = [], []
    for shape in REACHING:
        pairs = _pairs(models, shape, DEEP)
        if not pairs:
            return _unknown(f"{shape} and {DEEP} are not both graded at any width")
        lacking = {
            dim: [m for m in METRICS if ours.grades[m].value < deep.grades[m].value] for dim, ours, deep in pairs
        }
        dim = min(lacking, key=lambda dim: (len(lacking[dim]), dim))
        good.append(not lacking[dim])
        notes.append(
            f"{shape} at width {dim}: " + (f"lower in {', '.join(lacking[dim])}" if lacking[dim] else "in all")
        )
    return held(all(good), "; ".join(notes))


def _larger(models: Models) -> Verdict:
    """For each FraiLT shape there is a width at which its average is above that of the next larger standard model."""
    larger = {m.shape: str(2 * Shape.parse(m.shape).blocks) for m in models if m.kind == KINDS[1]}
    return _somewhere(models, larger, above=True) if larger else _unknown("no FraiLT model is graded")


CLAIMS: tuple[Claim[Models], ...] = (
    Claim("4.2", "Above a validation loss of 1.0, models of either type show no consistency and no plot", _floor),
    Claim("4.2", "At the same validation loss, FraiLT models perform as standard models do", _equal),
    Claim("4.2", "Average grades follow a power law of validation loss", _power_law),
    Claim("4.2", "The power law does not depend on the type of model", _same_law),
    Claim("4.2", "Each metric by itself follows a power law too", _each_metric),
    Claim("4.2", "2^4 and 4^2 can reach the performance of the standard model of 8 layers", _reach),
    Claim("4.2", "... and do so across the evaluated categories", _reach_in_each),
    Claim("abstract", "FraiLT outperforms larger models, by its grades", _larger),
)
"""In the paper's order."""


def claims(models: Models) -> list[DecidedClaim]:
    """All claims about grades, decided by these models."""
    graded = [model for model in models if model.grades and not model.ablated]
    decided = [(claim, claim.decide(graded)) for claim in CLAIMS]
    return [
        DecidedClaim(section=c.section, text=c.text, rule=c.rule, verdict=v.outcome, detail=v.detail)
        for c, v in decided
    ]


def _somewhere(models: Models, rivals: Mapping[str, str], *, above: bool = False) -> Verdict:
    """Whether each shape has a width at which its average reaches, or is above, that of its rival."""
    notes, good = [], []
    for shape, rival in rivals.items():
        if not (pairs := _pairs(models, shape, rival)):
            return _unknown(f"{shape} and {rival} are not both graded at any width")
        ahead = [(ours.grades["average"].value - other.grades["average"].value, dim) for dim, ours, other in pairs]
        widths = [dim for lead, dim in ahead if lead > 1e-9 or (not above and abs(lead) <= 1e-9)]
        good.append(bool(widths))
        places = f"at width {', '.join(map(str, widths))}" if widths else "at no width"
        notes.append(f"{shape} {'beats' if above else 'reaches'} {rival} {places} of {len(pairs)}")
    return held(all(good), "; ".join(notes))


def _pairs(models: Models, shape: str, rival: str) -> list[tuple[int, GradedModel, GradedModel]]:
    """The first graded model of each of two shapes, at every width that has both."""
    cells = {(model.dim, model.shape): model for model in reversed(models)}
    widths = sorted({model.dim for model in models})
    return [(d, cells[d, shape], cells[d, rival]) for d in widths if (d, shape) in cells and (d, rival) in cells]


def _points(models: Models) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log loss, log average and whether it is a FraiLT model, of those that are fitted."""
    ours = fitted(models)
    return (
        np.log([model.loss or np.nan for model in ours]),
        np.log([model.grades["average"].value for model in ours]),
        np.array([model.kind == KINDS[1] for model in ours], bool),
    )


def _unknown(detail: str) -> Verdict:
    return Verdict(outcome="not measured", detail=detail)


def _few(which: str) -> str:
    return f"fewer than {LEAST_POINTS} models of {which} with a loss of at most 1.0"
