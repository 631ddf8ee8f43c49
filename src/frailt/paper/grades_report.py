"""What stands beside one's own grades: the paper's Tables 4 and 5, Figures 6 and 7, its power law and its claims."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frailt.evaluation.judge.grading import METRICS
from frailt.evaluation.judge.reports import Graded, plain
from frailt.paper.grades import KINDS, GradedModel, published_models, table_4, table_5
from frailt.paper.grades_figures import draw_figure_6, draw_figure_7
from frailt.paper.power_law import power_laws
from frailt.paper.section_4_2 import claims
from frailt.reports import Markdown, markdown_table, render


def models_of(graded: Sequence[Graded]) -> list[GradedModel]:
    """Graded models as the paper's tables have them."""
    return [
        GradedModel(name=who.name, dim=who.dim, shape=who.shape, loss=who.loss, grades=item.grades)
        for item in graded
        for who in [item.student]
    ]


def beside_the_paper(models: Sequence[GradedModel], out: Path) -> tuple[dict[str, Any], Markdown]:
    """Values for ``judge.json`` and a section for ``judge.md``; Figures 6 and 7 are drawn into ``out``."""
    paper = published_models()
    sides = {"own": models, "paper": paper}
    laws = {name: power_laws(side) for name, side in sides.items()}
    verdicts = {name: claims(side) for name, side in sides.items()}
    draw_figure_6(models, paper, out / "figure-6.png")
    draw_figure_7(models, paper, out / "figure-7.png")
    section = render(
        "frailt.paper",
        "grades.md",
        table_4=markdown_table(*table_4(models), words=2),
        table_5=markdown_table(*table_5(models), words=2),
        laws=markdown_table(
            ("grade", "models", "ours", "the paper's Table 4"),
            [
                (metric, kind, *(laws[side][metric][kind] or "" for side in ("own", "paper")))
                for metric in ("average", *METRICS)
                for kind in ("all", *KINDS)
            ],
            words=2,
        ),
        verdicts=markdown_table(
            ("claim", "by the paper's numbers", "by ours"),
            [
                (theirs.text, *(f"**{claim.verdict}**: {claim.detail}" for claim in (theirs, ours)))
                for theirs, ours in zip(verdicts["paper"], verdicts["own"], strict=True)
            ],
            words=3,
        ),
        claims=verdicts["paper"],
    )
    return {"power_laws": plain(laws), "claims": plain(verdicts)}, section
