// Package agent is the service: discovery in front of the pipeline, windows behind it, one goroutine for each kind of
// profile, and what a service needs beside: a queue in front of each destination, metrics, reloading, an orderly end.
package agent
