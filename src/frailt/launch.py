"""Which of the processes that torchrun started this one is."""

import os
from dataclasses import dataclass

from frailt.errors import InputError, excerpt


@dataclass(frozen=True, kw_only=True, slots=True)
class RankInfo:
    """A process among those that were started together."""

    rank: int = 0
    """Its number, from 0. Rank 0 writes files and reports."""
    world_size: int = 1
    """Processes in all."""
    local_rank: int = 0
    """Its number on this machine, from 0: its GPU. Local rank 0 prints what goes wrong here."""
    local_world_size: int = 1
    """Processes on this machine."""


def rank_info() -> RankInfo:
    """What torchrun says about this process; a process that was started by itself is rank 0 of one.

    Raises:
        InputError: the environment variables are not what torchrun sets.
    """
    fields = ("rank", "world_size", "local_rank", "local_world_size")
    given = {field: os.environ[field.upper()] for field in fields if field.upper() in os.environ}
    if len(given) < len(fields):
        return RankInfo()
    if not all(value.isdecimal() and len(value) < 10 for value in given.values()):
        raise InputError(
            f"RANK and its kin are {excerpt(list(given.values()))}, not numbers; unset them or use torchrun"
        )
    info = RankInfo(**{field: int(value) for field, value in given.items()})
    if info.rank >= info.world_size or info.local_rank >= info.local_world_size:
        raise InputError(f"rank {info.rank} of {info.world_size} cannot be; unset RANK and WORLD_SIZE or use torchrun")
    return info
