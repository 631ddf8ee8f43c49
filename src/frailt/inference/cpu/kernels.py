"""One token after the other through a packed model, compiled by LLVM for the processor at hand.

``read`` is the whole step: embedding, encodings, norms, rotary positions, attention, SwiGLU, head. Several threads
may run it together on the same arguments: each takes a share of every matrix's rows, and of the heads, and they meet
at five barriers a block. That is far cheaper than a parallel region for each product, and no thread spins between
tokens, as those of Numba's own pool do.
"""

from typing import Any

import numba
import numpy as np

from frailt.compiling import compiled
from frailt.inference.cpu import exit_kernels, products, thread_pool
from frailt.inference.cpu.exit_kernels import BEFORE, LEAVE, copy_keys, copy_values, distance, divergence
from frailt.inference.cpu.products import COLUMNS, LANES, number, operand, place_of, product, sixteen_rows, store
from frailt.inference.cpu.thread_pool import asked, meet
from frailt.model import vector_math
from frailt.model.vector_math import exp_of_negative, f32

options: dict[str, Any] = {"fastmath": True, "error_model": "numpy", "nogil": True}


@compiled(products, exit_kernels, thread_pool, vector_math, **options)
def read(
    doors,
    order,
    tokens,
    sizes,
    epsilon,
    weights,
    scales,
    starts,
    norms,
    encodings,
    plan,
    exits,
    limit,
    cos,
    sin,
    keys,
    values,
    shared,
    private,
    whole,
    logits,
    guesses,
    done,
    counter,
    thread,
    threads,
):
    """Read tokens, as ordered; scores of what follows the last of them.

    Args:
        doors: of helping threads, see ``thread_pool.py``.
        order: int64: how many tokens to read, how many are known before them, for how many of the last to give
            scores, whether they may leave groups early (1) or not (0), and what the counter says before.
        tokens: int64 ``(n,)``; the first of them are read.
        sizes: heads, kv_heads, dim, the numbers in a row of dim and of hidden weights, padding included, and vocab.
        epsilon: of RMSNorm.
        weights, scales, starts, norms: see ``packing.Packed``.
        encodings: float32 ``(n, dim)``, a vector for each block and pass.
        plan: int64 ``(depth, 2)``: the block that each step of the depth goes through, and the encoding that it
            adds first (-1: none).
        exits: int64 ``(depth, 5)``: what follows each step, see ``fast_decoder._exits``.
        limit: the change between passes below which a token leaves early.
        cos, sin: float32 ``(context, head / 2)``.
        keys, values: float32 or bfloat16 ``(depth, kv_heads, n)``, finite everywhere: for each slot and head a matrix
            of tokens by numbers of the head, and one of numbers by tokens, interleaved as weights are.
        shared: float32 ``(4, n)``, what threads tell each other: signal, queries with keys and values, heads'
            outputs, hidden layer. Zeros where nothing is written.
        private: float32 ``(threads, 5, n)``: normalised signal, results, query, scores, signal after the last pass.
            ``whole``: int16 ``(threads, n)``.
        logits: float32 ``(m, vocab)``, to be filled from the first line on, with columns for whole blocks of rows.
        guesses: float32 ``(2, vocab)``, as ``logits``: what the last two passes predict. Without room for a vocabulary
            the signals themselves are compared.
        done: int64 ``(groups,)``, for passes of groups that the last token left early.
        counter: int64, for ``meet``.
        thread, threads: which of how many.
    """
    while thread == 0 or asked(doors, thread):
        _read(
            order,
            tokens,
            sizes,
            epsilon,
            weights,
            scales,
            starts,
            norms,
            encodings,
            plan,
            exits,
            limit,
            cos,
            sin,
            keys,
            values,
            shared,
            private[thread],
            whole[thread],
            logits,
            guesses,
            done,
            counter,
            thread,
            threads,
        )
        if thread == 0:
            break


