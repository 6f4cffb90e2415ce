#!/usr/bin/env bash
# Every scenario and the demo twice, in two processes, with one seed: the bytes must be the same.
# (The demo's wallSeconds is the one figure that is measured, and is left out.)
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bin="$(e2e/build.sh)/kubectl-karpenter"
for run in 1 2; do
  mkdir "$out/$run"
  "$bin" demo --seed 7 --output json | grep -v '"wallSeconds"' > "$out/$run/demo.json"
  for folder in fixtures/scenarios/*/; do
    "$bin" simulate "$folder" > "$out/$run/$(basename "$folder").json"
  done
done
diff -r "$out/1" "$out/2"
echo "determinism: $(find "$out/1" -type f | wc -l) stories, each told twice, the same to the byte"
