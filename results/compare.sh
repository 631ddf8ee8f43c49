#!/usr/bin/env bash
# Makes what lies in results/compare-d64. Run it from the project's root with the package installed:
#   DATA=../shared/data bash results/compare.sh
# DATA holds tinystories/*.txt.xz and llama2c/. Cut it off at will: run again, it goes on where it stopped.
# About an hour on two cores. WORK holds prepared data and runs, and is not part of the results.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs}
here=$(dirname "$0")

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

# The paper's shapes at width 64, and two checks it does not have: 1^8 without encodings, and 1^2.
frailt compare --shapes '1,2,4,8,1^8,2^4,4^2,1^2,1^8:none' --dim 64 --tokens 4M --optimizer adamw --lr 2e-3 --batch 4 \
  --precision float32 --data "$WORK/tinystories" --out "$WORK/compare-d64"
mkdir -p "$here/compare-d64"
cp "$WORK/compare-d64/"{compare.json,compare.png,table.md} "$here/compare-d64/"