@numba.njit(**options)
def _read(
    order,
    tokens,
    sizes,
    epsilon,
    weights,
    scales,
    starts,
    norms,
    encodings,
    plan,
    exits,
    limit,
    cos,
    sin,
    keys,
    values,
    shared,
    private,
    short,
    logits,
    guesses,
    done,
    counter,
    thread,
    threads,
):
    """A thread's share of one order, with its own of ``private`` and ``whole``."""
    count, start, lines, early, met = order[0], order[1], order[2], order[3], order[4]
    heads, kv_heads, dim, dim_row, hidden_row, vocab = sizes
    head, share = dim // heads, heads // kv_heads
    counts = share, heads, kv_heads, head
    x, qkv, attended, inner = shared[0], shared[1], shared[2], shared[3]
    normal, y, query, scores, last = private[0], private[1], private[2], private[3], private[4]
    # This thread's share of the rows: blocks of 16, and where they begin and end.
    a, b = _share((dim + LANES - 1) // LANES, thread, threads)
    first, end = a * LANES, min(b * LANES, dim)
    for step in range(count):
        position = start + step
        turn = cos[position], sin[position]
        for i in range(first, end):
            x[i] = number(weights, scales, tokens[step], place_of(weights, tokens[step], i, dim_row))
        met = meet(counter, met, threads)
        final = -1  # Which of the guesses was made from the signal as it leaves the last group.
        layer = 0
        while layer < len(plan):
            block, encoding = plan[layer, 0], plan[layer, 1]
            place = starts[block]

            # Attention. Its input, with the encoding, goes into every thread's own memory.
            for i in range(dim):
                normal[i] = x[i]
            if encoding >= 0:
                for i in range(dim):
                    normal[i] += encodings[encoding, i]
            _normalise(normal, norms[2 * block], epsilon, normal, dim)
            own, factor = operand(weights, normal[:dim_row], short[:dim_row])
            c, d = _share((dim + 2 * kv_heads * head + LANES - 1) // LANES, thread, threads)
            product(weights, scales, place[0], place[1], own, factor, dim_row, qkv, c, d)
            met = meet(counter, met, threads)
            c, d = _share(kv_heads, thread, threads)
            for g in range(c, d):
                _attend(qkv, attended, keys[layer, g], values[layer, g], *turn, position, g, *counts, query, scores, y)
            met = meet(counter, met, threads)
            own, factor = operand(weights, attended[:dim_row], short[:dim_row])
            product(weights, scales, place[2], place[3], own, factor, dim_row, y, a, b)
            for i in range(first, end):
                x[i] += y[i]
            if encoding >= 0:
                for i in range(first, end):
                    x[i] += encodings[encoding, i]
            met = meet(counter, met, threads)

            # Feed-forward. 16 rows of w1 are followed by the same 16 of w3.
            _normalise(x, norms[2 * block + 1], epsilon, normal, dim)
            own, factor = operand(weights, normal[:dim_row], short[:dim_row])
            c, d = _share((hidden_row + LANES - 1) // LANES, thread, threads)
            product(weights, scales, place[4], place[5], own, factor, dim_row, y, 2 * c, 2 * d)
            for block_of_16 in range(c, d):
                at = 2 * block_of_16 * LANES
                for i in range(LANES):
                    inner[block_of_16 * LANES + i] = y[at + i] * _sigmoid(y[at + i]) * y[at + LANES + i]
            met = meet(counter, met, threads)
            own, factor = operand(weights, inner[:hidden_row], short[:hidden_row])
            product(weights, scales, place[6], place[7], own, factor, hidden_row, y, a, b)
            for i in range(first, end):
                x[i] += y[i]
            met = meet(counter, met, threads)

            layer += 1
            if early == 1 and exits[layer - 1, 0] >= BEFORE:
                wish, after, blocks = exits[layer - 1, 0], exits[layer - 1, 1], exits[layer - 1, 2]
                group, passes = exits[layer - 1, 3], exits[layer - 1, 4]
                if guesses.shape[1] > 0:
                    out = guesses[passes % 2]
                    _score(
                        x, norms, epsilon, normal, dim, weights, scales, starts, dim_row, short, out, thread, threads
                    )
                    met = meet(counter, met, threads)
                    change = divergence(out, guesses[1 - passes % 2], vocab)
                else:
                    change = distance(x, last, dim)
                if wish == LEAVE and change < limit:
                    c, d = _share(kv_heads, thread, threads)
                    for skipped in range(layer, after):
                        known = layer - blocks + (skipped - layer) % blocks
                        for g in range(c, d):
                            copy_keys(keys[known, g], keys[skipped, g], position, head)
                            copy_values(values[known, g], values[skipped, g], position, head)
                    done[group] = passes
                    layer = after
                    if guesses.shape[1] > 0 and after == len(plan):
                        final = passes % 2
        line = step - count + lines
        if line >= 0:
            out = logits[line]
            if final < 0:
                _score(x, norms, epsilon, normal, dim, weights, scales, starts, dim_row, short, out, thread, threads)
            else:
                c, d = _share(len(out) // LANES, thread, threads)
                for i in range(c * LANES, d * LANES):
                    out[i] = guesses[final, i]
        met = meet(counter, met, threads)


@numba.njit(**options)
def _score(x, norms, epsilon, normal, dim, weights, scales, starts, dim_row, short, out, thread, threads):
    """A thread's share of the head: scores of the next token, from a signal."""
    _normalise(x, norms[len(norms) - 1], epsilon, normal, dim)
    own, factor = operand(weights, normal[:dim_row], short[:dim_row])
    place = starts[len(starts) - 1]
    a, b = _share(len(out) // LANES, thread, threads)
    product(weights, scales, place[0], place[1], own, factor, dim_row, out, a, b)


@numba.njit(**options)
def _share(count, thread, threads):
    """Which of ``count`` things are this thread's."""
    return thread * count // threads, (thread + 1) * count // threads


@numba.njit(**options)
def _normalise(x, gain, epsilon, out, dim):
    """RMSNorm."""
    total = f32(0)
    for i in range(dim):
        total += x[i] * x[i]
    factor = f32(1) / np.sqrt(total / f32(dim) + epsilon)
    for i in range(dim):
        out[i] = x[i] * factor * gain[i]


@numba.njit(**options)
def _attend(qkv, attended, keys, values, cos, sin, position, group, share, heads, kv_heads, head, query, scores, sums):
    """Attention of the ``share`` query heads that have the key-value head ``group`` in common.

    Scores are a matrix of keys times the query, the result is a matrix of values times the softmax of the scores:
    both are products of rows that lie interleaved by 16, tokens in one and numbers of the head in the other.
    """
    half, head_row, lanes = head // 2, -(-head // COLUMNS) * COLUMNS, -(-head // LANES)
    capacity = len(values) // lanes // LANES
    k = qkv[(heads + group) * head :]
    v = qkv[(heads + kv_heads + group) * head :]
    for i in range(half):
        store(keys, place_of(keys, position, i, head_row), k[i] * cos[i] - k[i + half] * sin[i])
        store(keys, place_of(keys, position, i + half, head_row), k[i] * sin[i] + k[i + half] * cos[i])
    for i in range(head):
        store(values, place_of(values, i, position, capacity), v[i])
    known = position + 1
    blocks = -(-known // LANES)
    n = blocks * LANES
    scale = f32(1) / np.sqrt(f32(head))
    for h in range(group * share, (group + 1) * share):
        q, out = qkv[h * head :], attended[h * head :]
        for i in range(half):
            query[i] = (q[i] * cos[i] - q[i + half] * sin[i]) * scale
            query[i + half] = (q[i] * sin[i] + q[i + half] * cos[i]) * scale
        for block in range(blocks):
            sixteen_rows(keys, block * head_row * LANES, query, head_row, scores, block * LANES)
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
        for block in range(lanes):
            sixteen_rows(values, block * capacity * LANES, scores, n, sums, block * LANES)
        for i in range(head):
            out[i] = sums[i] / total


@numba.njit(**options)
def _sigmoid(x):
    e = exp_of_negative(-abs(x))
    return (f32(1) if x >= f32(0) else e) / (f32(1) + e)
