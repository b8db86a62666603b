package cluster

import (
	"context"
	"os"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// TestARealClusterIsObserved deploys to the cluster of AUTOPOLICY_KUBECONFIG,
// whose nodes have the image of AUTOPOLICY_COLLECTOR_IMAGE.
func TestARealClusterIsObserved(t *testing.T) {
	path, image := os.Getenv("AUTOPOLICY_KUBECONFIG"), os.Getenv("AUTOPOLICY_COLLECTOR_IMAGE")
	if path == "" || image == "" {
		t.Skip("needs a cluster with the demo shop and the collector's image: set AUTOPOLICY_KUBECONFIG and AUTOPOLICY_COLLECTOR_IMAGE (make e2e does)")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Options{Config: config, Namespace: "shop", Image: image, By: "test", Deadline: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := s.Check(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		removed, err := s.Remove(ctx)
		if err != nil {
			t.Error(err)
		}
		t.Log("removed", removed)
	})
	begin := time.Now()
	step := func(name string) { t.Logf("%5.1fs %s", time.Since(begin).Seconds(), name) }
	if err := s.Deploy(ctx); err != nil {
		t.Fatal(err)
	}
	step("deployed")
	if err := s.WaitReady(ctx, func(states []NodeState) { t.Log(states) }); err != nil {
		t.Fatal(err)
	}
	step("ready")
	if err := s.Observe(ctx, 20*time.Second, func(p Progress) { t.Logf("%+v", p) }); err != nil {
		t.Fatal(err)
	}
	step("observed")
	result, err := s.Pull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	step("pulled")
	for _, subject := range result.Profiles.Subjects() {
		p := result.Profiles[subject]
		t.Logf("%s/%s labels %s: process %d, file %d, network %d, capability %d, syscall %d; %+v; short of: %q", subject.Workload, subject.Container, p.Labels,
			p.Count(behavior.Process), p.Count(behavior.File), p.Count(behavior.Network), p.Count(behavior.Capability), p.Count(behavior.Syscall), p.Coverage.Pods, p.Coverage.Shortfalls())
		for _, o := range p.Observed() {
			if o.Fact.Kind != behavior.Syscall {
				t.Log("   ", o.Fact, o.Evidence.Count(), o.Fact.Runtime)
			}
		}
	}
	t.Log(result.Nodes, result.Unattributed)
}
