"""The paper's grid as data: which models it has, and the one protocol that trains them all."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from frailt.data.corpus import Corpus
from frailt.errors import InputError
from frailt.model.counts import count
from frailt.paper.published import TABLE_2, TABLE_3
from frailt.studies.comparison import CompareConfig, alike, run_name
from frailt.training.config import TrainConfig
from frailt.training.run_folder import INCIDENTAL

WIDTHS = tuple(TABLE_2)
"""The paper's embedding dimensions."""
SHAPES = (*TABLE_2[64], *TABLE_3[64])
"""The paper's models: standard of 1, 2, 4 and 8 blocks, and 1^2, 1^8, 2^4, 4^2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One model of the grid with one seed."""

    name: str
    """Its shape, with the encoding behind a colon where it is not the paper's."""
    config: TrainConfig
    """How it is trained."""

    @property
    def dim(self) -> int:
        """Width."""
        return self.config.model.dim

    @property
    def label(self) -> str:
        """A name for people and files."""
        return f"d{self.dim}-{run_name(self.name, self.config.seed)}"

    @property
    def work(self) -> int:
        """Forward FLOPs of its training tokens: what it costs beside other cells."""
        return count(self.config.model).flops * self.config.steps * self.config.tokens_per_step

    def folder(self, out: Path, corpus: Corpus) -> Path:
        """Its run folder. Another config or other data make another name, so nothing is ever trained over."""
        settings = {key: value for key, value in asdict(self.config).items() if key not in INCIDENTAL}
        content = json.dumps([settings, corpus.digest], sort_keys=True)
        return out / "runs" / f"{self.label}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """Which cells of the grid, and how all of them are trained."""

    widths: tuple[int, ...] = WIDTHS
    """Embedding dimensions."""
    shapes: tuple[str, ...] = SHAPES
    """Models in shape notation. An encoding may follow a colon: 1^8:none."""
    seeds: tuple[int, ...] = (0,)
    """Each model is trained once with each seed."""
    base: TrainConfig = field(default_factory=TrainConfig)
    """The protocol, the same for all. Its width, shape, encoding and seed are not used."""

    def __post_init__(self) -> None:
        if not self.widths:
            raise InputError("a grid needs at least one width")
        if len(set(self.widths)) < len(self.widths):
            raise InputError("a width is listed twice; list each once")
        for dim in self.widths:  # What is wrong with any cell is refused here, and not after hours of others.
            self.comparison(dim)

    def comparison(self, dim: int) -> CompareConfig:
        """The models of one width."""
        base = replace(self.base, model=replace(self.base.model, dim=dim))
        return CompareConfig(shapes=self.shapes, seeds=self.seeds, base=base)

    def cells(self) -> tuple[Cell, ...]:
        """All cells, width by width, the costliest first, so that workers side by side end at about one time."""
        cells = []
        for dim in self.widths:
            comparison = self.comparison(dim)
            own = [
                Cell(name=name, config=comparison.run(name, seed))
                for seed in self.seeds  # A first seed of all comes before the second of any.
                for name in self.shapes
            ]
            cells += sorted(own, key=lambda cell: (self.seeds.index(cell.config.seed), -cell.work))
        return tuple(cells)

    def owns(self, config: TrainConfig) -> bool:
        """Whether a run was trained by this grid's protocol, whatever its width, shape, encoding and seed."""
        same = {name: getattr(config, name) for name in INCIDENTAL}
        base = replace(self.base, model=replace(self.base.model, dim=config.model.dim), **same)
        return alike(base, config) == config
