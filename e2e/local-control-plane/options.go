package main

// What a cluster can be made like. Defaults suit short tests; `-stock` is what a cluster in production has.

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

type options struct {
	state       string
	keepState   bool
	port        int
	controllers string
	stageFiles  listFlag
	verbosity   int
	stock       bool
	holdStatus  bool
	apiOnly     bool
	silentAfter time.Duration
	leaseLength time.Duration
	toleration  time.Duration
}

// listFlag is a flag that may be given several times.
type listFlag []string

func (l *listFlag) String() string     { return fmt.Sprint([]string(*l)) }
func (l *listFlag) Set(v string) error { *l = append(*l, v); return nil }

// neededControllers are those without which pods, nodes or claims would stand still. The two garbage collectors are
// missing on purpose: collectors.go runs them with periods that kube-controller-manager has no flags for.
const neededControllers = "serviceaccount-controller,namespace-controller,root-ca-certificate-publisher-controller," +
	"deployment-controller,replicaset-controller,statefulset-controller,daemonset-controller,job-controller," +
	"disruption-controller,node-lifecycle-controller,taint-eviction-controller,endpointslice-controller," +
	"persistentvolume-binder-controller,persistentvolumeclaim-protection-controller," +
	"persistentvolume-protection-controller,clusterrole-aggregation-controller"

// allControllers leaves nothing out but the two collectors.
const allControllers = "*,-garbage-collector-controller,-pod-garbage-collector-controller"

func parseOptions(arguments []string) (*options, []string, error) {
	o := &options{}
	all := false
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	f.StringVar(&o.state, "state", "", "folder for certificates, kubeconfigs, logs and data (default: a new one under the system's temporary folder)")
	f.BoolVar(&o.keepState, "keep", false, "leave the state folder behind")
	f.IntVar(&o.port, "port", 0, "port of kube-apiserver on 127.0.0.1 (default: a free one)")
	f.BoolVar(&all, "all-controllers", false, "run every controller, not just those that scheduling and node life need")
	f.Var(&o.stageFiles, "stages", "file with KWOK Stages in place of the built-in ones of the same name (may be repeated)")
	f.IntVar(&o.verbosity, "v", 1, "verbosity of the components' logs")
	f.BoolVar(&o.stock, "stock", false, "tolerations and node grace periods of a cluster in production")
	f.BoolVar(&o.holdStatus, "keep-not-ready", false, "KWOK makes a Node Ready once and then leaves its conditions to whoever writes them")
	f.BoolVar(&o.apiOnly, "api-server-only", false, "run etcd and kube-apiserver and nothing that writes by itself: what the API does shows undisturbed")
	f.DurationVar(&o.silentAfter, "silent-after", 50*time.Second, "silence of a kubelet after which its Node is Unknown")
	f.DurationVar(&o.leaseLength, "lease", 40*time.Second, "length of node leases; they are renewed at a quarter of it")
	f.DurationVar(&o.toleration, "toleration", 3*time.Second, "how long pods put up with a node that is not ready or unreachable")
	if err := f.Parse(arguments); err != nil {
		return nil, nil, err
	}
	if o.leaseLength/4 >= o.silentAfter {
		return nil, nil, fmt.Errorf("-lease %s: a quarter of it must be shorter than -silent-after (%s), or every node falls silent", o.leaseLength, o.silentAfter)
	}
	o.controllers = neededControllers
	if all {
		o.controllers = allControllers
	}
	if o.stock {
		o.toleration = 300 * time.Second
	}
	return o, f.Args(), nil
}

// prepareState makes the state folder, or refuses one that holds another cluster's remains.
func (o *options) prepareState() error {
	if o.state == "" {
		made, err := os.MkdirTemp("", "local-control-plane-")
		if err != nil {
			return err
		}
		o.state = made
	}
	whole, err := filepath.Abs(o.state)
	if err != nil {
		return err
	}
	o.state = whole
	if _, err := os.Stat(o.in("certificates")); err == nil {
		return fmt.Errorf("-state %s: expected an empty folder, it holds another cluster", o.state)
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.MkdirAll(o.in("logs"), 0o700)
}

// in is a path inside the state folder.
func (o *options) in(parts ...string) string {
	return filepath.Join(append([]string{o.state}, parts...)...)
}

func (o *options) kubeconfig(user string) string { return o.in(user + ".kubeconfig") }
