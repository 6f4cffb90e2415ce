#!/usr/bin/env bash
# What CI runs after linting, in three lanes: the local tier waits in real time for the most part, and tests wait for one
# another, so what only computes runs beside them and gives way to them. What a lane says is shown when it has ended.
# Everything is built before, since cargo lets nobody else in while it builds.
set -euo pipefail
cd "$(dirname "$0")/.."
e2e/build.sh
just test --no-run
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
lane checks 10 "just e2e; just conformance; just determinism; just chaos SEEDS=20"
nice -n 5 just test
failed=0
for at in "${!lanes[@]}"; do
  wait "${lanes[$at]}" || failed=1
  cat "$logs/${names[$at]}"
done
exit "$failed"
