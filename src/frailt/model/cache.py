"""Keys and values of tokens already read, so that the next token costs one step.

A block that is passed M times sees M different signals, so it needs M places: the cache has one slot for each
(group, iteration, block).
"""

from collections import defaultdict
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from frailt.errors import InputError

SlotKey = tuple[int, int, int]
"""(group, iteration, block): group and block from 0, iteration from 1."""


class Slot:
    """The keys and values that one block saw in one pass."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.buffer = torch.empty(0)
        """Keys and values, ``(2, batch, kv_heads, capacity, head)``; made when the first ones come."""

    def append(
        self, k: Float[Tensor, "batch kv_heads time head"], v: Float[Tensor, "batch kv_heads time head"]
    ) -> tuple[Float[Tensor, "batch kv_heads keys head"], Float[Tensor, "batch kv_heads keys head"]]:
        """Store new keys and values; return all of them so far."""
        if not self.buffer.numel():
            self.buffer = k.new_empty((2, *k.shape[:2], self.capacity, k.shape[3]))
        start, self.length = self.length, self.length + k.shape[2]
        self.buffer[0, :, :, start : self.length] = k
        self.buffer[1, :, :, start : self.length] = v
        return self.buffer[0, :, :, : self.length], self.buffer[1, :, :, : self.length]

    def move(self, places: int) -> None:
        """Move what it holds to later places, with zeros before it, or to earlier ones, over what was there."""
        if not places:
            return
        held = self.buffer[:, :, :, max(0, -places) : self.length].clone()
        self.length += places
        self.buffer[:, :, :, : max(0, places)] = 0
        self.buffer[:, :, :, max(0, places) : self.length] = held


class Cache:
    """What a model remembers of a batch of sequences.

    Args:
        capacity: most tokens that will be read into it, the padding included.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        """Tokens read so far, the padding included."""
        self.real: Bool[Tensor, "batch length"] | None = None
        """Which of them are text and not padding; ``None`` while nothing was padded."""
        self.passes: tuple[int, ...] | None = None
        """Passes of each group for the tokens read so far; ``None`` while it is empty."""
        self.slots: defaultdict[SlotKey, Slot] = defaultdict(partial(Slot, capacity))

    def slots_of(self, group: int, m: int, blocks: int) -> list[Slot]:
        """The slots of a group's blocks in pass ``m``, made at first use."""
        return [self.slots[group, m, block] for block in range(blocks)]

    def extend(
        self,
        batch: int,
        time: int,
        passes: tuple[int, ...],
        real: Bool[Tensor, "batch time"] | None,
        device: torch.device,
    ) -> None:
        """Count ``time`` new tokens in. Called once a forward pass, before the blocks fill their slots.

        Raises:
            InputError: they do not fit, or have other passes than those before, so that some slots would have gaps.
        """
        if self.length + time > self.capacity:
            raise InputError(
                f"the cache holds {self.capacity} tokens and {self.length + time} are asked for; make a larger one"
            )
        if self.passes not in (None, passes):
            raise InputError(
                f"the cache was read with {self.passes} passes and {passes} are asked for; use a new cache"
            )
        self.passes = passes
        if real is not None or self.real is not None:
            everything = torch.ones(batch, self.length + time, dtype=torch.bool, device=device)
            before = everything[:, : self.length] if self.real is None else self.real
            self.real = torch.cat((before, everything[:, self.length :] if real is None else real), dim=1)
        self.length += time

    def select(self, rows: list[int]) -> None:
        """Keep only these sequences of the batch, in this order. Padding before all of them is dropped."""
        padding = 0
        if self.real is not None:
            self.real = self.real[rows]
            padding = int(self.real.any(dim=0).int().argmax())
            self.real = None if self.real[:, padding:].all() else self.real[:, padding:]
        self.length -= padding
        for slot in self.slots.values():
            slot.buffer = slot.buffer[:, rows]
            slot.move(-padding)

    def join(self, other: "Cache") -> None:
        """Put the sequences of a cache of the same model, passes and capacity after these; the shorter ones get padding
        before them."""
        length = max(self.length, other.length)
        real = []
        for cache in (self, other):
            buffer = next(iter(cache.slots.values())).buffer
            everything = torch.ones(buffer.shape[1], cache.length, dtype=torch.bool, device=buffer.device)
            real.append(F.pad(everything if cache.real is None else cache.real, (length - cache.length, 0)))
            for slot in cache.slots.values():
                slot.move(length - cache.length)
        self.real, self.length = torch.cat(real), length
        for key, slot in self.slots.items():
            slot.buffer = torch.cat((slot.buffer, other.slots[key].buffer), dim=1)

    def bytes(self) -> int:
        """Memory that its buffers take."""
        return sum(slot.buffer.nbytes for slot in self.slots.values())
