"""The paper's grid as data: which models it has, and the one protocol that trains them all."""

from dataclasses import dataclass, field, replace

from frailt.errors import InputError
from frailt.model.variant import LOOP, Variant
from frailt.paper.published import TABLE_2, TABLE_3
from frailt.studies.cells import same_run, training_flops
from frailt.studies.comparison import CompareConfig
from frailt.training.config import TrainConfig

WIDTHS = tuple(TABLE_2)
"""The paper's embedding dimensions."""
SHAPES = (*TABLE_2[64], *TABLE_3[64])
"""The paper's models: standard of 1, 2, 4 and 8 blocks, and 1^2, 1^8, 2^4, 4^2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """Which cells of the grid, and how all of them are trained."""

    widths: tuple[int, ...] = WIDTHS
    """Embedding dimensions."""
    shapes: tuple[str, ...] = SHAPES
    """Names of models: shapes, and settings behind a colon, like 1^8:none."""
    seeds: tuple[int, ...] = (0,)
    """Each model is trained once with each seed."""
    base: TrainConfig = field(default_factory=TrainConfig)
    """The protocol, the same for all. Its width, shape, encoding and seed are not used."""
    budgets: dict[int, int] = field(default_factory=dict)
    """Training tokens by width, where they differ; empty: those of ``base``."""

    def __post_init__(self) -> None:
        if not self.widths:
            raise InputError("a grid needs at least one width")
        if len(set(self.widths)) < len(self.widths):
            raise InputError("a width is listed twice; list each once")
        for dim in self.widths:  # What is wrong with any cell is refused here, and not after hours of others.
            self.comparison(dim)

    def comparison(self, dim: int) -> CompareConfig:
        """The models of one width.

        Raises:
            InputError: there is no budget for it, or a model cannot have it.
        """
        if self.budgets and dim not in self.budgets:
            raise InputError(f"the budget has no tokens for width {dim}; add {dim}:TOKENS")
        tokens = self.budgets.get(dim, self.base.tokens)
        base = replace(self.base, model=replace(self.base.model, dim=dim), tokens=tokens)
        return CompareConfig(shapes=self.shapes, seeds=self.seeds, base=base)

    def cells(self) -> tuple[TrainConfig, ...]:
        """All runs, width by width, the costliest first, so that workers side by side end at about one time."""
        cells: list[TrainConfig] = []
        for dim in self.widths:
            comparison = self.comparison(dim)
            for seed in self.seeds:  # A first seed of all comes before the second of any.
                runs = [comparison.run(variant, seed) for variant in comparison.variants]
                cells += sorted(runs, key=lambda config: -training_flops(config))
        return tuple(cells)

    def with_steps(self, steps: int) -> "GridConfig":
        """The same grid with another token budget, the same at every width."""
        return replace(self, base=replace(self.base, tokens=steps * self.base.tokens_per_step), budgets={})

    def variant(self, config: TrainConfig) -> Variant | None:
        """What a run's model is called in this grid; ``None`` where the run was trained by another protocol.

        Width and seed are no part of the protocol, and neither are the shapes that are asked for.
        """
        try:
            comparison = self.comparison(config.model.dim)
            variant = comparison.variant(config)
            # A variant that nobody asked for may differ in its passes alone: other settings are another protocol's.
            known = variant in comparison.variants or {name for name, _ in variant.settings} <= LOOP
            if known and same_run(comparison.run(variant, config.seed), config):
                return variant
        except InputError:  # This protocol has no such width.
            pass
        return None
