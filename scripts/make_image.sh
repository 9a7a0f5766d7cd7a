#!/bin/sh
# Build the base image everlease/trainer:local as a `docker save` archive, from this machine's Python, numpy and shared libraries.
# Usage: scripts/make_image.sh [OUTPUT]       Default .build/image.tar. No Docker daemon and no registry is needed. Idempotent.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
output=${1:-$root/.build/image.tar}
python=$root/.venv/bin/python

if [ ! -x "$python" ]; then
    echo "the image is built from the project's Python environment: run 'make setup' first" >&2
    exit 1
fi
newest=$(ls -t "$output" "$root/scripts/image/rootfs.py" "$root/scripts/trainer/train.py" "$root/.venv/pyvenv.cfg" 2>/dev/null | head -n 1)
if [ "$newest" = "$output" ]; then
    echo "image is already in $output"
    exit 0
fi
mkdir -p "$(dirname -- "$output")"
"$python" "$root/scripts/image/rootfs.py" --train "$root/scripts/trainer/train.py" --output "$output.part"
mv "$output.part" "$output"
echo "image everlease/trainer:local is in $output ($(du -m "$output" | cut -f 1) MB)"
