package main

// KWOK: its command, and the stages by which its nodes and pods live.

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/pflag"
	"sigs.k8s.io/kwok/kustomize/stage/node/fast"
	heartbeat "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	kwok "sigs.k8s.io/kwok/pkg/kwok/cmd"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
	kwoksignals "sigs.k8s.io/kwok/pkg/utils/signals"
	"sigs.k8s.io/yaml"
)

// hold on a Node tells KWOK to leave its status alone, so that a test can write conditions that stay.
const hold = "karpenter-rs.test/hold"

// kwokCommand runs KWOK's controller. The stages must be in the context before the command is made, so the flags that
// name them are read by a set of their own first.
func kwokCommand() int {
	ctx := kwoksignals.SetupSignalContext()
	flags := pflag.NewFlagSet(kwokController, pflag.ContinueOnError)
	flags.Usage = func() {}
	flags.ParseErrorsAllowlist.UnknownFlags = true
	ctx, _ = kwoklog.InitFlags(ctx, flags)
	ctx, err := kwokconfig.InitFlags(ctx, flags)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kwok: its configuration cannot be read:", err)
		return 1
	}
	command := kwok.NewCommand(ctx)
	// Kubernetes has put a --version of its own, which is no boolean, on the global flags; cobra would refuse it.
	command.Version = ""
	command.PersistentFlags().AddFlagSet(flags)
	if err := command.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "kwok:", err)
		return 1
	}
	return 0
}

type stage struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       map[string]any `json:"spec"`
}

func (s stage) name() string { return fmt.Sprint(s.Metadata["name"]) }

// restrict adds a condition to what the stage selects.
func (s stage) restrict(key, operator string) error {
	selector, ok := s.Spec["selector"].(map[string]any)
	if !ok {
		return fmt.Errorf("KWOK stage %s has no selector", s.name())
	}
	expressions, _ := selector["matchExpressions"].([]any)
	selector["matchExpressions"] = append(expressions, map[string]any{"key": key, "operator": operator})
	return nil
}

// writeStages writes KWOK's own stages with our restrictions, those of the same name in the given files instead.
func (c *cluster) writeStages(file string) error {
	var stages []stage
	for _, text := range []string{
		fast.DefaultNodeInit, heartbeat.DefaultNodeHeartbeatWithLease,
		podfast.DefaultPodReady, podfast.DefaultPodComplete, podfast.DefaultPodDelete,
	} {
		var s stage
		if err := yaml.Unmarshal([]byte(text), &s); err != nil {
			return err
		}
		if err := c.adapt(s, text); err != nil {
			return err
		}
		stages = append(stages, s)
	}
	for _, given := range c.stageFiles {
		raw, err := os.ReadFile(given)
		if err != nil {
			return err
		}
		for _, text := range bytes.Split(raw, []byte("\n---")) {
			var s stage
			if err := yaml.Unmarshal(text, &s); err != nil {
				return fmt.Errorf("-stages %s: %w", given, err)
			}
			if s.Kind == "" {
				continue
			}
			stages = replace(stages, s)
		}
	}
	var out bytes.Buffer
	for _, s := range stages {
		text, err := yaml.Marshal(s)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "---\n%s", text)
	}
	return os.WriteFile(file, out.Bytes(), 0o600)
}

// adapt makes the node stages heed [hold], and lets the first of them run only once where that is asked for.
func (c *cluster) adapt(s stage, text string) error {
	if text != fast.DefaultNodeInit && text != heartbeat.DefaultNodeHeartbeatWithLease {
		return nil
	}
	if text == fast.DefaultNodeInit && c.holdStatus {
		if err := s.restrict(`.status.conditions.[] | select( .type == "Ready" ) | .status`, "DoesNotExist"); err != nil {
			return err
		}
	}
	return s.restrict(fmt.Sprintf(".metadata.annotations[%q]", hold), "DoesNotExist")
}

func replace(stages []stage, s stage) []stage {
	for i := range stages {
		if stages[i].name() == s.name() {
			stages[i] = s
			return stages
		}
	}
	return append(stages, s)
}
