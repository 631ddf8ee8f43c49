#!/usr/bin/env bash
# Makes what lies in results/sweep-5: the rates of both parts of the optimizer, and windows a step, for five plain blocks of
# width 64. Run it from the project's root with the package installed:
#   DATA=../shared/data bash results/sweep.sh
# DATA holds tinystories/*.txt.xz and llama2c/. Cut it off at will: run again, it goes on where it stopped.
# About an hour on two cores. WORK holds prepared data and runs, and is not part of the results.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs}
here=$(dirname "$0")

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

frailt sweep --vary muon_lr=0.005,0.01,0.02 --vary batch=4,16 --vary lr=2e-3,8e-3 --shape 5 --dim 64 --kv-heads 4 \
  --hidden-dim 168 --tokens 6M --precision bfloat16 --compile --evaluations 1 --data "$WORK/tinystories" \
  --out "$WORK/sweep-5"
mkdir -p "$here/sweep-5"
cp "$WORK/sweep-5/"{sweep.json,sweep.md,sweep.png} "$here/sweep-5/"
