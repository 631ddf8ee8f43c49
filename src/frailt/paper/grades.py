"""Graded models: the paper's and one's own, and Tables 4 and 5 with both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean as plain_mean

from frailt.evaluation.judge.grading import METRICS
from frailt.model.variant import Variant
from frailt.paper.published import TABLE_4, TABLE_5
from frailt.statistics import Mean

KINDS = ("standard", "FraiLT")
ROWS = (("1", "1^8"), ("2", "2^4"), ("4", "4^2"), ("8", None))
"""The paper's rows within each width: a standard shape, and the FraiLT shape beside it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GradedModel:
    """A model, its validation loss and its grades."""

    name: str
    dim: int
    shape: str
    """As `Variant` prints it: what is not as in the paper stands behind a colon."""
    loss: float | None
    """Nats per token; None where it is not known."""
    grades: dict[str, Mean]
    """The four metrics and "average"; empty where no completion was graded."""

    @property
    def kind(self) -> str:
        """Which half of the tables it belongs to."""
        return KINDS[0] if _is_standard(self.shape) else KINDS[1]

    @property
    def ablated(self) -> bool:
        """Whether a setting is not the paper's: shown, but left out of fits and claims."""
        return bool(Variant.parse(self.shape).settings)


def published_models() -> list[GradedModel]:
    """The 35 models of Table 4."""
    models: list[GradedModel] = []
    for dim, cells in TABLE_4.items():
        for shape, (loss, *values) in cells.items():
            named = zip((*METRICS, "average"), (*values, plain_mean(values)), strict=True)
            grades = {name: Mean(value=value, interval=None, count=None) for name, value in named}
            models.append(GradedModel(name=f"{shape}, width {dim}", dim=dim, shape=shape, loss=loss, grades=grades))
    return models


def table_4(models: Sequence[GradedModel]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of Table 4: a cell holds the own value, then the paper's in brackets.

    An own value stands only where a model of that width and shape was graded; of several it is the mean.
    """
    return _table(models, ("loss", *METRICS), TABLE_4)


def table_5(models: Sequence[GradedModel]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of Table 5, in the same way."""
    paper = {dim: {shape: (value,) for shape, value in row.items()} for dim, row in TABLE_5.items()}
    return _table(models, ("average",), paper)


def _table(
    models: Sequence[GradedModel], columns: tuple[str, ...], paper: Mapping[int, Mapping[str, tuple[float, ...]]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    def cells(dim: int, shape: str | None) -> list[str]:
        graded = [model for model in models if (model.dim, model.shape) == (dim, shape) and model.grades]
        published = paper.get(dim, {}).get(shape or "") or [None] * len(columns)
        row = []
        for column, theirs in zip(columns, published, strict=True):
            values = [model.loss if column == "loss" else model.grades[column].value for model in graded]
            known = [value for value in values if value is not None]
            row.append(_cell(plain_mean(known) if known else None, theirs))
        return row

    rows = []
    for dim in sorted({*TABLE_4, *(model.dim for model in models)}):
        known = {shape for row in ROWS for shape in row if shape}
        others = dict.fromkeys(model.shape for model in models if model.dim == dim and model.shape not in known)
        of_paper = [row for row in ROWS if dim in TABLE_4 or any(m.dim == dim and m.shape in row for m in models)]
        more = [(shape, None) if _is_standard(shape) else (None, shape) for shape in others]
        for standard, frailt in (*of_paper, *more):
            shapes = f"{standard or '-'} / {frailt or '-'}"
            rows.append((str(dim), shapes, *cells(dim, standard), *cells(dim, frailt)))
    return ("width", "shapes", *(f"{kind} {column}" for kind in KINDS for column in columns)), rows


def _cell(ours: float | None, paper: float | None) -> str:
    value = "" if ours is None else f"{ours:.2f}"
    return value if paper is None else f"{value} ({paper:.2f})".strip()


def _is_standard(name: str) -> bool:
    return Variant.parse(name).shape.standard
