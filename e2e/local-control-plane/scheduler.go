package main

// `judge-scheduling`: where pods could go, by the filters of the real scheduler's default profile. Cases come as JSON, one
// a line; the embedded scheduler is held against the answers.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
)

// judgeScheduling is its command.
const judgeScheduling = "judge-scheduling"

// Plugins that look at volumes and devices: cases have neither, and these would need managers of their own.
var withoutVolumes = []string{"DynamicResources", "VolumeBinding", "VolumeZone", "NodeVolumeLimits", "VolumeRestrictions"}

// A schedulingCase is a cluster and a pod without a place in it.
type schedulingCase struct {
	Namespaces map[string]map[string]string `json:"namespaces"`
	Nodes      []*core.Node                 `json:"nodes"`
	Pods       []*core.Pod                  `json:"pods"`
	Pod        *core.Pod                    `json:"pod"`
}

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
		names, err := c.feasible()
		if err != nil {
			return fmt.Errorf("case %d: %w", n, err)
		}
		answer, err := json.Marshal(names)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, string(answer))
	}
	return lines.Err()
}

// feasible is the names of the nodes that no filter refuses.
func (c *schedulingCase) feasible() ([]string, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := fake.NewClientset()
	for name, labels := range c.Namespaces {
		namespace := &core.Namespace{ObjectMeta: meta.ObjectMeta{Name: name, Labels: labels}}
		if _, err := client.CoreV1().Namespaces().Create(ctx, namespace, meta.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	defaults, err := latest.Default()
	if err != nil {
		return nil, err
	}
	profile := defaults.Profiles[0]
	for _, name := range withoutVolumes {
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
		runtime.WithClientSet(client), runtime.WithInformerFactory(factory), runtime.WithSnapshotSharedLister(snapshot))
	if err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	state := framework.NewCycleState()
	result, status, _ := scheduler.RunPreFilterPlugins(ctx, state, c.Pod)
	names := []string{}
	if !status.IsSuccess() {
		if status.Code() == fwk.Error {
			return nil, status.AsError()
		}
		return names, nil
	}
	nodes, err := snapshot.NodeInfos().List()
	if err != nil {
		return nil, err
	}
	for _, node := range nodes {
		name := node.Node().Name
		if result != nil && !result.AllNodes() && !result.NodeNames.Has(name) {
			continue
		}
		verdict := scheduler.RunFilterPlugins(ctx, state, c.Pod, node)
		if verdict.Code() == fwk.Error {
			return nil, verdict.AsError()
		}
		if verdict.IsSuccess() {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names, nil
}
