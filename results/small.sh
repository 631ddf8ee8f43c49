#!/usr/bin/env bash
# Makes what lies in results/small: a model of at most 260,032 parameters, the size of llama2.c's stories260K, trained on
# the shared text alone. Run it from the project's root with the package installed:
#   DATA=../shared/data bash results/small.sh
# DATA holds tinystories/*.txt.xz and llama2c/. Cut it off at will: run again, it goes on where it stopped.
# About an hour and a quarter on one core that does nothing else. WORK holds prepared data and the run.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs}
here=$(dirname "$0")

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

# Five blocks, one pass for 60% of the steps, then two; the recipe of the package (Muon and AdamW, linear to 0).
frailt train --resume --shape '5^2' --dim 64 --kv-heads 4 --hidden-dim 168 --passes late --tokens 40M --batch 2 \
  --precision bfloat16 --compile --evaluations 5 --data "$WORK/tinystories" --out "$WORK/small"
mkdir -p "$here/small"
cp "$WORK/small/"{run.json,config.json,metrics.jsonl,model.safetensors,tokenizer.json,loss.png} "$here/small/"
for text in valid_v1 valid_v2; do
  frailt evaluate "$here/small" --text "$DATA/tinystories/$text.txt.xz" --passes --json >"$here/small/$text.json"
  frailt evaluate "$DATA/llama2c/stories260K.bin" --text "$DATA/tinystories/$text.txt.xz" --json \
    >"$here/small/stories260K-$text.json"
done
frailt story "Once upon a time" --model "$here/small" --temperature 0.8 --seed 1 >"$here/small/story.txt"
