package main

import "syscall"

// ofChild puts a child into a process group of its own (an interrupt at the terminal is for the parent) and has the
// kernel end it with its parent, whatever ends that one.
func ofChild() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
