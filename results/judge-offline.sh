#!/usr/bin/env bash
# Makes results/judge-offline: measures of stories that need no judge, of the models named, or of every one in results/.
# Run it from the project's root with the package installed:
#   DATA=../shared/data bash results/judge-offline.sh [MODEL...]
# DATA holds tinystories/*.txt.xz and llama2c/. A few minutes on two cores; what was written before is not written again.
set -euo pipefail
DATA=${DATA:-../shared/data}
WORK=${WORK:-runs/judge-offline}
here=$(dirname "$0")
if [ $# = 0 ]; then
  mapfile -t weights < <(find "$here" -name model.safetensors | sort)
  set -- "${weights[@]%/model.safetensors}"
fi

# Held-out stories are cut in the middle, and the real endings are measured too. stories260K is model and reference: its
# perplexity is that of its own samples under itself.
frailt judge offline "$@" "$DATA/llama2c/stories260K.bin" --completions 100 --out "$WORK" \
  --held-out "$DATA/tinystories/valid_v2.txt.xz" --valid "$DATA/tinystories/valid_v2.txt.xz" \
  --text "$DATA"/tinystories/train_{v2,v2_fragments,v1}.txt.xz --reference "$DATA/llama2c/stories260K.bin"
mkdir -p "$here/judge-offline"
cp "$WORK"/offline.{json,md} "$here/judge-offline/"
