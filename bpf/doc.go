// Package bpf loads, attaches and reads the BPF programs; it is the only package that knows the kernel.
//
// [Load] puts the programs into the kernel and attaches them; [Probes.SetTarget] says which processes count, and
// [Probes.Start] enables the perf events. [Probes.Read] then returns, in order, samples of targets and their execs and
// exits. A sample holds the kernel stack and the pieces of the user stack as they were found: package unwind makes the
// stack of them. [Features] asks the kernel for everything that the programs use.
//
// The wire between the programs and this package is declared once, in sample.h. The files *_bpfel.go and *_bpfel.o are
// made from the sources by make generate and are committed.
package bpf
