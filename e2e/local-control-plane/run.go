package main

// `run`: a cluster for the length of one command, or until it is told to end.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

// A command that was told to end has this long before it is killed.
const lastWords = 10 * time.Second

// runCommand is the exit status of `run`: the command's own where there is one.
func runCommand(arguments []string) int {
	// The kernel ends children with the thread that started them, so this one has to stay.
	runtime.LockOSThread()
	o, command, err := parseOptions(arguments)
	if err != nil {
		fmt.Fprintln(os.Stderr, "local-control-plane:", err)
		return 2
	}
	status, err := o.run(command)
	if err != nil {
		fmt.Fprintln(os.Stderr, "local-control-plane:", err)
		return max(status, 1)
	}
	return status
}

func (o *options) run(command []string) (int, error) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	begin := time.Now()
	if err := o.prepareState(); err != nil {
		return 1, err
	}
	c, err := newCluster(o)
	if err != nil {
		return 1, err
	}
	defer c.end()
	if err := c.start(ctx); err != nil {
		// What went wrong stands in the logs, so they stay.
		return 1, fmt.Errorf("%w; logs are in %s", err, o.in("logs"))
	}
	if !o.keepState {
		defer os.RemoveAll(o.state)
	}
	fmt.Fprintf(os.Stderr, "local-control-plane: up after %.1f s\nexport KUBECONFIG=%s\n", time.Since(begin).Seconds(), o.kubeconfig(admin))
	// Whoever waits for the cluster waits for this file.
	if err := os.WriteFile(o.in("ready"), []byte(c.server+"\n"), 0o600); err != nil {
		return 1, err
	}
	if len(command) == 0 {
		select {
		case <-ctx.Done():
			return 0, nil
		case name := <-c.ended:
			o.keepState = true
			return 1, fmt.Errorf("%s ended by itself; logs are in %s", name, o.in("logs"))
		}
	}
	return o.runIn(ctx, command)
}

// runIn runs a command with KUBECONFIG set.
func (o *options) runIn(ctx context.Context, command []string) (int, error) {
	child := exec.CommandContext(ctx, command[0], command[1:]...)
	child.Env = append(os.Environ(), "KUBECONFIG="+o.kubeconfig(admin))
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = lastWords
	err := child.Run()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		// Ended by a signal has no status of its own.
		return max(failed.ExitCode(), 1), nil
	}
	return 0, err
}
