package main

// `judge-scheduling`: where pods could go, by the filters of the real scheduler's default profile, and where they can go
// nowhere, who would have to make room for them, by its preemption. Cases come as JSON, one a line; the embedded scheduler
// is held against the answers.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"

	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	storage "k8s.io/api/storage/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	object "k8s.io/apimachinery/pkg/runtime"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/defaultpreemption"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/feature"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/nodevolumelimits"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
)

// judgeScheduling is its command.
const judgeScheduling = "judge-scheduling"

// The plugin that looks at devices: cases have none, and it would need a manager of its own.
var without = []string{"DynamicResources"}

// A schedulingCase is a cluster and a pod without a place in it.
type schedulingCase struct {
	Namespaces map[string]map[string]string  `json:"namespaces"`
	Nodes      []*core.Node                  `json:"nodes"`
	Pods       []*core.Pod                   `json:"pods"`
	Pod        *core.Pod                     `json:"pod"`
	Claims     []*core.PersistentVolumeClaim `json:"claims"`
	Volumes    []*core.PersistentVolume      `json:"volumes"`
	Classes    []*storage.StorageClass       `json:"classes"`
	CSINodes   []*storage.CSINode            `json:"csiNodes"`
	Budgets    []*policy.PodDisruptionBudget `json:"budgets"`
}

// A schedulingVerdict says which nodes no filter refuses; if there are none, on which nodes who would have to go.
type schedulingVerdict struct {
	Nodes   []string           `json:"nodes"`
	Victims map[string]victims `json:"victims,omitempty"`
}

type victims struct {
	Pods []string `json:"pods"`
	// How many of them a disruption budget would have kept.
	Violations int `json:"violations"`
}

// noNominations knows of no pod for which room is being made.
type noNominations struct{}

func (noNominations) AddNominatedPod(klog.Logger, fwk.PodInfo, *fwk.NominatingInfo) {}
func (noNominations) DeleteNominatedPodIfExists(*core.Pod)                          {}
func (noNominations) UpdateNominatedPod(klog.Logger, *core.Pod, fwk.PodInfo)        {}
func (noNominations) NominatedPodsForNode(string) []fwk.PodInfo                     { return nil }

func judgeCommand() int {
	metrics.Register()
	if err := judgeCases(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "local-control-plane:", err)
		return 1
	}
	return 0
}

func judgeCases(in io.Reader, out io.Writer) error {
	const longestLine = 16 << 20
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, longestLine)
	for n := 1; lines.Scan(); n++ {
		var c schedulingCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return fmt.Errorf("case %d: %w", n, err)
		}
		verdict, err := c.judge()
		if err != nil {
			return fmt.Errorf("case %d: %w", n, err)
		}
		answer, err := json.Marshal(verdict)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(answer))
	}
	return lines.Err()
}

// objects are those of the case that plugins look up.
func (c *schedulingCase) objects() []object.Object {
	var all []object.Object
	for name, labels := range c.Namespaces {
		all = append(all, &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name, Labels: labels}})
	}
	all = with(all, c.Nodes)
	all = with(all, c.Claims)
	all = with(all, c.Volumes)
	all = with(all, c.Classes)
	all = with(all, c.CSINodes)
	return with(all, c.Budgets)
}

func with[O object.Object](all []object.Object, some []O) []object.Object {
	for _, o := range some {
		all = append(all, o)
	}
	return all
}

// judge runs the filters and, where they leave no node, preemption.
func (c *schedulingCase) judge() (*schedulingVerdict, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := fake.NewClientset(c.objects()...)
	defaults, err := latest.Default()
	if err != nil {
		return nil, err
	}
	profile := defaults.Profiles[0]
	for _, name := range without {
		profile.Plugins.MultiPoint.Disabled = append(profile.Plugins.MultiPoint.Disabled, config.Plugin{Name: name})
		kept := profile.Plugins.MultiPoint.Enabled[:0]
		for _, p := range profile.Plugins.MultiPoint.Enabled {
			if p.Name != name {
				kept = append(kept, p)
			}
		}
		profile.Plugins.MultiPoint.Enabled = kept
	}
	snapshot := cache.NewSnapshot(c.Pods, c.Nodes)
	factory := informers.NewSharedInformerFactory(client, 0)
	scheduler, err := runtime.NewFramework(ctx, plugins.NewInTreeRegistry(), &profile,
		runtime.WithClientSet(client), runtime.WithInformerFactory(factory), runtime.WithSnapshotSharedLister(snapshot),
		runtime.WithPodNominator(noNominations{}),
		runtime.WithSharedCSIManager(nodevolumelimits.NewCSIManager(factory.Storage().V1().CSINodes().Lister())))
	if err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	state := framework.NewCycleState()
	result, status, _ := scheduler.RunPreFilterPlugins(ctx, state, c.Pod)
	verdict := &schedulingVerdict{Nodes: []string{}}
	if !status.IsSuccess() {
		if status.Code() == fwk.Error {
			return nil, status.AsError()
		}
		return verdict, nil
	}
	nodes, err := snapshot.NodeInfos().List()
	if err != nil {
		return nil, err
	}
	var resolvable []fwk.NodeInfo
	for _, node := range nodes {
		name := node.Node().Name
		if result != nil && !result.AllNodes() && !result.NodeNames.Has(name) {
			continue
		}
		filtered := scheduler.RunFilterPlugins(ctx, state, c.Pod, node)
		switch filtered.Code() {
		case fwk.Error:
			return nil, filtered.AsError()
		case fwk.Success:
			verdict.Nodes = append(verdict.Nodes, name)
		case fwk.Unschedulable:
			resolvable = append(resolvable, node)
		}
	}
	sort.Strings(verdict.Nodes)
	if len(verdict.Nodes) == 0 {
		verdict.Victims, err = c.victims(ctx, scheduler, state, resolvable)
	}
	return verdict, err
}

// victims are those who would have to go, by node.
func (c *schedulingCase) victims(ctx context.Context, scheduler framework.Framework, state fwk.CycleState, nodes []fwk.NodeInfo) (map[string]victims, error) {
	const (
		candidatesPercent = 10
		candidates        = 100
	)
	arguments := &config.DefaultPreemptionArgs{MinCandidateNodesPercentage: candidatesPercent, MinCandidateNodesAbsolute: candidates}
	features := feature.NewSchedulerFeaturesFromGates(utilfeature.DefaultFeatureGate)
	plugin, err := defaultpreemption.New(ctx, arguments, scheduler, features)
	if err != nil {
		return nil, err
	}
	found := map[string]victims{}
	if eligible, _ := plugin.PodEligibleToPreemptOthers(ctx, c.Pod, nil); !eligible {
		return found, nil
	}
	for _, node := range nodes {
		pods, violations, status := plugin.SelectVictimsOnNode(ctx, state.Clone(), c.Pod, node.Snapshot(), c.Budgets)
		if status.Code() == fwk.Error {
			return nil, status.AsError()
		}
		if !status.IsSuccess() {
			continue
		}
		names := make([]string, 0, len(pods))
		for _, pod := range pods {
			names = append(names, pod.Name)
		}
		found[node.Node().Name] = victims{Pods: names, Violations: violations}
	}
	return found, nil
}
