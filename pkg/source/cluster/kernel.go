package cluster

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// suit changes the collector to what the cluster's kernels need: where one is
// older than 5.11, the capability to raise the limit of locked memory, as which
// maps count there.
func (s *Source) suit(ctx context.Context, objects []*unstructured.Unstructured) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		nodes, err := s.api.Resource(resource("", "v1", "nodes")).List(ctx, options)
		if err != nil {
			return fmt.Errorf("list nodes: %w", err)
		}
		for _, n := range nodes.Items {
			version, _, _ := unstructured.NestedString(n.Object, "status", "nodeInfo", "kernelVersion")
			if locksMemory(version) {
				return addCapability(objects, "SYS_RESOURCE")
			}
		}
		if options.Continue = nodes.GetContinue(); options.Continue == "" {
			return nil
		}
	}
}

// locksMemory tells whether maps count as locked memory in a kernel of that
// version. It is false for what is no version.
func locksMemory(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major < 5 || major == 5 && minor < 11
}

func addCapability(objects []*unstructured.Unstructured, name string) error {
	for _, u := range objects {
		if u.GetKind() != "DaemonSet" {
			continue
		}
		var err error
		changeErr := changeContainer(u, func(c map[string]any) {
			path := []string{"securityContext", "capabilities", "add"}
			var list []any
			if list, _, err = unstructured.NestedSlice(c, path...); err == nil && !slices.Contains(list, any(name)) {
				err = unstructured.SetNestedSlice(c, append(list, name), path...)
			}
		})
		if err != nil {
			return err
		}
		return changeErr
	}
	return fmt.Errorf("add capability %s: no DaemonSet", name)
}
