package main

// The flags of the components, and why each differs from its default.

import (
	"fmt"
	"os"
	"strings"
	"time"
)

const serviceRange = "10.96.0.0/16"

func (c *cluster) apiServerFlags() []string {
	certificate := func(name string) string { return c.in("certificates", name) }
	toleration := int(c.toleration / time.Second)
	return []string{
		"--etcd-servers=" + c.etcdAddress,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		// A loopback address may not stand in Endpoints, so nobody writes them.
		"--endpoint-reconciler-type=none",
		fmt.Sprintf("--secure-port=%d", c.port),
		"--service-cluster-ip-range=" + serviceRange,
		"--client-ca-file=" + certificate("ca.crt"),
		"--tls-cert-file=" + certificate("apiserver.crt"),
		"--tls-private-key-file=" + certificate("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + certificate("tokens.key"),
		"--service-account-signing-key-file=" + certificate("tokens.key"),
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		fmt.Sprintf("--default-not-ready-toleration-seconds=%d", toleration),
		fmt.Sprintf("--default-unreachable-toleration-seconds=%d", toleration),
		// A test is one client that is in a hurry; fairness would slow it down.
		"--enable-priority-and-fairness=false",
		"--max-requests-inflight=2000",
		"--max-mutating-requests-inflight=1000",
		"--profiling=false",
		c.verbosityFlag(),
	}
}

func (c *cluster) controllerManagerFlags() []string {
	return []string{
		"--kubeconfig=" + c.kubeconfig(controllerManager),
		"--controllers=" + c.controllers,
		"--service-account-private-key-file=" + c.in("certificates", "tokens.key"),
		"--root-ca-file=" + c.in("certificates", "ca.crt"),
		"--leader-elect=false",
		"--bind-address=127.0.0.1",
		"--secure-port=0",
		// All its controllers act as one user, which saves a service account each.
		"--use-service-account-credentials=false",
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
		"--controller-start-interval=0",
		"--node-monitor-period=500ms",
		"--node-monitor-grace-period=" + c.silentAfter.String(),
		"--node-startup-grace-period=" + c.silentAfter.String(),
		// Evictions are not held back for the sake of a big cluster's network.
		"--node-eviction-rate=100",
		"--secondary-node-eviction-rate=100",
		"--unhealthy-zone-threshold=1",
		"--pvclaimbinder-sync-period=1s",
		"--profiling=false",
		c.verbosityFlag(),
	}
}

func (c *cluster) schedulerFlags() ([]string, error) {
	file := c.in("scheduler.yaml")
	// A pod that did not fit is looked at again after a second; the default grows to ten.
	config := []string{
		"apiVersion: kubescheduler.config.k8s.io/v1",
		"kind: KubeSchedulerConfiguration",
		"leaderElection:",
		"  leaderElect: false",
		"clientConnection:",
		"  kubeconfig: " + c.kubeconfig(kubeScheduler),
		"  qps: 500",
		"  burst: 1000",
		"podInitialBackoffSeconds: 1",
		"podMaxBackoffSeconds: 1",
	}
	if err := os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	return []string{"--config=" + file, "--bind-address=127.0.0.1", "--secure-port=0", c.verbosityFlag()}, nil
}

func (c *cluster) kwokFlags() ([]string, error) {
	stages := c.in("stages.yaml")
	if err := c.writeStages(stages); err != nil {
		return nil, err
	}
	return []string{
		"--kubeconfig=" + c.kubeconfig(kwokController),
		"--config=" + stages,
		"--manage-all-nodes=false",
		"--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
		"--node-ip=127.0.0.1",
		"--cidr=10.64.0.1/10",
		fmt.Sprintf("--node-lease-duration-seconds=%d", int(c.leaseLength/time.Second)),
	}, nil
}

func (c *cluster) verbosityFlag() string { return fmt.Sprintf("--v=%d", c.verbosity) }
