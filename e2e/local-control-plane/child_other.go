//go:build unix && !linux

package main

import "syscall"

// ofChild puts a child into a process group of its own: an interrupt at the terminal is for the parent.
func ofChild() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
