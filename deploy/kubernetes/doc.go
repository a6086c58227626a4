// Package kubernetes has only tests: they put daemonset.yaml through the decoding and validation of Kubernetes' API server, and run its
// container by runc, as containerd would have it made. It is a module of its own, so that pprofd's does not depend on these.
package kubernetes
