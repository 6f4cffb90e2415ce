#!/usr/bin/env bash
# How much the controller takes, and how long: the release binary with provider kwok on a real control plane of its own.
#   light.sh            1000 pods out and back to 700, then 600 pods on 300 nodes that drift
# Prints a line a phase: seconds, resident memory of the controller (95th percentile, most), cores on average. Machines have
# fewer than 32 cores, as in the performance suite of Karpenter, so that there are nodes enough. Other load spoils the figures.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v go >/dev/null || { echo "SKIPPED: a real control plane needs Go, and there is none on the PATH" >&2; exit 0; }
command -v kubectl >/dev/null || { echo "SKIPPED: kubectl is not on the PATH" >&2; exit 0; }
plane=$(e2e/local-control-plane/build.sh)
controller="$(e2e/build.sh shipped)/karpenter"
work=$(mktemp -d)
running=()
finish() {
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

"$plane" run -state "$work/cluster" >"$work/plane.log" 2>&1 &
running+=($!)
until [ -e "$work/cluster/ready" ]; do
  kill -0 "${running[0]}" 2>/dev/null || { cat "$work/plane.log" >&2; exit 1; }
  sleep 0.2
done
export KUBECONFIG="$work/cluster/admin.kubeconfig"
for file in charts/karpenter-crd/templates/*.yaml; do
  # What the chart's templates say beside the definitions is of no concern here.
  sed -e '/{{/d' -e '/^  annotations:$/d' "$file" | kubectl apply --server-side -f - >/dev/null
done
DISABLE_LEADER_ELECTION=true METRICS_PORT=0 HEALTH_PROBE_PORT=0 "$controller" --provider=kwok --log-level=info \
  >"$work/controller.log" 2>&1 &
karpenter=$!
running+=("$karpenter")
while kill -0 "$karpenter" 2>/dev/null; do
  echo "$(date +%s.%N) $(awk '/VmRSS/{print $2}' "/proc/$karpenter/status") $(awk '{print $14 + $15}' "/proc/$karpenter/stat")"
  sleep 1
done >"$work/samples" 2>/dev/null &
running+=($!)

kubectl apply -f - >/dev/null <<'Y'
apiVersion: karpenter.kwok.sh/v1alpha1
kind: KWOKNodeClass
metadata: {name: default}
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: default}
spec:
  disruption: {consolidationPolicy: WhenEmptyOrUnderutilized, consolidateAfter: 30s, budgets: [{nodes: "100%"}]}
  template:
    spec:
      nodeClassRef: {group: karpenter.kwok.sh, kind: KWOKNodeClass, name: default}
      requirements:
      - {key: kubernetes.io/os, operator: In, values: [linux]}
      - {key: kubernetes.io/arch, operator: In, values: [amd64]}
      - {key: karpenter.kwok.sh/instance-size, operator: Lt, values: ["32"]}
Y

# deployment NAME REPLICAS CPU MEMORY [SPREAD]
deployment() {
  cat <<Y
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: $1}
spec:
  replicas: $2
  selector: {matchLabels: {app: $1}}
  template:
    metadata: {labels: {app: $1}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints: [${5:-}]
      containers: [{name: c, image: pause, resources: {requests: {cpu: $3, memory: $4}}}]
Y
}
now() { date +%s.%N; }
nodes() { kubectl get nodes --no-headers 2>/dev/null | wc -l; }
running_pods() { kubectl get pods --field-selector=status.phase=Running --no-headers 2>/dev/null | wc -l; }
until_running() { until [ "$(running_pods)" -ge "$1" ]; do sleep 1; done; }
# told WHAT SINCE UNTIL
told() {
  awk -v what="$1" -v from="$2" -v to="$3" -v nodes="$(nodes)" '
    NF == 3 && $1 >= from && $1 <= to {
      rss[++n] = $2 / 1024
      if (n == 1) { t0 = $1; c0 = $3 }
      t1 = $1; c1 = $3
    }
    END {
      for (i = 2; i <= n; i++) for (j = i; j > 1 && rss[j] < rss[j - 1]; j--) { x = rss[j]; rss[j] = rss[j - 1]; rss[j - 1] = x }
      at = int(n * 0.95); if (at < 1) at = 1
      printf "%-34s %4d s  %4d nodes  RSS p95 %3d MiB, most %3d  %.3f cores\n", what, to - from, nodes, rss[at], rss[n], (c1 - c0) / 100 / (t1 - t0)
    }' "$work/samples"
}

began=$(now)
{ deployment small 500 900m 3100Mi; deployment large 500 3500m 28Gi; } | kubectl apply -f - >/dev/null
until_running 1000
told "1000 pods out" "$began" "$(now)"
sleep 20
began=$(now)
kubectl scale deployment small large --replicas=350 >/dev/null
last=$(nodes) changed=$began
# It is over when nothing has left for a minute and a half.
until awk -v a="$changed" -v b="$(now)" 'BEGIN { exit !(b - a > 90) }'; do
  count=$(nodes)
  if [ "$count" != "$last" ]; then last=$count changed=$(now); fi
  sleep 2
done
told "back to 700, consolidated" "$began" "$changed"

kubectl delete deployment --all >/dev/null
until [ "$(nodes)" -eq 0 ]; do sleep 2; done
spread='{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: spread}}}'
began=$(now)
{ deployment spread 300 900m 3100Mi "$spread"; deployment large 300 3500m 28Gi; } | kubectl apply -f - >/dev/null
until_running 600
told "600 pods, half of them one a host" "$began" "$(now)"
sleep 30
began=$(now)
kubectl patch nodepool default --type merge -p '{"spec":{"template":{"metadata":{"annotations":{"changed":"yes"}}}}}' >/dev/null
sleep 2
hash_of='{.metadata.annotations.karpenter\.sh/nodepool-hash}'
hash=$(kubectl get nodepool default -o jsonpath="$hash_of")
until [ "$(kubectl get nodeclaims -o jsonpath="{range .items[*]}$hash_of{'\n'}{end}" | grep -vcxF "$hash")" -eq 0 ]; do sleep 2; done
until_running 600
told "all of them drifted" "$began" "$(now)"
