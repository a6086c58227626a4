package discover

import (
	"context"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criAsker asks a container runtime by Kubernetes' interface for them.
func criAsker(path string) asker {
	return func(ctx context.Context) (*snapshot, error) {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("ask container runtime: %w: %w", errAbsent, err)
		}
		conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), // file permissions protect it
			grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
		if err != nil {
			return nil, fmt.Errorf("ask container runtime: %w", err)
		}
		defer conn.Close()
		s, err := askCRI(ctx, cri.NewRuntimeServiceClient(conn))
		if status.Code(err) == codes.Unimplemented { // Docker's containerd has no CRI
			err = fmt.Errorf("%w: %w", errAbsent, err)
		}
		if err != nil {
			return nil, fmt.Errorf("ask container runtime at %s: %w", path, err)
		}
		return s, nil
	}
}

func askCRI(ctx context.Context, client cri.RuntimeServiceClient) (*snapshot, error) {
	ready := &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}
	sandboxes, err := client.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{State: ready}})
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	running := &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}
	containers, err := client.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{State: running}})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	s := newSnapshot()
	pods := map[string]string{}
	for _, p := range sandboxes.GetItems() {
		m := p.GetMetadata()
		pods[p.GetId()] = m.GetUid()
		s.addPod(Pod{UID: m.GetUid(), Name: m.GetName(), Namespace: m.GetNamespace(), Labels: withoutKubernetes(p.GetLabels())})
	}
	for _, c := range containers.GetContainers() {
		image := orElse(c.GetImage().GetUserSpecifiedImage(), c.GetImage().GetImage())
		s.addContainer(c.GetId(), Container{Name: c.GetMetadata().GetName(), Image: image, PodUID: pods[c.GetPodSandboxId()], Labels: c.GetLabels()})
	}
	return s, nil
}

// Labels that the kubelet puts on pods and containers of a runtime (Kubernetes pkg/kubelet/types/labels.go).
const (
	kubeContainerName = "io.kubernetes.container.name"
	kubePodName       = "io.kubernetes.pod.name"
	kubePodNamespace  = "io.kubernetes.pod.namespace"
	kubePodUID        = "io.kubernetes.pod.uid"
)

// withoutKubernetes leaves out what the kubelet has added: the pod does not have it.
func withoutKubernetes(labels map[string]string) map[string]string {
	own := make(map[string]string, len(labels))
	for k, v := range labels {
		switch k {
		case kubePodName, kubePodNamespace, kubePodUID:
		default:
			own[k] = v
		}
	}
	return own
}
