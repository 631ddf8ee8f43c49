"""For every test: shapes in signatures are enforced, torch keeps to one core, hypothesis has no clock."""

import jaxtyping
import torch
from hypothesis import settings

import frailt.model.small_heads  # noqa: F401  (before the hook: Numba cannot compile what the hook wraps)

jaxtyping.install_import_hook("frailt", "beartype.beartype")
torch.set_num_threads(1)
settings.register_profile("frailt", deadline=None)
settings.load_profile("frailt")
