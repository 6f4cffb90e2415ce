#!/usr/bin/env bash
# Stories in which everything goes wrong at once, in virtual time: chaos.sh [SEEDS=50] [FROM=1] [SHOW=1]; see
# `e2e/src/bin/chaos.rs`. A failure prints its seed and the command that tells it again.
set -euo pipefail
cd "$(dirname "$0")/.."
binary="$(e2e/build.sh)/chaos"
exec "$binary" "$@"
