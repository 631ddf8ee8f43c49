"""The paper's claims about validation loss (sections 4.1 and 5, and the abstract), each decided by a table of losses.

The same check is made of the paper's own tables and of what was run here, so that a claim which the paper's own numbers
do not bear out is seen as such.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from frailt.model.counts import count
from frailt.model.frailt import ModelConfig
from frailt.model.shape import Shape
from frailt.studies.gap import CLOSE

FEW_TOKENS = 1_000_000
"""With a smaller budget, a model has hardly begun to use its depth, and a verdict shows little."""

Losses = Mapping[int, Mapping[str, float]]
"""Nats per token by width and model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a table of losses says of a claim."""

    held: bool | None
    """``None``: not measured."""
    evidence: str = ""
    """The numbers behind it."""

    def __str__(self) -> str:
        word = {True: "held", False: "did not hold", None: "not measured"}[self.held]
        return f"{word}: {self.evidence}" if self.evidence else word


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the paper, in this project's words, and how it is decided."""

    section: str
    text: str
    decide: Callable[[Losses], Verdict]

    def said(self, losses: Losses, *, tokens: int) -> str:
        """The verdict on models with this many training tokens each, with a warning where they are few."""
        verdict = self.decide(losses)
        little = verdict.held is not None and tokens < FEW_TOKENS
        return f"{'shows little: so few tokens; ' if little else ''}{verdict}"


NOT_MEASURED = Verdict(held=None)


def falls_with_width(names: tuple[str, ...]) -> Callable[[Losses], Verdict]:
    """Whether the loss of each model falls at every step of width."""

    def decide(losses: Losses) -> Verdict:
        steps = _steps(losses, names)
        if {name for name, _, _ in steps} != set(names):
            return NOT_MEASURED
        rises = [f"{name} from {a} to {b}" for name, a, b in steps if losses[b][name] >= losses[a][name]]
        return Verdict(held=not rises, evidence="; ".join(rises) or f"at {_each(len(steps), 'step')}")

    return decide


def catches_up(pairs: tuple[tuple[str, str], ...], dim: int) -> Callable[[Losses], Verdict]:
    """Whether a model is within ``CLOSE`` of a larger one, or better, at a width."""

    def decide(losses: Losses) -> Verdict:
        row = losses.get(dim, {})
        if any(name not in row for pair in pairs for name in pair):
            return NOT_MEASURED
        behind = {pair: row[pair[0]] / row[pair[1]] - 1 for pair in pairs}
        said = "; ".join(f"{own} {by:+.1%} against {other}" for (own, other), by in behind.items())
        return Verdict(held=max(behind.values()) < CLOSE, evidence=f"width {dim}: {said}")

    return decide


def nears_with_width(pairs: tuple[tuple[str, str], ...]) -> Callable[[Losses], Verdict]:
    """Whether a model comes nearer to a larger one at every step of width."""

    def decide(losses: Losses) -> Verdict:
        ratios = {
            pair: {dim: row[pair[0]] / row[pair[1]] for dim, row in sorted(losses.items()) if set(pair) <= set(row)}
            for pair in pairs
        }
        steps = [(pair, *step) for pair, by_width in ratios.items() for step in pairwise(by_width)]
        if {pair for pair, _, _ in steps} != set(pairs):
            return NOT_MEASURED
        away = [f"{p[0]} against {p[1]} from {a} to {b}" for p, a, b in steps if ratios[p][b] >= ratios[p][a]]
        said = f"not {'; '.join(away)}" if away else f"at {_each(len(steps), 'step')}"
        return Verdict(held=not away, evidence=said)

    return decide


def beats_its_blocks(losses: Losses) -> Verdict:
    """Whether each FraiLT model is better than the standard model with as many blocks."""
    pairs = [
        (dim, name, str(Shape.parse(name).blocks))
        for dim, row in losses.items()
        for name in row
        if ":" not in name and not Shape.parse(name).standard and str(Shape.parse(name).blocks) in row
    ]
    if not pairs:
        return NOT_MEASURED
    lost = [f"{name} at {dim}" for dim, name, other in pairs if losses[dim][name] >= losses[dim][other]]
    return Verdict(held=not lost, evidence="; ".join(lost) or f"in {_each(len(pairs), 'cell')}")


