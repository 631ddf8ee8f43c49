#!/usr/bin/env bash
# Puts the model of results/small into the package in bfloat16 (src/frailt/models/tinystories-5x2), and measures what lies
# there (results/shipped). Run it from the project's root with the package installed:
#   DATA=../shared/data bash results/ship.sh
set -euo pipefail
DATA=${DATA:-../shared/data}
here=$(dirname "$0")
model="$here/../src/frailt/models/tinystories-5x2"

python - "$here/small" "$model" <<'PY'
import shutil
import sys
from pathlib import Path

import torch
from frailt.model.checkpoint import load_model, save_model, stored_weights

source, target = map(Path, sys.argv[1:])
model = load_model(source)
save_model(model, target, {name: weight.to(torch.bfloat16) for name, weight in stored_weights(model).items()})
shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
PY
mkdir -p "$here/shipped"
for text in valid_v1 valid_v2; do
  frailt evaluate "$model" --text "$DATA/tinystories/$text.txt.xz" --json >"$here/shipped/$text.json"
done
