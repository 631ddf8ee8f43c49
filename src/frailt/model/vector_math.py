"""Scalar functions for Numba kernels that LLVM can put into vector lanes: bits as floats, the exponential."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

f32 = np.float32


def _bitcast(typing_context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


float_of_bits: Any = intrinsic(_bitcast)
"""The float32 that has the bits of an int32."""


@numba.njit(inline="always", fastmath=True)
def exp_of_negative(x):
    """exp(x) for x at most 0, to 2e-7 relative: written out because a call into libm is not vectorised.

    2^t with t = x log2(e): the whole part goes into the exponent bits, a polynomial does the fraction.
    """
    t = max(x * f32(1.4426950408889634), f32(-126.0))
    n = np.floor(t)
    y = t - n
    p = f32(0.00189646115)
    p = p * y + f32(0.00894282898)
    p = p * y + f32(0.0558662463)
    p = p * y + f32(0.240139967)
    p = p * y + f32(0.693154638)
    p = p * y + f32(0.99999994)
    return p * float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))
