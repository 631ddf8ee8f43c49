"""A matrix times a vector, 16 rows at a time, for weights in float32, bfloat16 and int8.

Sixteen rows lie interleaved in memory: the first number (or pair of numbers) of each row, then the second of each.
So a matrix is one stream, each row has a vector lane of its own, and no lanes need to be added up at the end of a
row, which for narrow models costs as much as the products.

The loop is written in vectors of 16, which LLVM cuts to what the processor has. Left to choose, it takes half the
lanes for int8, and keeps no sums in registers.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from frailt.model.vector_math import FAST, bits_of_float, f32, float_of_bits

LANES = 16
"""Rows that are interleaved."""
CHAINS = 4
"""Sums that each lane keeps side by side: a sum must wait some cycles for itself."""
COLUMNS = 2 * CHAINS
"""Rows are padded with zeros to a multiple of this many numbers, whatever their kind."""

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WHOLE = ir.VectorType(ir.IntType(32), LANES)
_PAIRS = ir.VectorType(ir.IntType(32), 2 * LANES)


def pair(dtype: Any) -> int:
    """Neighbouring numbers of a row that stay together, so that 16 rows fill whole vectors."""
    return 1 if dtype == np.float32 else 2


def _sixteen_rows(typing_context: Any, weights: Any, at: Any, x: Any, n: Any, out: Any, row: Any) -> Any:
    add, together = _ADD[weights.dtype], 1 if weights.dtype == types.float32 else 2
    total_type = _WHOLE if weights.dtype == types.int8 else _FLOATS

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def data(place: int) -> Any:
            return context.make_array(signature.args[place])(context, builder, arguments[place]).data

        w, x, out = builder.gep(data(0), [arguments[1]]), data(2), builder.gep(data(4), [arguments[5]])
        n = arguments[3]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(total_type, [0] * LANES)) for _ in range(CHAINS)]
        turn = ir.Constant(n.type, together * CHAINS)
        with cgutils.for_range_slice(builder, ir.Constant(n.type, 0), n, turn) as (k, _):
            for chain, total in enumerate(sums):
                column = builder.add(k, ir.Constant(n.type, together * chain))
                line = builder.gep(w, [builder.mul(column, ir.Constant(n.type, LANES))])
                builder.store(add(builder, builder.load(total), line, builder.gep(x, [column])), total)
        totals = [builder.load(total) for total in sums]
        if total_type is _WHOLE:
            result = builder.sitofp(reduce(builder.add, totals), _FLOATS)
        else:
            result = reduce(builder.fadd, totals)
        builder.store(result, builder.bitcast(out, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(weights, at, x, n, out, row), generate


def _multiply_add(builder: Any, total: Any, w: Any, x: Any) -> Any:
    """``total + w x`` for each lane; one rounding or two, as the processor likes."""
    scalar = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    function = cgutils.get_or_insert_function(builder.module, scalar, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(function, [w, _splat(builder, x, _FLOATS), total])


def _splat(builder: Any, number: Any, kind: Any) -> Any:
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, single, ir.Constant(_WHOLE, [0] * LANES))


def _vector(builder: Any, place: Any, kind: Any) -> Any:
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=1)


def _add_float32(builder: Any, total: Any, line: Any, x: Any) -> Any:
    return _multiply_add(builder, total, _vector(builder, line, _FLOATS), builder.load(x))


def _add_bfloat16(builder: Any, total: Any, line: Any, x: Any) -> Any:
    """A pair is the lower and the upper half of 32 bits; each half, with zeros after it, is a float32."""
    both = _vector(builder, line, _WHOLE)
    lower = builder.shl(both, ir.Constant(_WHOLE, [16] * LANES))
    upper = builder.and_(both, ir.Constant(_WHOLE, [0xFFFF0000] * LANES))
    for place, bits in enumerate((lower, upper)):
        number = builder.load(builder.gep(x, [ir.Constant(ir.IntType(64), place)]))
        total = _multiply_add(builder, total, builder.bitcast(bits, _FLOATS), number)
    return total


def _add_int8(builder: Any, total: Any, line: Any, x: Any) -> Any:
    """Pairs of int8 times pairs of int16, the two products added: one instruction on most processors."""
    bytes_, words = (ir.VectorType(ir.IntType(bits), 2 * LANES) for bits in (8, 16))
    two = builder.load(builder.bitcast(x, ir.IntType(32).as_pointer()), align=2)
    weights, numbers = _vector(builder, line, bytes_), builder.bitcast(_splat(builder, two, _WHOLE), words)
    products = builder.mul(builder.sext(weights, _PAIRS), builder.sext(numbers, _PAIRS))
    masks = [ir.Constant(_WHOLE, [*range(start, 2 * LANES, 2)]) for start in (0, 1)]
    sums = builder.add(*(builder.shuffle_vector(products, products, mask) for mask in masks))
    return builder.add(total, sums)


_ADD: dict[Any, Callable[..., Any]] = {types.float32: _add_float32, types.uint16: _add_bfloat16, types.int8: _add_int8}

sixteen_rows: Any = intrinsic(_sixteen_rows)
"""``sixteen_rows(weights, at, x, n, out, row)``: 16 rows of ``n`` weights from place ``at`` on, times ``x``, into
``out[row : row + 16]`` (for int8 without the rows' scales)."""


# --- The same for Numba, whatever the kind of the weights ---


def operand(weights, x, whole) -> Any:
    """``x`` as the rows take it, in float32 or rounded into ``whole``, and the factor that brings that to size."""


@overload(operand)
def _operand_of(weights, x, whole):
    if weights.dtype == types.int8:

        def quantise(weights, x, whole):
            # As fine as int16 and a sum in 32 bits allow: 14 bits for 1,024 numbers, so that rounding x costs nothing.
            n = len(x)
            most = f32(0)
            for i in range(n):
                most = max(most, abs(x[i]))
            steps = f32(min(32767, 2147483647 // (127 * n)))
            inverse = steps / most if most > f32(0) else f32(0)
            for i in range(n):
                whole[i] = np.int16(np.int32(np.rint(x[i] * inverse)))
            return whole, most / steps

        return quantise
    return lambda weights, x, whole: (x, f32(1))


def width(matrix) -> Any:
    """Bytes of a matrix's numbers. The compiler knows them, where it takes ``itemsize`` for something that may vary."""


@overload(width, inline="always")
def _width_of(matrix):
    bytes_ = matrix.dtype.bitwidth // 8
    return lambda matrix: bytes_


@numba.njit(**FAST)
def number(weights, scales, row, at):
    """The weight at a place in a row as a float."""
    if width(weights) == 1:
        return f32(weights[at]) * scales[row]
    if width(weights) == 2:
        return float_of_bits(np.int32(weights[at]) << np.int32(16))
    return f32(weights[at])


@numba.njit(**FAST)
def store(matrix, at, x):
    """Put a float at a place of a matrix of float32 or bfloat16, rounded to the nearest, ties to even."""
    if width(matrix) == 2:
        bits = bits_of_float(x)
        matrix[at] = np.uint16((bits + np.int32(0x7FFF) + ((bits >> np.int32(16)) & np.int32(1))) >> np.int32(16))
    else:
        matrix[at] = x


@numba.njit(**FAST)
def place_of(matrix, row, column, n):
    """Where a number lies in a matrix whose padded rows have ``n`` numbers, from the matrix's beginning."""
    together = 1 if width(matrix) == 4 else 2
    lines = row // LANES * n + column // together * together
    return lines * LANES + row % LANES * together + column % together


@numba.njit(**FAST)
def product(weights, scales, place, row, x, factor, n, out, first, last):
    """Blocks ``first`` to ``last`` of 16 rows each, times ``x``, into the same rows of ``out``.

    Args:
        weights, scales: see ``packing.Packed``.
        place, row: where the matrix begins in ``weights``, and its first row's number in ``scales``.
        x, factor: from ``operand``.
        n: numbers in a row, padding included.
        out: float32, as long as the matrix has rows.
        first, last: which blocks.
    """
    for block in range(first, last):
        sixteen_rows(weights, place + block * LANES * n, x, n, out, block * LANES)
    if width(weights) == 1:
        for i in range(first * LANES, last * LANES):
            out[i] *= factor * scales[row + i]
