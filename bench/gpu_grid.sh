#!/usr/bin/env bash
# The paper's whole grid on one CUDA GPU: five widths, eight shapes, twice over all of the text. Run it from the project's
# root with the package installed (on Linux, pip's own torch is the CUDA build):
#   DATA=../shared/data bash bench/gpu_grid.sh
# It goes on where it stopped. MINUTES=7 ends it about that time after its start, with everything saved and reported; the same
# command then continues. The widest models come first: they take longest, and the paper says most about them.
# First: pytest -m gpu. WORK holds prepared data and runs; the report is copied to results/gpu-grid.
# The other names let it be tried without a GPU:
#   DEVICE=cpu WIDTHS=64 SHAPES='1,1^2' BUDGET=20k WORK=/tmp/gpu RESULT=/tmp/gpu-result bash bench/gpu_grid.sh
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs/gpu}
RESULT=${RESULT:-results/gpu-grid}

frailt prepare --out "$WORK/tinystories" --tokenizer "$DATA/llama2c/tok512.model" \
  --text "$DATA"/tinystories/train_v2.txt.xz "$DATA"/tinystories/train_v2_fragments.txt.xz \
  "$DATA"/tinystories/train_v1.txt.xz --valid "$DATA"/tinystories/valid_v2.txt.xz

# 16 windows a step: 8,192 tokens, 4,834 steps. A lower rate than the CPU grid's, since it must suit width 1024 as well.
frailt reproduce --data "$WORK/tinystories" --out "$WORK/grid" --device "${DEVICE:-cuda}" \
  --widths "${WIDTHS:-1024,512,256,128,64}" --shapes "${SHAPES:-1,2,4,8,1^2,1^8,2^4,4^2}" \
  --budget "${BUDGET:-39.6M}" --batch 16 --optimizer adamw --lr 1e-3 --precision bfloat16 --compile ${MINUTES:+--minutes "$MINUTES"}

[ -f "$WORK/grid/report.md" ] || exit 0  # No model is complete yet.
mkdir -p "$RESULT"
cp "$WORK"/grid/{report.md,report.html,grid.json,figure-*} "$RESULT/"
