#!/usr/bin/env bash
# Trains a model with random passes and measures early exit with it. Run it from the project's root with the package
# installed:
#   DATA=../shared/data bash bench/early_exit.sh
# Twenty minutes on two cores; it goes on where it stopped. WORK holds prepared data and the run; the figures go to
# results/bench/early-exit.json.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs}

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz
frailt train --resume --shape '1^8' --dim 128 --passes random --tokens 3M --lr 2e-3 --precision float32 \
  --data "$WORK/tinystories" --out "$WORK/random-passes"
mkdir -p results/bench
python bench/early_exit.py "$WORK/random-passes" --text "$DATA/tinystories/valid_v2.txt.xz" --rounds 7 \
  --json results/bench/early-exit.json
