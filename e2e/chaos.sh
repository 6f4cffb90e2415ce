#!/usr/bin/env bash
# The stories `rough-weather` and `static-rough-weather` (faults of API server, watches, cloud and controller at once) under
# many seeds, each in virtual time: chaos.sh [SEEDS=50] [FROM=1]. A failure prints its seed and the command that tells it
# again.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=50 from=1
for argument in "$@"; do
  case "$argument" in
    SEEDS=*) seeds=${argument#SEEDS=} ;;
    FROM=*) from=${argument#FROM=} ;;
    *) echo "chaos.sh: expected SEEDS=N or FROM=N, got $argument" >&2; exit 2 ;;
  esac
done
binary="$(e2e/build.sh)/kubectl-karpenter"
passed=0 failed=0
for seed in $(seq "$from" $((from + seeds - 1))); do
  for story in rough-weather static-rough-weather; do
    if out=$(timeout 120 "$binary" simulate "fixtures/scenarios/$story" --seed "$seed" -o text 2>&1); then
      passed=$((passed + 1))
    else
      failed=$((failed + 1))
      echo "seed $seed: cargo kubectl-karpenter simulate fixtures/scenarios/$story --seed $seed -o text"
      grep -E "FAIL|VIOLATION|error" <<<"$out" || true
    fi
  done
done
echo "chaos: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
