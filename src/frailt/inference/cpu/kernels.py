"""One token after the other through a packed model, compiled by LLVM for the processor at hand.

``read`` is the whole step: embedding, encodings, norms, rotary positions, attention, SwiGLU, head. Several threads
may run it together on the same job: each takes a share of every matrix's rows, and of the heads, and they meet
at five barriers a block. That is far cheaper than a parallel region for each product, and no thread spins between
tokens, as those of Numba's own pool do.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from frailt.compiling import compiled
from frailt.inference.cpu import exit_kernels, products, thread_pool
from frailt.inference.cpu.exit_kernels import BEFORE, LEAVE, copy_keys, copy_values, distance, divergence
from frailt.inference.cpu.products import COLUMNS, LANES, number, operand, place_of, product, sixteen_rows, store
from frailt.inference.cpu.thread_pool import arrive, gather, give_order, look, meet, order_for
from frailt.model import vector_math
from frailt.model.vector_math import FAST, exp_of_negative, f32

READ, SCORE, STEP = 0, 1, 2
"""What to do with a token: read it, also score what follows it, and let it leave groups early."""


class Job(NamedTuple):
    """What ``read`` works on: the model, its memory of a batch of texts, an order, and room for results.

    All threads have the same arrays, and these stay the same from one order to the next; only their contents change.
    """

    doors: NDArray[np.int64]
    """Of helping threads, see ``thread_pool.py``."""
    order: NDArray[np.int64]
    """How many entries to read; the counter before, and the number of threads (written by ``read``)."""
    entries: NDArray[np.int64]
    """Shape ``(n, 4)``: for each token to read its batch row, its position, the token, and what to do with it."""
    counter: NDArray[np.int64]
    """For ``meet``."""
    sizes: tuple[int, int, int, int, int, int]
    """Heads, kv_heads, dim, the numbers in a row of dim and of hidden weights, padding included, and vocab."""
    epsilon: np.float32
    """Of RMSNorm."""
    weights: NDArray[Any]
    """This and the next three: see ``packing.Packed``."""
    scales: NDArray[np.float32]
    starts: NDArray[np.int64]
    norms: NDArray[np.float32]
    encodings: NDArray[np.float32]
    """Shape ``(n, dim)``: a vector for each block and pass."""
    plan: NDArray[np.int64]
    """Shape ``(depth, 2)``: the block that each step of the depth goes through, and the encoding that it adds first
    (-1: none)."""
    exits: NDArray[np.int64]
    """Shape ``(depth, 5)``: what follows each step, see ``decoder._exits``."""
    limit: np.float32
    """The change between passes below which a token leaves early."""
    cos: NDArray[np.float32]
    """This and ``sin``: shape ``(context, head / 2)``."""
    sin: NDArray[np.float32]
    keys: NDArray[Any]
    """This and ``values``: float32 or bfloat16 ``(rows, depth, kv_heads, n)``, finite everywhere. For each batch row,
    step of the depth and head a matrix of tokens by numbers of the head (values: of numbers by tokens), interleaved as
    weights are."""
    values: NDArray[Any]
    shared: NDArray[np.float32]
    """Shape ``(4, n)``, what threads tell each other: signal, queries with keys and values, heads' outputs, hidden
    layer. Zeros where nothing is written."""
    private: NDArray[np.float32]
    """Shape ``(threads, 5, n)``: normalised signal, results, query, scores, signal after the last pass."""
    whole: NDArray[np.int16]
    """Shape ``(threads, n)``: the normalised signal beside int8 weights."""
    logits: NDArray[np.float32]
    """Shape ``(n, vocab)``, with columns for whole blocks of rows: a line for each entry that is scored."""
    guesses: NDArray[np.float32]
    """Shape ``(2, vocab)``, as ``logits``: what the last two passes predict. Without columns, the signals themselves
    are compared."""
    passes: NDArray[np.int64]
    """Shape ``(n, groups)``, lines as in ``logits``: filled in for groups that a token left early."""


@compiled(products, exit_kernels, thread_pool, vector_math, **FAST)
def read(fields, helper, threads):
    """Carry out one order as its leader, or orders as a helper; how many threads did.

    Args:
        fields: of the job, as a plain tuple: a named one takes twice as long on its way from Python.
        helper: 0 for the leader, or the number of a helper.
        threads: how many the leader may use.
    """
    job, thread = Job(*fields), 0
    if helper > 0:
        arrive(job.doors, helper)
    while True:
        if helper > 0:
            thread = order_for(job.doors, helper)
            if thread == 0:
                return 0
            threads = job.order[2]
        elif threads > 1:
            threads = gather(job.doors, threads)
            job.order[1], job.order[2] = look(job.counter, 0), threads
            give_order(job.doors, len(job.doors))
        _read(job, job.private[thread], job.whole[thread], thread, threads)
        if helper == 0:
            return threads


@numba.njit(**FAST)
def _read(job, private, short, thread, threads):
    """A thread's share of one order, with its own of ``private`` and ``whole``."""
    weights, scales, starts, norms = job.weights, job.scales, job.starts, job.norms
    plan, exits, encodings, guesses, epsilon = job.plan, job.exits, job.encodings, job.guesses, job.epsilon
    counter, met, line = job.counter, job.order[1], 0
    heads, kv_heads, dim, dim_row, hidden_row, vocab = job.sizes
    head, share = dim // heads, heads // kv_heads
    counts = share, heads, kv_heads, head
    x, qkv, attended, inner = job.shared[0], job.shared[1], job.shared[2], job.shared[3]
    normal, y, query, scores, last = private[0], private[1], private[2], private[3], private[4]
    # This thread's share of the rows: blocks of 16, and where they begin and end.
    a, b = _share((dim + LANES - 1) // LANES, thread, threads)
    first, end = a * LANES, min(b * LANES, dim)
    for entry in range(job.order[0]):
        todo = job.entries[entry]
        row, position, token, what = todo[0], todo[1], todo[2], todo[3]
        turn = job.cos[position], job.sin[position]
        for i in range(first, end):
            x[i] = number(weights, scales, token, place_of(weights, token, i, dim_row))
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
                keys, values = job.keys[row, layer, g], job.values[row, layer, g]
                _attend(qkv, attended, keys, values, *turn, position, g, *counts, query, scores, y)
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
            if what == STEP and exits[layer - 1, 0] >= BEFORE:
                wish, after, blocks = exits[layer - 1, 0], exits[layer - 1, 1], exits[layer - 1, 2]
                group, passes = exits[layer - 1, 3], exits[layer - 1, 4]
                if guesses.shape[1] > 0:
                    out = guesses[passes % 2]
                    _score(job, x, normal, short, out, thread, threads)
                    met = meet(counter, met, threads)
                    change = divergence(out, guesses[1 - passes % 2], vocab)
                else:
                    change = distance(x, last, dim)
                if wish == LEAVE and change < job.limit:
                    c, d = _share(kv_heads, thread, threads)
                    for skipped in range(layer, after):
                        known = layer - blocks + (skipped - layer) % blocks
                        for g in range(c, d):
                            copy_keys(job.keys[row, known, g], job.keys[row, skipped, g], position, head)
                            copy_values(job.values[row, known, g], job.values[row, skipped, g], position, head)
                    job.passes[line, group] = passes
                    layer = after
                    if guesses.shape[1] > 0 and after == len(plan):
                        final = passes % 2
        if what >= SCORE:
            out = job.logits[line]
            if final < 0:
                _score(job, x, normal, short, out, thread, threads)
            else:
                c, d = _share(len(out) // LANES, thread, threads)
                for i in range(c * LANES, d * LANES):
                    out[i] = guesses[final, i]
            line += 1
        met = meet(counter, met, threads)


@numba.njit(**FAST)
def _score(job, x, normal, short, out, thread, threads):
    """A thread's share of the head: scores of the next token, from a signal."""
    dim, dim_row, weights = job.sizes[2], job.sizes[3], job.weights
    _normalise(x, job.norms[len(job.norms) - 1], job.epsilon, normal, dim)
    own, factor = operand(weights, normal[:dim_row], short[:dim_row])
    place = job.starts[len(job.starts) - 1]
    a, b = _share(len(out) // LANES, thread, threads)
    product(weights, job.scales, place[0], place[1], own, factor, dim_row, out, a, b)


@numba.njit(**FAST)
def _share(count, thread, threads):
    """Which of ``count`` things are this thread's."""
    return thread * count // threads, (thread + 1) * count // threads


@numba.njit(**FAST)
def _normalise(x, gain, epsilon, out, dim):
    """RMSNorm."""
    total = f32(0)
    for i in range(dim):
        total += x[i] * x[i]
    factor = f32(1) / np.sqrt(total / f32(dim) + epsilon)
    for i in range(dim):
        out[i] = x[i] * factor * gain[i]


@numba.njit(**FAST)
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


@numba.njit(**FAST)
def _sigmoid(x):
    e = exp_of_negative(-abs(x))
    return (f32(1) if x >= f32(0) else e) / (f32(1) + e)
