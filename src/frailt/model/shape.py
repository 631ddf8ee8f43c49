"""Shape notation: how many blocks, in which groups, passed how often.

======================  =====================================================================
``8``                   eight plain blocks, no iteration encodings (a standard model)
``2^4``                 two groups of one block, four passes each (the paper's experiments)
``(2)^4``               one group of two blocks, four passes
``1+(4)^3+1``           terms in series
======================  =====================================================================

``8`` and a bare ``1`` have no encodings; ``1^1`` has one. ``(1)^8`` and ``1^8`` are the same shape.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from frailt.errors import InputError, excerpt

_TERM = re.compile(r"(?:\((?P<loop>[1-9]\d*)\)|(?P<blocks>[1-9]\d*))(?:\^(?P<passes>[1-9]\d*))?", re.ASCII)
_LIMIT = 1024
"""Largest effective depth: far past any use, small enough that a typing slip does not fill the memory."""
_LONGEST = 16 * _LIMIT
"""Characters of a shape, spaces included."""


Iterations = int | tuple[int, ...] | None
"""Passes: the shape's own, one number for every group with M > 1, or a number for each group."""


@dataclass(frozen=True, slots=True)
class GroupShape:
    """L blocks in sequence, passed M times."""

    blocks: int
    """L, the blocks stored."""
    iterations: int
    """M, the passes through them."""
    encoded: bool
    """Whether each block has an encoding for each pass; false only for plain blocks (M = 1)."""

    @property
    def depth(self) -> int:
        """L x M, the blocks that a signal meets."""
        return self.blocks * self.iterations


@dataclass(frozen=True, slots=True)
class Shape:
    """The groups of a model in order. Its text form (``str(shape)``) is canonical: equal shapes, equal texts."""

    groups: tuple[GroupShape, ...]

    @classmethod
    @lru_cache(maxsize=256)
    def parse(cls, text: str) -> "Shape":
        """Read shape notation.

        Raises:
            InputError: ``text`` is not in the notation above, or deeper than 1024 blocks.
        """
        groups: list[GroupShape] = []
        if len(text) > _LONGEST:
            raise InputError(f"shape {excerpt(text)!r} is too long; use fewer terms")
        for term in text.replace(" ", "").split("+"):
            match = _TERM.fullmatch(term)
            if match is None or (match["loop"] and not match["passes"]):
                raise InputError(
                    f"shape {excerpt(text)!r} is not understood at {excerpt(term)!r}; write 8 (plain blocks), "
                    "2^4 (two blocks, each passed 4 times), (2)^4 (two blocks as one group), or terms joined by +"
                )
            # Bounded before use: a count of many digits would ask for that many groups.
            counts = [int(match[name][:6]) if match[name] else 1 for name in ("loop", "blocks", "passes")]
            if (sum(g.depth for g in groups) + counts[0] * counts[1] * counts[2]) > _LIMIT:
                raise InputError(f"shape {excerpt(text)!r} is deeper than {_LIMIT} blocks; use fewer blocks or passes")
            loop, blocks, passes = counts
            if match["passes"] is None:
                if groups and not groups[-1].encoded:  # Plain blocks in a row are one group: 1+1 is 2.
                    blocks += groups.pop().blocks
                groups.append(GroupShape(blocks, 1, encoded=False))
            elif match["loop"] is not None:
                groups.append(GroupShape(loop, passes, encoded=True))
            else:
                groups += [GroupShape(1, passes, encoded=True)] * blocks
        return cls(tuple(groups))

    def __str__(self) -> str:
        terms = []
        for (inner, passes, encoded), run in groupby(
            self.groups, key=lambda g: (g.blocks if g.encoded else 0, g.iterations, g.encoded)
        ):
            members = list(run)
            if not encoded:
                terms.append(str(sum(g.blocks for g in members)))
            elif inner == 1:
                terms.append(f"{len(members)}^{passes}")
            else:
                terms += [f"({inner})^{passes}"] * len(members)
        return "+".join(terms)

    @property
    def slug(self) -> str:
        """A name for files that needs no quoting in a shell: ``(2)^4+1`` is ``g2x4_1``."""
        return str(self).replace("(", "g").replace(")", "").replace("^", "x").replace("+", "_")

    @property
    def blocks(self) -> int:
        """Blocks stored: what the parameters grow with."""
        return sum(group.blocks for group in self.groups)

    @property
    def depth(self) -> int:
        """Effective depth, blocks times passes: what computation grows with."""
        return sum(group.depth for group in self.groups)

    @property
    def standard(self) -> bool:
        """Whether this is a plain model: no encodings and no second pass anywhere."""
        return not any(group.encoded for group in self.groups)

    def passes(self, iterations: Iterations) -> tuple[int, ...]:
        """The number of passes of each group.

        Raises:
            InputError: a count below 1, too many, or a tuple of another length than the groups.
        """
        if iterations is None:
            return tuple(group.iterations for group in self.groups)
        if isinstance(iterations, int):
            chosen = tuple(iterations if g.iterations > 1 else g.iterations for g in self.groups)
        else:
            chosen = tuple(iterations)
        if len(chosen) != len(self.groups) or min(chosen) < 1:
            raise InputError(
                f"passes {excerpt(iterations)} do not fit shape {self}: give one count of at least 1, "
                f"or one for each of its {len(self.groups)} groups"
            )
        if sum(group.blocks * count for group, count in zip(self.groups, chosen, strict=True)) > _LIMIT:
            raise InputError(f"passes {excerpt(iterations)} make shape {self} deeper than {_LIMIT} blocks; use fewer")
        return chosen
