"""A model's weights as the compiled decoder reads them: all matrices in one array, in the order of use."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from frailt.errors import InputError
from frailt.inference.cpu.products import COLUMNS, LANES, pair
from frailt.model.config import ModelConfig
from frailt.model.operations import llama_blocks, unrolled
from frailt.model.stored import BFLOAT16, StoredModel, as_float32

Weights = Literal["auto", "float32", "bfloat16", "int8"]
"""How weights are kept in memory. ``auto``: as the file has them, bfloat16 or else float32. Beside ``int8``,
keys and values are kept in bfloat16."""
READER = "the compiled decoder"


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What ``kernels.read`` needs of a model."""

    config: ModelConfig
    weights: NDArray[Any]
    """Every matrix, one after the other: float32, the bits of bfloat16 as uint16, or int8. First the embedding, then
    for each block: wq, wk and wv; wo; w1 and w3, 16 rows of each in turn; w2; at last the head, if it has weights of
    its own. Rows are interleaved by 16 (see ``products.py``) and padded with zeros to whole blocks."""
    scales: NDArray[np.float32]
    """What a row of int8 is multiplied with, by its number from the first row of the embedding; else empty."""
    starts: NDArray[np.int64]
    """Shape ``(blocks + 1, 8)``: place and row number of each block's four matrices, then those of the head."""
    norms: NDArray[np.float32]
    """Shape ``(2 blocks + 1, dim)``: gains of each block's two norms, and of the last norm."""
    encodings: list[dict[str, NDArray[np.float32]]]
    """The learned tensors of each block's iteration encoding, by name."""

    @property
    def bytes(self) -> int:
        """Memory that weights and scales take."""
        return self.weights.nbytes + self.scales.nbytes


def padded(count: int, to: int) -> int:
    """The next multiple of ``to``."""
    return -(-count // to) * to


def pack(stored: StoredModel, kind: Weights = "auto") -> Packed:
    """Order, pad and round the weights of a model.

    Norms and encodings stay in float32. int8: each row has its own scale, its largest weight becomes 127.

    Raises:
        InputError: the decoder cannot compute this model, there is no such kind, or int8 is asked for weights that are
            not finite.
    """
    if kind not in get_args(Weights):
        raise InputError(f"weights {kind!r} are unknown; choose one of {', '.join(get_args(Weights))}")
    config, tensors = stored
    if kind == "auto":
        kind = "bfloat16" if tensors["embedding.weight"].dtype == BFLOAT16 else "float32"
    blocks, encodings = llama_blocks(config, tensors, READER)
    list(unrolled(config, encodings, config.passes(), READER))  # What cannot be computed is refused now.
    matrices = [[tensors["embedding.weight"]], *(_matrices(block, config) for block in blocks)]
    if not config.tied:
        matrices.append([tensors["head.weight"]])
    places = []
    at = row = 0
    for group in matrices:
        places.append([])
        for matrix in group:
            places[-1] += [at, row]
            rows = padded(len(matrix), LANES)
            at, row = at + rows * padded(matrix.shape[1], COLUMNS), row + rows
    head = places[0] if config.tied else places[-1]
    weights = np.zeros(at, {"float32": np.float32, "bfloat16": BFLOAT16, "int8": np.int8}[kind])
    scales = np.zeros(row if kind == "int8" else 0, np.float32)
    for group, starts in zip(matrices, places, strict=True):
        for matrix, at, row in zip(group, starts[::2], starts[1::2], strict=True):
            if kind == "int8":
                matrix, scales[row : row + len(matrix)] = as_int8(as_float32(matrix))
            elif kind == "float32":
                matrix = as_float32(matrix)
            elif matrix.dtype != BFLOAT16:
                matrix = as_bfloat16(as_float32(matrix))
            lines = interleaved(matrix)
            weights[at : at + lines.size] = lines.ravel()
    gains = [as_float32(block[f"{norm}_norm.weight"]) for block in blocks for norm in ("attention", "feed_forward")]
    return Packed(
        config=config,
        weights=weights,
        scales=scales,
        starts=np.array([*places[1 : len(blocks) + 1], [*head[:2], *[0] * 6]], np.int64),
        norms=np.stack([*gains, as_float32(tensors["norm.weight"])]),
        encodings=encodings,
    )


def _matrices(tensors: dict[str, NDArray[Any]], config: ModelConfig) -> list[NDArray[Any]]:
    """The four matrices of a block."""
    w = {x: tensors[f"attention.w{x}.weight"] for x in "qkvo"}
    w |= {x: tensors[f"feed_forward.w{x}.weight"] for x in "123"}
    # Hidden numbers without a weight are 0 in w1 and w3, and so is what w2 gets from them.
    empty = np.zeros((-config.feed_forward_dim % LANES, config.dim), w["1"].dtype)
    gates = np.stack([np.concatenate((w[x], empty)).reshape(-1, LANES, config.dim) for x in "13"], axis=1)
    return [np.concatenate([w[x] for x in "qkv"]), w["o"], gates.reshape(-1, config.dim), w["2"]]


def interleaved(matrix: NDArray[Any]) -> NDArray[Any]:
    """Rows by 16: shape ``(rows / 16, columns / pair, 16, pair)``, padded with zeros."""
    rows, columns = matrix.shape
    together = pair(matrix.dtype)
    full = np.zeros((padded(rows, LANES), padded(columns, COLUMNS)), matrix.dtype)
    full[:rows, :columns] = matrix
    return full.reshape(-1, LANES, full.shape[1] // together, together).swapaxes(1, 2)


def as_bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The nearest bfloat16, ties to even, as its 16 bits. Not-a-number stays so."""
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype(np.uint16)


def as_int8(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as whole numbers from -127 to 127, and each row's scale.

    Raises:
        InputError: a weight is not finite.
    """
    most = np.abs(matrix).max(axis=1)
    if not np.isfinite(most).all():
        raise InputError("the weights are not all finite, so they cannot become int8; use float32")
    scales = (most / 127).astype(np.float32)
    whole = np.rint(matrix / np.where(scales > 0, scales, 1)[:, None])
    return np.clip(whole, -127, 127).astype(np.int8), scales
