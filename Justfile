# Every command a developer runs. `.ci/run` and the GitHub workflow call these and nothing else.

set shell := ["bash", "-euo", "pipefail", "-c"]

# What there is.
default:
    @just --list

# All tests: those of the crates, and those of the tiers, the embedded e2e suite among them.
test *ARGS: (test-crates ARGS) (test-tiers ARGS)

# The tests of the crates.
test-crates *ARGS:
    e2e/build.sh crates {{ARGS}}

# The tests of the binaries and of the harness, optimized, since most tell stories.
test-tiers *ARGS:
    e2e/build.sh test {{ARGS}}

# Formatting and lints, warnings are errors.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The whole machine in one process, in virtual time.
demo *ARGS:
    cargo demo {{ARGS}}

# A tier: embedded (the scenarios under fixtures/scenarios, in virtual time) or local (the binary, and the
# stories that can be told there, on a real control plane on loopback; needs Go, and says so where there is none).
e2e TIER="embedded" *ARGS:
    @case "{{TIER}}" in \
      embedded) e2e/build.sh test --test scenarios -- {{ARGS}} ;; \
      local) e2e/local.sh {{ARGS}} ;; \
      *) echo "just e2e: expected embedded or local, got {{TIER}}" >&2; exit 2 ;; \
    esac

# The table of API behaviours, on a real kube-apiserver and on the embedded server: just conformance [part of a name]
conformance *CHECKS:
    e2e/local.sh conformance {{CHECKS}}

# A real control plane on loopback, kept up: just local-up, then KUBECONFIG as it says; just local-down ends it.
local-up *ARGS:
    e2e/local.sh up {{ARGS}}

# Ends what local-up started, and nothing else.
local-down:
    e2e/local.sh down

# Rewrites goldens and generated files; read the diff before you commit it.
accept:
    UPDATE_GOLDENS=1 UPDATE_CRDS=1 INSTA_UPDATE=always cargo test --workspace

# Every scenario twice, in two processes, with one seed: the bytes must be the same.
determinism:
    e2e/determinism.sh

# No snapshot may be waiting for review.
pending-snapshots:
    @test -z "$(git ls-files --others --cached '*.snap.new' '*.pending-snap' '*.actual')"

# Storms under many seeds, drawn and written ones: just chaos SEEDS=500 FROM=7
chaos *ARGS:
    e2e/chaos.sh {{ARGS}}

# The storms of one seed, and how the drawn one went.
seed N:
    e2e/chaos.sh SEEDS=1 FROM={{N}} SHOW=1

# Memory, cores and seconds of the controller on a real control plane, 1000 pods out and back, 300 nodes drifting: a quarter
# of an hour on a quiet machine.
light:
    e2e/light.sh

# Speed, as ratios in one run.
bench *ARGS:
    cargo bench --workspace {{ARGS}}

# Licences, sources, bans. Advisories too where their database can be reached: just deny advisories
deny *WHAT="bans licenses sources":
    cargo deny --workspace check {{WHAT}}

# All tests and tiers: test, e2e, conformance, determinism and chaos beside the local tier.
together:
    e2e/together.sh

# What CI runs, in its order.
ci: lint together pending-snapshots deny
