#!/usr/bin/env bash
# Makes what lies in results/grid: the paper's eight shapes at widths 64 and 128, width 64 with two seeds, and 1^8 without
# encodings. Run it from the project's root with the package installed:
#   DATA=../shared/data bash results/grid.sh
# About an hour on two cores that do nothing else. Cut it off at will: run again, it goes on where it stopped. WORK holds
# prepared data and runs, and is not part of the results.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs}
here=$(dirname "$0")

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

protocol="--data $WORK/tinystories --out $WORK/grid --budget 2.1M --optimizer adamw --lr 2e-3 --batch 4 --precision float32"
frailt reproduce $protocol --widths 64 --seeds 0,1
frailt reproduce $protocol --widths 64 --seeds 0,1 --shapes '1^8:none'
frailt reproduce $protocol --widths 64,128

mkdir -p "$here/grid"
cp "$WORK"/grid/{report.md,report.html,grid.json,figure-*} "$here/grid/"
