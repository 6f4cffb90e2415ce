#!/usr/bin/env bash
# What CI runs after linting: the local tier waits in real time for the most part, so everything that only computes runs
# beside it and gives way to it. What the local tier says is shown when it has ended. Everything is built before, since
# cargo lets nobody else in while it builds.
set -euo pipefail
cd "$(dirname "$0")/.."
e2e/build.sh
just test --no-run
e2e/local.sh build
log=$(mktemp)
setsid just e2e local >"$log" 2>&1 &
local_tier=$!
trap 'kill -- "-$local_tier" 2>/dev/null || true; rm -f "$log"' EXIT
for recipe in test e2e conformance determinism "chaos SEEDS=50"; do
  # shellcheck disable=SC2086 # A recipe and its arguments.
  nice -n 10 just $recipe
done
passed=0
wait "$local_tier" || passed=$?
cat "$log"
exit "$passed"
