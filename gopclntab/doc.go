// Package gopclntab reads Go's pc tables: functions, stack pointer deltas, lines and inline trees.
package gopclntab
