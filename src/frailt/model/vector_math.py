"""Scalar functions for Numba kernels that LLVM can put into vector lanes: bits as floats, maximum, exponential."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types

f32 = np.float32
intrinsic: Any = extending.intrinsic
"""Numba's, without the signature of the decorated function, which is not that of a call."""
FAST: dict[str, Any] = {"fastmath": True, "error_model": "numpy", "nogil": True}
"""Options of every kernel."""
LOG2_E = f32(1.4426950408889634)


@intrinsic
def float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float32 that has the bits of an int32."""
    return types.float32(types.int32), lambda _, builder, __, arguments: builder.bitcast(arguments[0], ir.FloatType())


@intrinsic
def bits_of_float(typing_context: Any, x: Any) -> Any:
    """The bits of a float32 as an int32."""
    return types.int32(types.float32), lambda _, builder, __, arguments: builder.bitcast(arguments[0], ir.IntType(32))


@intrinsic
def maximum(typing_context: Any, one: Any, other: Any) -> Any:
    """The greater of two, as an operation that LLVM knows how to vectorise over a loop; it does not know ``max``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.FloatType()
        kind = ir.FunctionType(number, [number, number])
        return builder.call(builder.module.declare_intrinsic("llvm.maxnum", [number], kind), arguments)

    return types.float32(types.float32, types.float32), generate


@numba.njit(inline="always", fastmath=True)
def exp2(t):
    """2^t for t below 128, to 2e-7 relative: written out because a call into libm is not vectorised.

    The whole part goes into the exponent bits, a polynomial does the fraction. Below 2^-126 it is 0.
    """
    n = np.floor(t)
    y = t - n
    p = f32(0.00189646115)
    p = p * y + f32(0.00894282898)
    p = p * y + f32(0.0558662463)
    p = p * y + f32(0.240139967)
    p = p * y + f32(0.693154638)
    p = p * y + f32(0.99999994)
    e = p * float_of_bits((np.int32(n) + np.int32(127)) << np.int32(23))
    return e if t >= f32(-126) else f32(0)


@numba.njit(inline="always", fastmath=True)
def exp_of_negative(x):
    """exp(x) for x at most 0, like ``exp2``."""
    return exp2(x * LOG2_E)
