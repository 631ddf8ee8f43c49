"""The paper's claims about validation loss (sections 4.1 and 5, and the abstract), each decided by a table of losses.

The same check is made of the paper's own tables and of what was run here, so that a claim which the paper's own numbers
do not bear out is seen as such.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from frailt.model.config import ModelConfig
from frailt.model.counts import count
from frailt.model.variant import Variant
from frailt.paper.verdicts import NOT_MEASURED, Claim, Verdict, decided, held
from frailt.studies.gap import CLOSE

FEW_TOKENS = 1_000_000
"""With a smaller budget, a model has hardly begun to use its depth, and a verdict shows little."""


@dataclass(frozen=True, slots=True)
class Losses:
    """A table of losses."""

    table: Mapping[int, Mapping[str, float]]
    """Nats per token by width and model."""
    chance: float = 0.0
    """Nats per token by which seeds of one model differ: a difference that is no larger means nothing. 0 where that is
    not known."""

    def row(self, dim: int) -> Mapping[str, float]:
        """The losses of a width."""
        return self.table.get(dim, {})

    def cells(self) -> dict[tuple[int, Variant], float]:
        """Losses by width and model, of the paper's kinds of models only: shapes without settings."""
        named = {(dim, Variant.parse(name)): loss for dim, row in self.table.items() for name, loss in row.items()}
        return {key: loss for key, loss in named.items() if not key[1].settings}

    def steps(self, name: str) -> list[tuple[int, int]]:
        """Neighbouring widths at which a model was measured."""
        return list(pairwise(sorted(dim for dim, row in self.table.items() if name in row)))


def falls_with_width(names: tuple[str, ...]) -> Callable[[Losses], Verdict]:
    """Whether the loss of each model falls at every step of width."""

    def decide(losses: Losses) -> Verdict:
        falls = {
            f"{name} from {a} to {b}": losses.row(a)[name] - losses.row(b)[name]
            for name in names
            for a, b in losses.steps(name)
        }
        if not all(losses.steps(name) for name in names):
            return NOT_MEASURED
        return _all(falls, losses.chance, "step")

    return decide


def catches_up(pairs: tuple[tuple[str, str], ...], dim: int) -> Callable[[Losses], Verdict]:
    """Whether a model is within ``CLOSE`` of a larger one, or better, at a width."""

    def decide(losses: Losses) -> Verdict:
        row = losses.row(dim)
        if any(name not in row for pair in pairs for name in pair):
            return NOT_MEASURED
        margin = min((1 + CLOSE) * row[larger] - row[name] for name, larger in pairs)
        shown = "; ".join(f"{name} {row[name] / row[larger] - 1:+.1%} against {larger}" for name, larger in pairs)
        return decided(margin, losses.chance, f"width {dim}: {shown}")

    return decide


def nears_with_width(pairs: tuple[tuple[str, str], ...]) -> Callable[[Losses], Verdict]:
    """Whether a model comes nearer to a larger one, as a ratio of losses, at every step of width."""

    def decide(losses: Losses) -> Verdict:
        nearer: dict[str, float] = {}
        for name, larger in pairs:
            both = {dim: row[name] / row[larger] for dim, row in losses.table.items() if {name, larger} <= row.keys()}
            if len(both) < 2:
                return NOT_MEASURED
            for a, b in pairwise(sorted(both)):
                nearer[f"{name} against {larger} from {a} to {b}"] = (both[a] - both[b]) * losses.row(b)[larger]
        return _all(nearer, losses.chance, "step", prefix="not ")

    return decide


def beats_its_blocks(losses: Losses) -> Verdict:
    """Whether each FraiLT model is better than the standard model with as many blocks."""
    cells = losses.cells()
    leads = {
        f"{variant} at {dim}": cells[dim, variant.shallow] - loss
        for (dim, variant), loss in cells.items()
        if not variant.shape.standard and (dim, variant.shallow) in cells
    }
    return _all(leads, losses.chance, "cell", where="in") if leads else NOT_MEASURED


def equals_its_depth(losses: Losses) -> Verdict:
    """Whether each FraiLT model is within ``CLOSE`` of the standard model of equal effective depth."""
    cells = losses.cells()
    pairs = {
        f"{variant} at {dim}": (loss, cells[dim, variant.deep])
        for (dim, variant), loss in cells.items()
        if not variant.shape.standard and (dim, variant.deep) in cells
    }
    if not pairs:
        return NOT_MEASURED
    margins = {name: (1 + CLOSE) * deep - loss for name, (loss, deep) in pairs.items()}
    near = ", ".join(name for name, margin in margins.items() if margin > 0)
    excess, furthest = max((loss / deep - 1, name) for name, (loss, deep) in pairs.items())
    counted = f"{sum(margin > 0 for margin in margins.values())} of {_counted(len(pairs), 'cell')} within {CLOSE:.0%}"
    detail = f"{counted}{f' ({near})' if near else ''}; furthest {furthest} ({excess:+.1%})"
    return decided(min(margins.values()), losses.chance, detail)


def outperforms_larger(losses: Losses) -> Verdict:
    """Whether some FraiLT model has a lower loss than a standard model with more parameters."""
    cells = losses.cells()
    # Of the paper's vocabulary; heads do not matter.
    sizes = {
        (dim, variant): count(variant.model(ModelConfig(dim=dim, heads=1, vocab_size=512))).parameters
        for dim, variant in cells
    }
    models = [key for key in cells if not key[1].shape.standard]
    standard = [key for key in cells if key[1].shape.standard]
    if not models or not standard:
        return NOT_MEASURED
    leads = {
        (model, other): cells[other] - cells[model]
        for model in models
        for other in standard
        if sizes[other] > sizes[model]
    }
    wins = [pair for pair, lead in leads.items() if lead > losses.chance]
    counted = _counted(len(models), "FraiLT model")
    if not wins:
        return decided(max(leads.values(), default=-1.0), losses.chance, f"0 of {counted} better than a larger one")
    model, other = max(wins, key=lambda pair: sizes[pair[1]] / sizes[pair[0]])
    winners = len({pair[0] for pair in wins})
    return held(
        True,
        f"{winners} of {counted}; {model[1]} at {model[0]} is better than {other[1]} at {other[0]} with "
        f"{sizes[other] / sizes[model]:.1f} times its parameters",
    )


def still_gains(losses: Losses) -> Verdict:
    """Whether a wider model would still gain: the loss falls at the last step of width of every FraiLT model."""
    names = sorted({str(variant) for _, variant in losses.cells() if not variant.shape.standard})
    last = {name: losses.steps(name)[-1] for name in names if losses.steps(name)}
    if not last:
        return NOT_MEASURED
    gains = {name: losses.row(a)[name] - losses.row(b)[name] for name, (a, b) in last.items()}
    shown = ", ".join(f"{name} {gain:+.3f}" for name, gain in gains.items())
    return decided(min(gains.values()), losses.chance, f"gain of the last step of width, nats: {shown}")


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


def _all(margins: Mapping[str, float], chance: float, noun: str, *, where: str = "at", prefix: str = "") -> Verdict:
    """The verdict on a claim that holds where every margin is above 0."""
    failing = [name for name, margin in margins.items() if margin <= chance]
    if failing:
        return decided(min(margins.values()), chance, prefix + "; ".join(failing))
    return held(True, f"{where} the one {noun}" if len(margins) == 1 else f"{where} each of {len(margins)} {noun}s")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
