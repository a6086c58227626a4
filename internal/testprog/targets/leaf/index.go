//go:build !arm64 || !go1.25

package main

// indexBody is the assembly that bytes.IndexByte ends in.
const indexBody = "indexbytebody"
