"""Claims of the paper, and what numbers say of them. Which claims there are stands in ``claims.py`` (of losses) and in
``section_4_2.py`` (of grades)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Evidence = TypeVar("Evidence")
"""What a claim is decided by: a table of losses, or graded models."""

Outcome = Literal["held", "did not hold", "within chance", "not measured"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What numbers say of a claim."""

    outcome: Outcome
    detail: str = ""
    """The numbers behind it."""

    def __str__(self) -> str:
        return f"{self.outcome}: {self.detail}" if self.detail else self.outcome


NOT_MEASURED = Verdict(outcome="not measured")


def held(good: bool, detail: str) -> Verdict:
    """A verdict where chance has no say."""
    return Verdict(outcome="held" if good else "did not hold", detail=detail)


def decided(margin: float, chance: float, detail: str) -> Verdict:
    """A verdict on a difference that must be above 0, of which up to ``chance``, of either sign, means nothing."""
    if chance > 0 and abs(margin) <= chance:
        return Verdict(outcome="within chance", detail=detail)
    return held(margin > 0, detail)


@dataclass(frozen=True, slots=True)
class Claim(Generic[Evidence]):
    """A sentence of the paper, in this project's words, and how it is decided."""

    section: str
    text: str
    decide: Callable[[Evidence], Verdict]

    @property
    def rule(self) -> str:
        """When it counts as held: the docstring of ``decide``."""
        return " ".join((self.decide.__doc__ or "").split())


@dataclass(frozen=True, kw_only=True, slots=True)
class DecidedClaim:
    """A claim beside its verdict, for reports."""

    section: str
    text: str
    rule: str
    verdict: Outcome
    detail: str
