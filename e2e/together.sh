#!/usr/bin/env bash
# What CI runs after linting. Two builds: the optimized one of the tiers with the tests of its packages, and the plain one of
# all other tests. The local tier waits in real time for the most part, so all else runs beside it and gives way to it. What
# a lane says is shown when it has ended.
set -euo pipefail
cd "$(dirname "$0")/.."
e2e/build.sh
e2e/local.sh build
logs=$(mktemp -d)
lanes=()
names=()
trap 'for lane in "${lanes[@]}"; do kill -- "-$lane" 2>/dev/null || true; done; rm -rf "$logs"' EXIT

# A lane of its own: its name, its niceness, its commands. In a session of its own, so that all of it can be ended.
lane() {
  setsid nice -n "$2" bash -euc "$3" >"$logs/$1" 2>&1 &
  lanes+=("$!")
  names+=("$1")
}
lane local 0 "just e2e local"
lane checks 10 "just test-tiers --no-fail-fast; just determinism; just chaos SEEDS=50"
# Cargo locks the folder of one profile at a time: this builds while the lanes run what is built.
nice -n 5 bash -euc "just test-crates; just conformance"
failed=0
for at in "${!lanes[@]}"; do
  wait "${lanes[$at]}" || failed=1
  cat "$logs/${names[$at]}"
done
exit "$failed"
