// Package smoke has only a test: what every other test in kerneltest's machines takes for granted.
package smoke
