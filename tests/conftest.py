"""For every test: shapes in signatures are enforced, one core is enough, hypothesis looks at no clock."""

import jaxtyping
import torch
from hypothesis import settings

# Before the hook: Numba cannot compile what it wraps, and the story world would be ten times slower.
import frailt.data.storyworld
import frailt.inference.cpu.kernels
import frailt.model.cpu_attention  # noqa: F401

# The numeric tower: 1 is a float, as it is for pyright.
CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
jaxtyping.install_import_hook("frailt", CHECKER)
torch.set_num_threads(1)
settings.register_profile("frailt", deadline=None, derandomize=True)
settings.load_profile("frailt")
