# Every command a developer runs. `.ci/run` and the GitHub workflow call these and nothing else.

set shell := ["bash", "-euo", "pipefail", "-c"]

# What there is.
default:
    @just --list

# All tests, the embedded e2e suite included.
test *ARGS:
    cargo test --workspace {{ARGS}}

# Formatting and lints, warnings are errors.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The whole machine in one process, in virtual time.
demo *ARGS:
    cargo demo {{ARGS}}

# The scenarios under fixtures/scenarios on a tier: embedded, or all of them when empty.
e2e TIER="embedded" *ARGS:
    cargo test --release --package karpenter-e2e --test scenarios -- {{ARGS}}

# Rewrites goldens and generated files; read the diff before you commit it.
accept:
    UPDATE_GOLDENS=1 UPDATE_CRDS=1 INSTA_UPDATE=always cargo test --workspace

# Every scenario twice, in two processes, with one seed: the bytes must be the same.
determinism:
    e2e/determinism.sh

# No snapshot may be waiting for review.
pending-snapshots:
    @test -z "$(git ls-files --others --cached '*.snap.new' '*.pending-snap' '*.actual')"

# The demo's story from one seed.
seed N:
    cargo demo --seed {{N}} --output json

# Speed, as ratios in one run.
bench *ARGS:
    cargo bench --workspace {{ARGS}}

# Licences, sources, bans. Advisories too where their database can be reached: just deny advisories
deny *WHAT="bans licenses sources":
    cargo deny --workspace check {{WHAT}}

# What CI runs, in its order.
ci: lint test e2e determinism pending-snapshots deny
