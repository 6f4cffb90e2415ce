// Command local-control-plane runs a real Kubernetes control plane on loopback out of one executable: etcd,
// kube-apiserver, kube-controller-manager, kube-scheduler and KWOK. It is the judge of the embedded control plane and
// the ground of the `local` tier.
//
//	local-control-plane run [options] [-- COMMAND [ARGUMENT...]]
//	local-control-plane judge-scheduling < cases
//	local-control-plane types
//
// `run` is the parent: it keeps etcd and the garbage collectors inside itself and starts this same executable once
// more for each other component, because those share state that a process has only once (feature gates, signal
// handlers, metric registries). The names of the components are therefore commands too, with the components' own flags.
package main

import (
	"fmt"
	"os"

	_ "time/tzdata" // CronJobs name time zones

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// Components that are children, by the command that this executable is started again with.
const (
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	kubeScheduler     = "kube-scheduler"
	kwokController    = "kwok"
)

func main() {
	command := ""
	if len(os.Args) > 1 {
		command = os.Args[1]
		// Each component reads the process' arguments by itself and expects its own name first.
		os.Args = os.Args[1:]
	}
	switch command {
	case "run":
		os.Exit(runCommand(os.Args[1:]))
	case apiServer:
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case controllerManager:
		os.Exit(cli.Run(controllermanager.NewControllerManagerCommand()))
	case kubeScheduler:
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case kwokController:
		os.Exit(kwokCommand())
	case judgeScheduling:
		os.Exit(judgeCommand())
	case printTypes:
		os.Exit(typesCommand())
	}
	fmt.Fprintln(os.Stderr, "usage: local-control-plane run [options] [-- COMMAND [ARGUMENT...]]")
	os.Exit(2)
}
