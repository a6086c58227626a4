//go:build arm64 && go1.25

package main

// indexBody is the assembly that bytes.IndexByte ends in: internal/bytealg/indexbyte_arm64.s of Go 1.25 and newer.
const indexBody = "internal/bytealg.IndexByteString"
