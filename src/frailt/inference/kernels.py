"""One token after the other through a packed model, compiled by LLVM for the processor at hand.

``read`` is the whole step: embedding, encodings, norms, rotary positions, attention, SwiGLU, head. Several threads
may run it together on the same arguments: each takes a share of every matrix's rows, and of the heads, and they meet
at four barriers a block. That is far cheaper than a parallel region for each product, and no thread spins between
tokens, as those of Numba's own pool do.

A row of a matrix is read once, from its first weight to its last: the order that a processor prefetches best.
Products are written for three kinds of weights: float32, the upper halves of float32 (bfloat16), and int8.
"""

import os
from functools import reduce
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from frailt.model.vector_math import exp_of_negative, f32, float_of_bits

PAD = 64
"""Rows of weights, and keys and values of a text, are padded with zeros to a multiple of this many numbers, which
is a whole number of turns of the vectorised loops."""

i32 = np.int32


# --- What LLVM has and Python lacks ---


def _dot_of_int8(typing_context: Any, row: Any, x: Any, n: Any) -> Any:
    wide, lanes, chains = ir.VectorType(ir.IntType(32), 16), 32, 4

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = zip(signature.args[:2], arguments[:2], strict=True)
        pointers = [context.make_array(kind)(context, builder, array).data for kind, array in arrays]
        n = arguments[2]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(wide, [0] * 16)) for _ in range(chains)]

        def numbers(pointer: Any, at: Any, bits: int) -> Any:
            kind = ir.VectorType(ir.IntType(bits), lanes)
            place = builder.bitcast(builder.gep(pointer, [at]), kind.as_pointer())
            return builder.sext(builder.load(place, align=1), ir.VectorType(ir.IntType(32), lanes))

        def add(chain: int, at: Any) -> None:
            products = builder.mul(numbers(pointers[0], at, 8), numbers(pointers[1], at, 16))
            masks = [ir.Constant(wide, list(range(start, lanes, 2))) for start in (0, 1)]
            pairs = builder.add(*(builder.shuffle_vector(products, products, mask) for mask in masks))
            builder.store(builder.add(builder.load(sums[chain]), pairs), sums[chain])

        step = ir.Constant(n.type, lanes * chains)
        whole = builder.mul(builder.sdiv(n, step), step)
        with cgutils.for_range_slice(builder, ir.Constant(n.type, 0), whole, step) as (at, _):
            for chain in range(chains):
                add(chain, builder.add(at, ir.Constant(n.type, lanes * chain)))
        with cgutils.for_range_slice(builder, whole, n, ir.Constant(n.type, lanes)) as (at, _):
            add(0, at)
        total = reduce(builder.add, map(builder.load, sums))
        while total.type.count > 1:
            half = total.type.count // 2
            parts = [ir.Constant(ir.VectorType(ir.IntType(32), half), [*range(s, s + half)]) for s in (0, half)]
            total = builder.add(*(builder.shuffle_vector(total, total, part) for part in parts))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return types.int32(row, x, n), generate


dot_of_int8: Any = intrinsic(_dot_of_int8)
"""The sum of ``row[i] * x[i]`` for int8 and int16 in 32 bits, ``n`` a multiple of 32.

Written in vectors, since LLVM takes half the lanes here when it is left to choose. A pair of products and their sum
are one instruction on most processors."""


