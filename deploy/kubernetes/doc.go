// Package kubernetes has only tests: they put daemonset.yaml through the decoding and validation of Kubernetes' API server. It is a
// module of its own, so that pprofd's does not depend on Kubernetes.
package kubernetes
