"""When a token needs no further pass, without torch. The loops that ask: ``exit_torch.py``, ``cpu/kernels.py``.

Where a pass has hardly changed anything, further ones are expected not to either. That is so for models trained with
random passes (``frailt train --passes random``), which have learned to be read after any of them.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from frailt.errors import InputError
from frailt.model.shape import Shape

Criterion = Literal["l2", "kl"]
"""What is compared between a pass and the one before it. ``l2``: the states, ``|x_m - x_(m-1)| / |x_m|``. ``kl``: what
they predict, ``KL(p_m || p_(m-1))`` in nats; this reads the head after every pass."""

_TEXT = re.compile(r"(?P<criterion>l2|kl):(?P<threshold>(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)(:(?P<least>\d+))?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyExit:
    """A token leaves a group of several passes after the first pass that changes less than a threshold.

    Each token decides for itself, in each group anew; a prompt is read in one piece, with all passes. With ``l2`` this
    holds for every group with M > 1. With ``kl`` only for the last of these: an earlier group's state is not made to be
    read by the head, so those do all their passes.

    What the cache holds for skipped passes: a token that left after pass p has keys and values of its passes 1 to p,
    and those of pass p once more, block by block, in the slot of each pass that it skipped. Later tokens that go deeper
    attend to these copies. Keys and values computed from the state at the exit instead, with the encoding of the pass
    that is skipped, gave the same loss and cost more (docs/log.md).
    """

    criterion: Criterion = "l2"
    """l2 compares states, kl predictions."""
    threshold: float
    """Leave below this; 0: never leave."""
    least: int = 2
    """Passes that every token does; at least 2, since two are compared."""

    def __post_init__(self) -> None:
        if self.criterion not in get_args(Criterion):
            raise InputError(
                f"exit criterion {self.criterion!r} is unknown; choose one of {', '.join(get_args(Criterion))}"
            )
        if not 0 <= self.threshold < math.inf:
            raise InputError(f"exit threshold is {self.threshold}; it must be at least 0 and finite")
        if self.least < 2:
            raise InputError(f"least passes before an exit are {self.least}; they must be at least 2")

    @classmethod
    def parse(cls, text: str) -> "EarlyExit":
        """Read ``l2:0.05``, or ``l2:0.05:3`` for at least three passes.

        Raises:
            InputError: ``text`` is not of this form.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InputError(
                f"exit {text!r} is not understood; write l2:0.05, kl:0.001, or l2:0.05:3 for at least three passes"
            )
        criterion = "l2" if match["criterion"] == "l2" else "kl"
        return cls(criterion=criterion, threshold=float(match["threshold"]), least=int(match["least"] or 2))

    def groups(self, shape: Shape, passes: tuple[int, ...]) -> tuple[bool, ...]:
        """Which groups may be left early, when they are passed ``passes`` times.

        Raises:
            InputError: the shape has no group with several passes.
        """
        several = [n for n, group in enumerate(shape.groups) if group.iterations > 1]
        if not several:
            raise InputError(f"shape {shape} has only one pass; leave out the early exit")
        own = several if self.criterion == "l2" else several[-1:]
        return tuple(self.threshold > 0 and n in own and passes[n] > self.least for n in range(len(passes)))
