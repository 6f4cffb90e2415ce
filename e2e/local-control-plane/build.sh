#!/usr/bin/env bash
# Builds the executable into the user's cache, once for each state of the sources, and prints its path.
# The version has to be linked in: a server that does not know it calls itself v0.0.0, which charts refuse.
set -euo pipefail
cd "$(dirname "$0")"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/karpenter-rs/local-control-plane"
key=$(cat ./*.go go.mod go.sum build.sh | sha256sum | cut -c1-16)
out="$cache/$key/local-control-plane"
if [ ! -x "$out" ]; then
  echo "building the local control plane, once: some minutes" >&2
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  minor=${version#v1.}
  minor=${minor%%.*}
  link="-s -w"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    link+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
  done
  mkdir -p "$cache/$key"
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "$link" -o "$out.new" .
  mv "$out.new" "$out"
  # Earlier states are of no use any more.
  find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name "$key" -exec rm -rf {} +
fi
echo "$out"
