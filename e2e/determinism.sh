#!/usr/bin/env bash
# Every scenario and the demo twice, in two processes, with one seed: the bytes must be the same.
# (The demo's wallSeconds is the one figure that is measured, and is left out.)
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bin="$(e2e/build.sh)/kubectl-karpenter"
cores=$(nproc)
for run in 1 2; do
  mkdir "$out/$run"
  "$bin" demo --seed 7 --output json | grep -v '"wallSeconds"' > "$out/$run/demo.json"
  # A story that fails must fail here, too: xargs says so.
  printf '%s\n' fixtures/scenarios/*/ \
    | BIN="$bin" OUT="$out/$run" xargs -P "$cores" -I{} bash -c '"$BIN" simulate "$1" > "$OUT/$(basename "$1").json"' _ {}
done
diff -r "$out/1" "$out/2"
echo "determinism: $(find "$out/1" -type f | wc -l) stories, each told twice, the same to the byte"
