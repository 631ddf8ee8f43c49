"""What fewer bits cost: the loss of a model over a text, by the fast decoder with weights of each kind.

    python bench/quantization.py --text valid_v2.txt.xz [--model results/small] [--json FILE]

Windows are those of `frailt evaluate`: the model's context long, one after the other, across stories.
"""

import argparse
from pathlib import Path

import numpy as np
from machine import machine

from frailt.data.tokenizer import Tokenizer
from frailt.evaluation.text import encode_text
from frailt.files import write_json
from frailt.inference.cpu.decoder import CompiledDecoder
from frailt.inference.cpu.packing import Weights, pack
from frailt.model.stored import read_model

KINDS: tuple[Weights, ...] = ("float32", "bfloat16", "int8")


def nats(decoder: CompiledDecoder, tokens: np.ndarray) -> np.ndarray:
    """Cross-entropy of each token but the first, float64."""
    losses = []
    for at in range(0, len(tokens) - 1, decoder.context):
        window, targets = tokens[at : at + decoder.context], tokens[at + 1 : at + decoder.context + 1]
        first, *rest = window[: len(targets)].tolist()
        decoder.select([])
        scores = np.concatenate([decoder.add([[first]]), *(decoder.step([token]) for token in rest)], dtype=np.float64)
        top = scores.max(axis=1)
        losses.append(np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - scores[range(len(targets)), targets])
    return np.concatenate(losses)


def main() -> None:
    """Print a table, and write the figures where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("results/small"))
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, help="only the first so many")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    stored = read_model(options.model)
    tokens, _ = encode_text([options.text], Tokenizer.load(options.model))
    tokens = tokens[: options.tokens].astype(np.int64)
    losses: dict[Weights, np.ndarray] = {kind: nats(CompiledDecoder(pack(stored, kind)), tokens) for kind in KINDS}
    figures = {
        kind: {
            "nats_per_token": float(loss.mean()),
            "more": float((loss - losses["float32"]).mean()),
            "standard_error": float((loss - losses["float32"]).std() / len(loss) ** 0.5),
            "bytes": pack(stored, kind).bytes,
        }
        for kind, loss in losses.items()
    }
    print(f"{options.model}, {stored.config.shape}, over {len(tokens) - 1:,} tokens of {options.text.name}")
    for kind, row in figures.items():
        more = f"{row['more']:+.5f} ± {row['standard_error']:.5f}"
        print(f"{kind:9} {row['nats_per_token']:.4f} nats/token ({more}), {row['bytes'] / 1e6:.2f} MB of matrices")
    if options.json:
        write_json(
            options.json,
            {"machine": machine(), "model": str(options.model), "text": options.text.name, "weights": figures},
        )


if __name__ == "__main__":
    main()
