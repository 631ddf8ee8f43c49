#!/usr/bin/env bash
# What training in bfloat16 costs in loss: the same models from the same seeds in both precisions, on real text. Run it from
# the project's root with the package installed:
#   DATA=../shared/data bash bench/precision.sh
# About half an hour on two cores; it goes on where it stopped. WORK holds prepared data and runs; the figures go to
# results/bench/precision.json. Two runs that differ in the last digit of one weight part within some hundred steps, so
# only means over many seeds say something.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs}

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

for precision in float32 bfloat16; do
  train="frailt reproduce --data $WORK/tinystories --out $WORK/precision-$precision --precision $precision --jobs 2"
  $train --widths 64 --shapes 1^4 --budget 500k --lr 2e-3 --seeds 0,1,2,3,4,5,6,7,8,9
  $train --widths 256 --shapes 1^2 --budget 300k --lr 1e-3 --seeds 0,1,2,3,4,5,6,7
done
mkdir -p results/bench
python bench/precision.py "$WORK"/precision-{float32,bfloat16} --json results/bench/precision.json
