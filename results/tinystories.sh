#!/usr/bin/env bash
# Makes what lies in results/compare-d64 and results/small. Run it from the project's root with the package installed:
#   DATA=../shared/data bash results/tinystories.sh
# DATA holds tinystories/*.txt.xz and llama2c/. Cut it off at will: run again, it goes on where it stopped.
# About two and a half hours on two cores. WORK holds prepared data and runs, and is not part of the results.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs/results}
here=$(dirname "$0")

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

# The paper's shapes at width 64, and two checks it does not have: 1^8 without encodings, and 1^2.
frailt compare --shapes '1,2,4,8,1^8,2^4,4^2,1^2,1^8:none' --dim 64 --tokens 4M --optimizer adamw --lr 2e-3 --batch 4 \
  --precision float32 --data "$WORK/tinystories" --out "$WORK/compare-d64"
mkdir -p "$here/compare-d64"
cp "$WORK/compare-d64/"{compare.json,compare.png,table.md} "$here/compare-d64/"

# A model of at most 260,032 parameters, the size of llama2.c's stories260K, trained for as long as was practical.
frailt train --resume --shape '5^2' --dim 64 --kv-heads 4 --hidden-dim 168 --tokens 30M --optimizer adamw --schedule cosine --lr 2e-3 --batch 4 \
  --precision float32 --evaluations 20 --data "$WORK/tinystories" --out "$WORK/small"
mkdir -p "$here/small"
cp "$WORK/small/"{run.json,config.json,metrics.jsonl,model.safetensors,tokenizer.json,loss.png} "$here/small/"
for text in valid_v1 valid_v2; do
  frailt evaluate "$here/small" --text "$DATA/tinystories/$text.txt.xz" --passes --json >"$here/small/$text.json"
  frailt evaluate "$DATA/llama2c/stories260K.bin" --text "$DATA/tinystories/$text.txt.xz" --json \
    >"$here/small/stories260K-$text.json"
done
frailt story "Once upon a time" --model "$here/small" --temperature 0.8 --seed 1 >"$here/small/story.txt"
