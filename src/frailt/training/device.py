"""Device and precision of a run, and the message when it runs out of memory."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

from frailt.errors import InputError

Precision = Literal["auto", "float32", "bfloat16"]


def choose_precision(name: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision for a name; auto: bfloat16 where the device has instructions for it that training is known to gain
    by (`bench/train.py`), else float32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        fast = device.type == "cpu" and bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return "bfloat16" if fast else "float32"


def autocast(precision: Literal["float32", "bfloat16"], device: torch.device) -> AbstractContextManager[Any]:
    """Around a forward pass in this precision."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, dtype=torch.bfloat16)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory could not be had. On a CPU torch has no class of its own for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


@contextmanager
def explain_out_of_memory(device: torch.device, batch: int) -> Iterator[None]:
    """Around training with so many sequences a step.

    Raises:
        InputError: memory did not suffice within.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"out of memory on {device.type} with batch {batch}: lower --batch or raise --accumulate, "
            "or train a smaller model"
        ) from None
