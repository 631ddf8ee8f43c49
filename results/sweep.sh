#!/usr/bin/env bash
# Makes what lies in results/sweep-d64: the rates of both parts of the optimizer, for a standard and a looped model. Run it
# from the project's root with the package installed:
#   DATA=../shared/data bash results/sweep.sh
# DATA holds tinystories/*.txt.xz and llama2c/. Cut it off at will: run again, it goes on where it stopped.
# About 20 minutes on two cores that do nothing else. WORK holds prepared data and runs, and is not part of the results.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs}
here=$(dirname "$0")

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

frailt sweep --vary muon_lr=0.01,0.02,0.04 --vary lr=4e-3,8e-3,16e-3 --vary 'shape=8,1^8' --dim 64 --tokens 1M --batch 4 \
  --precision bfloat16 --compile --evaluations 1 --data "$WORK/tinystories" --out "$WORK/sweep-d64"
mkdir -p "$here/sweep-d64"
cp "$WORK/sweep-d64/"{sweep.json,sweep.md,sweep.png} "$here/sweep-d64/"
