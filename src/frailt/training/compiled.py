"""torch.compile for training: the body of a block, once for all blocks, passes, groups and models of its sizes."""

import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from frailt.errors import InputError, excerpt
from frailt.model.frailt import Block, FraiLT


def compile_blocks(model: FraiLT) -> None:
    """Compile the body of a block and use it in every block, pass and group of ``model``, where gradients are wanted.

    Compiling the whole model would unroll its passes: two minutes for 8^8 where a block takes seconds. Validation
    stays uncompiled: it is in float32, with other batches and a last window of its own, each of which torch would
    compile anew.

    Raises:
        InputError: torch would find no C++ compiler, which it needs to compile for a CPU.
    """
    device = next(model.parameters()).device
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InputError(
            f"torch.compile finds no C++ compiler ({excerpt(compiler)}); install one, set CXX, or leave out --compile"
        )
    config = model.config
    transform = _compiled_block(config.dim, config.heads, config.key_value_heads, config.feed_forward_dim)
    for module in model.modules():
        if isinstance(module, Block):
            module.transform = transform.__get__(module)


@cache
def _compiled_block(dim: int, heads: int, kv_heads: int, hidden_dim: int) -> Callable[..., Tensor]:
    """The compiled body of blocks of these sizes: one for all models of the process that have them.

    torch counts what it has compiled by code object, and after a few gives up. So each size has a code object of its
    own.
    """
    eager = Block.transform
    code = eager.__code__.replace(co_name=f"transform_{dim}_{heads}_{kv_heads}_{hidden_dim}")
    function = FunctionType(code, eager.__globals__, code.co_name, eager.__defaults__, eager.__closure__)
    compiled = torch.compile(function, fullgraph=True)

    def transform(*args: Any) -> Tensor:
        return (compiled if torch.is_grad_enabled() else eager)(*args)

    return transform
