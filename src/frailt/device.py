"""Which device to compute on."""

from typing import TYPE_CHECKING, Literal

from frailt.errors import InputError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]


def choose_device(name: Device) -> "torch.device":
    """The device for a name; auto: cuda, else mps, else cpu.

    Raises:
        InputError: it is not there.
    """
    import torch  # Only here: the compiled decoder does without.

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, here in there.items() if here))
    if not there.get(name):
        raise InputError(
            f"device {name} is not available here; use one of {', '.join(k for k, h in there.items() if h)}"
        )
    return torch.device(name)
