"""What torchrun says to this process: which of how many it is."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A process among those that were started together."""

    rank: int = 0
    """Its number, from 0. Rank 0 writes and reports."""
    ranks: int = 1
    """Processes in all."""
    local_rank: int = 0
    """Its number on this machine, from 0: its GPU, and at 0 the one that speaks to the user here."""
    local_ranks: int = 1
    """Processes on this machine."""


def place() -> Place:
    """The place of this process; a process that was started by itself is the first of one."""
    names = {"rank": "RANK", "ranks": "WORLD_SIZE", "local_rank": "LOCAL_RANK", "local_ranks": "LOCAL_WORLD_SIZE"}
    if not os.environ.keys() >= set(names.values()):
        return Place()
    return Place(**{field: int(os.environ[name]) for field, name in names.items()})