def equals_its_depth(losses: Losses) -> Verdict:
    """Whether each FraiLT model is within ``CLOSE`` of the standard model of equal effective depth."""
    behind = {
        (dim, name): row[name] / row[str(Shape.parse(name).depth)] - 1
        for dim, row in losses.items()
        for name in row
        if ":" not in name and not Shape.parse(name).standard and str(Shape.parse(name).depth) in row
    }
    if not behind:
        return NOT_MEASURED
    near = [f"{name} at {dim}" for (dim, name), by in behind.items() if by < CLOSE]
    worst = max(behind, key=behind.__getitem__)
    return Verdict(
        held=len(near) == len(behind),
        evidence=f"{len(near)} of {_counted(len(behind), 'cell')} within {CLOSE:.0%}"
        + (f" ({', '.join(near)})" if near else "")
        + f"; furthest {worst[1]} at {worst[0]} ({behind[worst]:+.1%})",
    )


def outperforms_larger(losses: Losses) -> Verdict:
    """Whether some FraiLT model has a lower loss than a standard model with more parameters."""
    sizes = {(dim, name): _parameters(dim, name) for dim, row in losses.items() for name in row if ":" not in name}
    frailt = [key for key in sizes if not Shape.parse(key[1]).standard]
    standard = [key for key in sizes if Shape.parse(key[1]).standard]
    if not frailt or not standard:
        return NOT_MEASURED
    wins = {
        own: [other for other in standard if sizes[other] > sizes[own] and _loss(losses, other) > _loss(losses, own)]
        for own in frailt
    }
    winners = [own for own in frailt if wins[own]]
    models = _counted(len(frailt), "FraiLT model")
    if not winners:
        return Verdict(held=False, evidence=f"0 of {models} better than a larger standard one")

    def factor(own: tuple[int, str]) -> float:
        return max(sizes[other] for other in wins[own]) / sizes[own]

    best = max(winners, key=factor)
    beaten = max(wins[best], key=sizes.__getitem__)
    return Verdict(
        held=True,
        evidence=f"{len(winners)} of {models}; {best[1]} at {best[0]} is better than {beaten[1]} at "
        f"{beaten[0]} with {factor(best):.1f} times its parameters",
    )


def still_gains(losses: Losses) -> Verdict:
    """Whether a wider model would still gain: the loss falls at the last step of width of every FraiLT model."""
    names = tuple(sorted({name for row in losses.values() for name in row if "^" in name and ":" not in name}))
    last = {name: step for name in names for step in _steps(losses, (name,))}
    if not last:
        return NOT_MEASURED
    gains = {name: losses[a][name] - losses[b][name] for name, (_, a, b) in last.items()}
    said = ", ".join(f"{name} {gain:+.3f}" for name, gain in gains.items())
    return Verdict(held=min(gains.values()) > 0, evidence=f"gain of the last step of width, nats: {said}")


def not_measured(_: Losses) -> Verdict:
    """For claims that no table of losses decides."""
    return NOT_MEASURED


CLAIMS = (
    Claim("4.1", "The loss of 1^2 and 4^2 falls as the width grows.", falls_with_width(("1^2", "4^2"))),
    Claim(
        "4.1",
        "At width 1024, 1^2 and 4^2 catch up with standard models of twice their size (2 and 8).",
        catches_up((("1^2", "2"), ("4^2", "8")), 1024),
    ),
    Claim(
        "4.1",
        "This trend holds across all widths: each wider model comes nearer to the standard one of twice its size.",
        nears_with_width((("1^2", "2"), ("4^2", "8"))),
    ),
    Claim("5", "FraiLT models are better at every width while staying smaller.", beats_its_blocks),
    Claim("5", "Performance may go on improving with larger widths.", still_gains),
    Claim("5", "Performance is similar to that of larger models (here: of equal depth).", equals_its_depth),
    Claim("5", "Such models run on consumer-grade computers and suit distillation.", not_measured),
    Claim("abstract", "FraiLT outperforms larger models.", outperforms_larger),
)
"""In the paper's order."""


def _steps(losses: Losses, names: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """Each model with two neighbouring widths at which it was measured."""
    return [
        (name, a, b) for name in names for a, b in pairwise(sorted(dim for dim, row in losses.items() if name in row))
    ]


def _loss(losses: Losses, key: tuple[int, str]) -> float:
    return losses[key[0]][key[1]]


def _parameters(dim: int, shape: str) -> int:
    """Size with the paper's vocabulary of 512; it does not depend on the number of heads."""
    return count(ModelConfig(dim=dim, shape=shape, heads=1, vocab_size=512)).parameters


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _each(count: int, noun: str) -> str:
    return f"the one {noun}" if count == 1 else f"each of {count} {noun}s"
