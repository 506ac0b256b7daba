#!/bin/sh
# How much faster a corpus is on two GPUs than on one: one, two, the other, two, with the clocks beside them.
#   sh benchmarks/two_gpus.sh [FILES] [FOLDER]     10,000 files (18 h) of random mels by default
# python3 must have fastglow; FOLDER must be new or empty. The first pair warms up what is compiled and cached; 256 channels, random weights, fp16.
set -e
files=${1:-10000} place=${2:-$(mktemp -d)}
mkdir -p "$place"
[ -z "$(ls -A "$place")" ] || { echo "$place is not empty" >&2; exit 2; }
python3 - "$files" "$place" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np

from fastglow.bench.model import published, random_weights
from fastglow.checkpoint import save_safetensors

files, place = int(sys.argv[1]), Path(sys.argv[2])
save_safetensors(random_weights(published(256)), place / "model", "float16")
(place / "mels").mkdir()
rng = np.random.default_rng(0)
for i in range(files):
    frames = int(rng.uniform(1, 12) * 22050 / 256)
    mel = rng.normal(-5, 2, (80, frames)).clip(-11.5, 2)
    np.save(place / "mels" / f"{i:05d}.npy", mel.astype(np.float32))
PYTHON
nvidia-smi --query-gpu=timestamp,index,clocks.sm,power.draw,utilization.gpu --format=csv,noheader -l 2 > "$place/clocks.csv" 2>&1 &
clocks=$!
trap 'kill $clocks' EXIT
for run in one-0 two-0 one-1 two-1 one-2 two-2; do
  case $run in one-2) device=cuda:1 ;; one*) device=cuda:0 ;; *) device=cuda:0,cuda:1 ;; esac
  rm -rf "$place/out"
  echo "== $run"
  python3 -m fastglow vocode "$place/mels" -o "$place/out" -m "$place/model" --device $device \
    --precision fp16 --journal "$place/$run.jsonl" > "$place/$run.log" 2>&1 || { cat "$place/$run.log"; exit 1; }
  tail -n 1 "$place/$run.log"
done
python3 -m fastglow scaling "$place"/one-[12].jsonl "$place"/two-[12].jsonl
echo "kept: $place"
