#!/bin/sh
# Assembles every guest, guests/<name>/<name>.asm, to a flat binary beside its source.
# Needs nasm. The images are committed, so only a change to a source makes this necessary.
set -eu

if ! command -v nasm >/dev/null 2>&1; then
  echo "guests/build.sh: nasm is not installed; install the package nasm and run this again" >&2
  exit 1
fi

cd "$(dirname "$0")"
for source in */*.asm; do
  image="${source%.asm}.bin"
  nasm -w+all -w+error -f bin -o "$image" "$source"
  echo "$image: $(wc -c <"$image") bytes"
done
