#!/usr/bin/env bash
# The one optimized build (profile `tiers`) of the tiers and checks, and of the tests of their packages: all of them ask
# cargo for the same packages, since another set would unify other features and compile half of the tree anew.
#   build.sh                   builds the binaries, the tiers and the tests, and prints the folder of the executables
#   build.sh test ARGUMENT...  runs `cargo test` on these packages, such as: build.sh test --test scenarios -- first-node
#   build.sh crates ARGUMENT...  runs plain `cargo test` on all other packages
#   build.sh shipped           builds the controller as it is shipped, and prints the folder of it
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(karpenter-cli karpenter karpenter-e2e)
mapfile -t these < <(printf -- '--package\n%s\n' "${packages[@]}")
mapfile -t others < <(printf -- '--exclude\n%s\n' "${packages[@]}")
target=$(cargo metadata --no-deps --format-version 1 | sed -E 's/.*"target_directory":"([^"]*)".*/\1/')
case "${1:-}" in
  shipped)
    cargo build --quiet --release --package karpenter >&2
    echo "$target/release"
    exit
    ;;
  test) exec cargo test --profile tiers "${these[@]}" "${@:2}" ;;
  crates) exec cargo test --workspace "${others[@]}" "${@:2}" ;;
esac
# Tests bring the binaries of their packages along. Without tests, `cargo build` would unify other features.
cargo test --quiet --no-run --profile tiers "${these[@]}" >&2
echo "$target/tiers"
