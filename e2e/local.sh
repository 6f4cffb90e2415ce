#!/usr/bin/env bash
# The `local` tier: the controller's binary on a real control plane without Docker (e2e/local-control-plane).
#   local.sh [TEST FILTER...]   builds it once and runs the tests of the tier
#   local.sh up [OPTION...]     keeps one up in the background and prints how to reach it
#   local.sh conformance [CHECK...]  the table of API behaviours on the real API server and on the embedded one
#   local.sh build              builds it only
#   local.sh down               ends the one that `up` started
set -euo pipefail
cd "$(dirname "$0")/.."

state="${XDG_CACHE_HOME:-$HOME/.cache}/karpenter-rs/local-up"

# Builds the executable; without Go or its modules there is no tier, which is said and is no failure.
build() {
  if ! command -v go >/dev/null; then
    echo "SKIPPED: the local tier needs Go, and there is none on the PATH" >&2
    exit 0
  fi
  if ! (cd e2e/local-control-plane && go mod download >&2); then
    echo "SKIPPED: the local tier's Go modules cannot be downloaded here" >&2
    exit 0
  fi
  executable=$(e2e/local-control-plane/build.sh)
}

case "${1:-}" in
  up)
    shift
    build
    if [ -e "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null; then
      echo "it is up already: export KUBECONFIG=$state/cluster/admin.kubeconfig" >&2
      exit 1
    fi
    rm -rf "$state"
    mkdir -p "$state"
    setsid nohup "$executable" run -state "$state/cluster" "$@" >"$state/log" 2>&1 &
    echo $! >"$state/pid"
    until [ -e "$state/cluster/ready" ]; do
      kill -0 "$(cat "$state/pid")" 2>/dev/null || { cat "$state/log" >&2; exit 1; }
      sleep 0.1
    done
    echo "export KUBECONFIG=$state/cluster/admin.kubeconfig"
    ;;
  conformance)
    shift
    # Without the real server the embedded one is still compared with what was recorded; hence no exit when it is missing.
    executable=$(build && echo "$executable")
    if [ -n "$executable" ]; then
      export LOCAL_CONTROL_PLANE="$executable"
    fi
    if [ $# -eq 0 ]; then
      e2e/build.sh crates --quiet --lib judged_tests
    fi
    e2e/build.sh crates --test api-conformance -- "$@"
    ;;
  build)
    build
    ;;
  down)
    if [ ! -e "$state/pid" ]; then
      echo "nothing is up" >&2
      exit 0
    fi
    pid=$(cat "$state/pid")
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    rm -rf "$state"
    ;;
  *)
    build
    LOCAL_CONTROL_PLANE="$executable" e2e/build.sh test --test local -- --nocapture "$@"
    ;;
esac
