// Package bpf loads, attaches and reads the BPF programs; it is the only package that knows the kernel.
package bpf
