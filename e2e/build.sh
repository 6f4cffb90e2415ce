#!/usr/bin/env bash
# The one release build of the tiers and checks: all of them ask cargo for the same packages, since another set would
# unify other features and compile half of the tree anew.
#   build.sh              builds the binaries and the tiers, and prints the folder of the executables
#   build.sh ARGUMENT...  runs that `cargo test` with these arguments, such as: --test scenarios -- first-node
set -euo pipefail
cd "$(dirname "$0")/.."
set_of_packages=(--release --package karpenter-cli --package karpenter --package karpenter-e2e)
if [ "$#" -gt 0 ]; then
  exec cargo test "${set_of_packages[@]}" "$@"
fi
# Tests bring the binaries of their packages along: commands is a test of the command line. Without tests, `cargo build` would
# unify other features, too.
cargo test --quiet --no-run "${set_of_packages[@]}" --test scenarios --test local --test commands >&2
target=$(cargo metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
echo "$target/release"
