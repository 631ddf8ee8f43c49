#!/usr/bin/env bash
# Makes what lies in results/bench, but for early-exit.json and precision.json (bench/early_exit.sh, bench/precision.sh). Run
# it from the project's root, with the package, transformers and, if you like, llama-cpp-python installed, on a machine that
# does nothing else; LLAMA2C, if you like, is your checkout of karpathy/llama2.c, compiled with your C compiler:
#   DATA=../shared/data LLAMA2C=../llama2.c bash results/bench.sh
# About twenty minutes on two cores.
set -euo pipefail
DATA=${DATA:-../shared/data}
out=results/bench
mkdir -p "$out"

python bench/train.py --json "$out/train.json"
python bench/decode.py --rounds 7 ${LLAMA2C:+--llama2c "$LLAMA2C"} --json "$out/decode.json"
python bench/startup.py --json "$out/startup.json"
python bench/memory.py --widths 256 >/dev/null  # Compiles what is not compiled yet.
python bench/memory.py --json "$out/memory.json"
python bench/quantization.py --text "$DATA/tinystories/valid_v2.txt.xz" --json "$out/quantization.json"
python bench/draw.py "$out/decode.json" "$out/train.json" --out "$out"