def _arrive(typing_context: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        builder.atomic_rmw("add", array.data, ir.Constant(ir.IntType(64), 1), "acq_rel")
        return context.get_dummy_value()

    return types.void(counter), generate


arrive: Any = intrinsic(_arrive)
"""Add one to ``counter[0]``, visibly for other threads, and with it all that was written before."""


def _arrived(typing_context: Any, counter: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(array.data, "acquire", 8)

    return types.int64(counter), generate


arrived: Any = intrinsic(_arrived)
"""``counter[0]`` as other threads left it."""


def _give_way(typing_context: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if os.name == "posix":
            yielding = ir.Function(builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield")
            builder.call(yielding, [])
        return context.get_dummy_value()

    return types.void(), generate


give_way: Any = intrinsic(_give_way)
"""Let another thread of the system have this core."""


@numba.njit
def meet(counter, goal, threads):
    """Wait until all threads are here; ``goal`` is what the counter then says."""
    if threads > 1:
        arrive(counter)
        turns = 0
        while arrived(counter) < goal:
            turns += 1
            if turns % 4096 == 0:
                give_way()


# --- Products with weights of each kind ---


def _operand(weights, x, whole):
    """What ``_dot`` takes for ``x``, and the factor that makes the result right."""


def _dot(row, x, n):
    """The sum of ``row[i] * x[i]``."""


def _scaled(weights, total, factor, scales, row):
    """A result of ``_dot`` as a float."""


def _number(weights, scales, row, at):
    """The weight at a place in a row as a float."""


@overload(_operand)
def _operand_of(weights, x, whole):
    if weights.dtype == types.int8:

        def quantise(weights, x, whole):
            # As fine as int16 and a sum in 32 bits allow: 14 bits for 1,024 numbers, so that rounding x costs nothing.
            n = len(x)
            most = f32(0)
            for i in range(n):
                most = max(most, abs(x[i]))
            steps = f32(min(32767, 2147483647 // (127 * n)))
            factor = most / steps
            inverse = steps / most if most > f32(0) else f32(0)
            for i in range(n):
                y = x[i] * inverse
                whole[i] = np.int16(i32(y + (f32(0.5) if y >= f32(0) else f32(-0.5))))
            return whole, factor

        return quantise
    return lambda weights, x, whole: (x, f32(1))


@overload(_dot)
def _dot_of(row, x, n):
    if row.dtype == types.int8:
        return lambda row, x, n: dot_of_int8(row, x, n)
    if row.dtype == types.uint16:

        def dot(row, x, n):
            total = f32(0)
            for i in range(n):
                total += float_of_bits(i32(row[i]) << i32(16)) * x[i]
            return total

        return dot

    def dot(row, x, n):
        total = f32(0)
        for i in range(n):
            total += row[i] * x[i]
        return total

    return dot


@overload(_scaled)
def _scaled_of(weights, total, factor, scales, row):
    if weights.dtype == types.int8:
        return lambda weights, total, factor, scales, row: f32(total) * factor * scales[row]
    return lambda weights, total, factor, scales, row: total


@overload(_number)
def _number_of(weights, scales, row, at):
    if weights.dtype == types.int8:
        return lambda weights, scales, row, at: f32(weights[at]) * scales[row]
    if weights.dtype == types.uint16:
        return lambda weights, scales, row, at: float_of_bits(i32(weights[at]) << i32(16))
    return lambda weights, scales, row, at: weights[at]


njit: Any = numba.njit(fastmath=True, error_model="numpy", nogil=True)


@njit
def _product(weights, scales, rows, n, x, factor, row):
    """One row of a matrix times x; ``rows`` is where it begins, ``(place, row number)``."""
    at = rows[0] + row * n
    return _scaled(weights, _dot(weights[at : at + n], x, n), factor, scales, rows[1] + row)


@njit
def _normalise(x, gain, epsilon, out, dim):
    total = f32(0)
    for i in range(dim):
        total += x[i] * x[i]
    factor = f32(1) / np.sqrt(total / f32(dim) + epsilon)
    for i in range(dim):
        out[i] = x[i] * factor * gain[i]


@njit
def _attend(qkv, keys, values, cos, sin, position, share, head, query, scores, out):
    """Attention of the query heads that share one key-value head.

    Keys and values lie with the texts' tokens along the rows, ``(head, tokens)``, so that the tokens fill the
    vector lanes, however narrow the head.
    """
    half = head // 2
    k, v = qkv[share * head :], qkv[(share + 1) * head :]
    for i in range(half):
        keys[i, position] = k[i] * cos[i] - k[i + half] * sin[i]
        keys[i + half, position] = k[i] * sin[i] + k[i + half] * cos[i]
    for i in range(head):
        values[i, position] = v[i]
    known = position + 1
    n = (known + PAD - 1) // PAD * PAD
    scale = f32(1) / np.sqrt(f32(head))
    for h in range(share):
        q = qkv[h * head :]
        for i in range(half):
            query[i] = (q[i] * cos[i] - q[i + half] * sin[i]) * scale
            query[i + half] = (q[i] * sin[i] + q[i + half] * cos[i]) * scale
        for j in range(n):
            scores[j] = f32(0)
        for i in range(0, head, 2):
            a, b = query[i], query[i + 1]
            first, second = keys[i], keys[i + 1]
            for j in range(n):
                scores[j] += a * first[j] + b * second[j]
        top = scores[0]
        for j in range(known):
            top = max(top, scores[j])
        for j in range(n):
            scores[j] = exp_of_negative(min(scores[j] - top, f32(0)))
        for j in range(known, n):
            scores[j] = f32(0)
        total = f32(0)
        for j in range(n):
            total += scores[j]
        for i in range(head):
            y = f32(0)
            lane = values[i]
            for j in range(n):
                y += scores[j] * lane[j]
            out[h * head + i] = y / total


@njit
def _sigmoid(x):
    e = exp_of_negative(-abs(x))
    return (f32(1) if x >= f32(0) else e) / (f32(1) + e)


@numba.njit(fastmath=True, error_model="numpy", nogil=True, cache=True)
def read(
    tokens,
    start,
    sizes,
    epsilon,
    weights,
    scales,
    starts,
    norms,
    encodings,
    plan,
    cos,
    sin,
    keys,
    values,
    shared,
    private,
    whole,
    logits,
    counter,
    met,
    thread,
    threads,
):
    """Read ``tokens`` from position ``start`` on; scores of the last ``len(logits)`` of them.

    Args:
        tokens: int64.
        start: tokens that keys and values hold already.
        sizes: dim, heads, kv_heads, hidden, vocab, and the padded dim and hidden, as ints.
        epsilon: of RMSNorm.
        weights, scales, starts, norms: see ``packing.Packed``.
        encodings: float32 ``(n, dim)``, a vector for each block and pass.
        plan: int64 ``(depth, 2)``: the block that each step of the depth goes through, and the encoding that it
            adds first (-1: none).
        cos, sin: float32 ``(context, head / 2)``.
        keys, values: float32 ``(depth, kv_heads, head, tokens)``, finite everywhere.
        shared: float32 ``(4, n)``, what threads tell each other: signal, queries with keys and values, heads' outputs,
            hidden layer. Zeros where nothing is written.
        private: float32 ``(threads, 3, n)``: normalised signal, query, scores. ``whole``: int16 ``(threads, n)``.
        logits: float32 ``(m, vocab)``, to be filled.
        counter: int64, for ``meet``; ``met`` is what it says now.
        thread, threads: which of how many.
    """
    dim, heads, kv_heads, hidden, vocab, dim_row, hidden_row = sizes
    head, share = dim // heads, heads // kv_heads
    x, qkv, attended, inner = shared[0], shared[1], shared[2], shared[3]
    normal, query, scores, whole = private[thread, 0], private[thread, 1], private[thread, 2], whole[thread]
    first, last = thread * dim // threads, (thread + 1) * dim // threads
    for step in range(len(tokens)):
        position = start + step
        turn = cos[position], sin[position]
        token = tokens[step]
        for i in range(first, last):
            x[i] = _number(weights, scales, token, token * dim_row + i)
        met += threads
        meet(counter, met, threads)
        for layer in range(len(plan)):
            block, pass_ = plan[layer, 0], plan[layer, 1]
            place = starts[block]
            # Attention, a thread for each share of the key-value heads.
            if pass_ >= 0:
                for i in range(dim):
                    normal[i] = x[i] + encodings[pass_, i]
                _normalise(normal, norms[2 * block], epsilon, normal, dim)
            else:
                _normalise(x, norms[2 * block], epsilon, normal, dim)
            own, factor = _operand(weights, normal[:dim_row], whole[:dim_row])
            rows = (share + 2) * head
            for g in range(thread * kv_heads // threads, (thread + 1) * kv_heads // threads):
                for row in range(g * rows, (g + 1) * rows):
                    qkv[row] = _product(weights, scales, (place[0], place[1]), dim_row, own, factor, row)
                part = qkv[g * rows : (g + 1) * rows]
                out = attended[g * share * head : (g + 1) * share * head]
                _attend(part, keys[layer, g], values[layer, g], *turn, position, share, head, query, scores, out)
            met += threads
            meet(counter, met, threads)
            own, factor = _operand(weights, attended[:dim_row], whole[:dim_row])
            for row in range(first, last):
                y = x[row] + _product(weights, scales, (place[2], place[3]), dim_row, own, factor, row)
                x[row] = y + encodings[pass_, row] if pass_ >= 0 else y
            met += threads
            meet(counter, met, threads)
            # Feed-forward: rows of w1 and w3 lie side by side.
            _normalise(x, norms[2 * block + 1], epsilon, normal, dim)
            own, factor = _operand(weights, normal[:dim_row], whole[:dim_row])
            for row in range(thread * hidden // threads, (thread + 1) * hidden // threads):
                a = _product(weights, scales, (place[4], place[5]), dim_row, own, factor, 2 * row)
                b = _product(weights, scales, (place[4], place[5]), dim_row, own, factor, 2 * row + 1)
                inner[row] = a * _sigmoid(a) * b
            met += threads
            meet(counter, met, threads)
            own, factor = _operand(weights, inner[:hidden_row], whole[:hidden_row])
            for row in range(first, last):
                x[row] += _product(weights, scales, (place[6], place[7]), hidden_row, own, factor, row)
            met += threads
            meet(counter, met, threads)
        line = step - len(tokens) + len(logits)
        if line >= 0:
            _normalise(x, norms[len(norms) - 1], epsilon, normal, dim)
            own, factor = _operand(weights, normal[:dim_row], whole[:dim_row])
            place = starts[len(starts) - 1]
            for row in range(thread * vocab // threads, (thread + 1) * vocab // threads):
                logits[line, row] = _product(weights, scales, (place[0], place[1]), dim_row, own, factor, row)
        met += threads
        meet(counter, met, threads)
