// Package deploy has only tests: what is beside it runs pprofd on a host with systemd (pprofd.service) and on the nodes of a
// Kubernetes cluster (kubernetes).
package deploy
