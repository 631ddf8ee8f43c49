"""One more token of each text of a batch in torch, each with as many passes as it needs.

The loop of ``model.frailt.Group``, with rows that drop out of it: the rule and what the cache holds for skipped passes
are in ``exit_rule.py``.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from frailt.inference.exit_rule import EarlyExit
from frailt.model.attention import View, make_view
from frailt.model.cache import Cache, Slot
from frailt.model.frailt import FraiLT, Group
from frailt.model.shape import Iterations, Shape


class Step(NamedTuple):
    """What reading one more token of each text gives."""

    logits: Float[Tensor, "batch vocab"]
    """Scores of the token after it."""
    passes: Int[Tensor, "batch groups"]
    """Passes that each text's token did in each group."""


def step(
    model: FraiLT, tokens: Int[Tensor, " batch"], cache: Cache, early_exit: EarlyExit, iterations: Iterations = None
) -> Step:
    """Read one token more of each text, after at least one that is in the cache already.

    Where no token leaves early, the logits are those of ``FraiLT.forward``, bit for bit.

    Args:
        model: in evaluation mode.
        tokens: the next token of each text.
        cache: what was read before.
        early_exit: when a token needs no further pass.
        iterations: the most passes, as for ``FraiLT.forward``.

    Raises:
        InputError: the cache is full, iterations do not fit, or the shape has only one pass.
    """
    passes = model.config.passes(iterations)
    may_leave = early_exit.groups(Shape.parse(model.config.shape), passes)
    place = cache.length
    cache.extend(len(tokens), 1, passes, None, tokens.device)
    view = make_view(model.config, 1, place, cache.real, tokens.device)
    x = model.embedding(tokens[:, None])
    done = torch.tensor(passes, device=tokens.device).repeat(len(tokens), 1)
    for n, group in enumerate(model.groups):
        if may_leave[n]:
            x, done[:, n] = _leave_early(model, n, x, passes[n], view, cache, early_exit)
        else:
            x = group(x, passes[n], view, cache, n)[-1]
    return Step(model.read_out(x)[:, 0], done)


def _leave_early(
    model: FraiLT, n: int, x: Float[Tensor, "batch 1 dim"], iterations: int, view: View, cache: Cache, rule: EarlyExit
) -> tuple[Float[Tensor, "batch 1 dim"], Int[Tensor, " batch"]]:
    """Group n for rows that leave when they have converged: their last states, and after which pass."""
    group = model.groups[n]
    assert isinstance(group, Group)
    final = torch.empty_like(x)
    done = torch.full((len(x),), iterations, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    kept: list[list[Tensor]] = [[] for _ in group.blocks]
    seen = None
    for m in range(1, iterations + 1):
        slots = cache.slots_of(n, m, len(kept))
        if not len(rows):
            for slot, newest in zip(slots, kept, strict=True):
                slot.append(*newest)
            continue
        x = group.one_pass(x, m, view, [RowsSlot(*both, rows) for both in zip(slots, kept, strict=True)])
        if m == iterations or m + 1 < rule.least:
            continue
        before, seen = seen, x[:, 0] if rule.criterion == "l2" else model.read_out(x)[:, 0].log_softmax(-1)
        if before is None:
            continue
        if rule.criterion == "l2":
            change = (seen - before).norm(dim=-1) / seen.norm(dim=-1)
        else:
            change = F.kl_div(before, seen, reduction="none", log_target=True).sum(-1)
        leaving = change < rule.threshold
        staying = ~leaving
        final[rows[leaving]], done[rows[leaving]] = x[leaving], m
        rows, x, seen = rows[staying], x[staying], seen[staying]
        if view.mask is not None:  # Then each row has a view of its own.
            view = View(view.cos[staying], view.sin[staying], view.mask[staying])
    final[rows] = x
    return final, done


class RowsSlot(Slot):
    """A slot for a pass that only some rows do; the others store what they had in their own last pass.

    Args:
        slot: of the whole batch.
        kept: the newest keys and values of the same block for this token, of every row; empty before the first pass.
        rows: which rows do this pass.
    """

    def __init__(self, slot: Slot, kept: list[Tensor], rows: Int[Tensor, " rows"]) -> None:
        self.slot, self.kept, self.rows = slot, kept, rows

    def append(
        self, k: Float[Tensor, "rows kv_heads 1 head"], v: Float[Tensor, "rows kv_heads 1 head"]
    ) -> tuple[Float[Tensor, "rows kv_heads keys head"], Float[Tensor, "rows kv_heads keys head"]]:
        """Store keys and values of all rows; return those of the rows that do this pass."""
        if not self.kept or len(self.rows) == len(self.kept[0]):
            self.kept[:] = k, v
            return self.slot.append(k, v)
        for held, new in zip(self.kept, (k, v), strict=True):
            held[self.rows] = new
        keys, values = self.slot.append(*self.kept)
        return keys[self.rows], values[self.rows]
