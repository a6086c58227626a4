// Package testprog builds and runs programs whose right profile is known, and compares profiles with that truth.
//
// The programs are in the nested module targets: Go 1.18, standard library only, so that every toolchain from
// Go 1.18 on builds them. The oracles stay here, in the main module:
//
//   - [Compare] measures how far a CPU profile agrees with one that the target's own runtime/pprof took;
//   - programs that know their truth exactly (leaf, spin) print it as JSON when they end, see [Truth];
//   - package stepper single-steps a program and knows the true stack at every instruction.
package testprog
