package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// TestShortLivedContainersOfARealClusterAreSeenWhole runs jobs that end at once
// and make a file with a name that breaks what prints it.
func TestShortLivedContainersOfARealClusterAreSeenWhole(t *testing.T) {
	config, image := realCluster(t)
	ctx := t.Context()
	s := newReal(t, Options{Config: config, Image: image, Namespace: "autopolicy-churn"})
	namespaces := s.api.Resource(resource("", "v1", "namespaces"))
	made := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "autopolicy-churn"}}}
	if _, err := namespaces.Create(ctx, made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := namespaces.Delete(context.Background(), "autopolicy-churn", metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	removeAfter(t, s)
	if err := s.Deploy(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(ctx, func([]NodeState) {}); err != nil {
		t.Fatal(err)
	}
	const jobs = 8
	started := false
	_, err := s.Observe(ctx, Watch{Most: 25 * time.Second}, func(p Progress) {
		if started {
			return
		}
		started = true
		for i := range jobs {
			if err := startJob(ctx, s, fmt.Sprintf("job-%d", i)); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := s.Pull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if result.Unattributed != 0 || len(result.Nodes) != 0 {
		t.Errorf("%d unattributed, nodes %v", result.Unattributed, result.Nodes)
	}
	hostile := behavior.Fact{Kind: behavior.File, Exe: "/bin/busybox", Path: behavior.Escape("/tmp/a\nb\x1b[31m\"'\xff"), Access: behavior.Write | behavior.Create}
	for i := range jobs {
		subject := behavior.Subject{Workload: behavior.Workload{Namespace: "autopolicy-churn", Kind: "Job", Name: fmt.Sprintf("job-%d", i)}, Container: "job"}
		p := result.Profiles[subject]
		var words []string
		for _, o := range p.Observed() {
			if !o.Fact.Runtime && o.Fact.Kind != behavior.Syscall {
				words = append(words, o.Fact.String())
			}
		}
		if _, ok := p.Facts.Get(hostile); !ok || p.Coverage.Starts() != 1 || len(p.Coverage.Shortfalls()) > 0 {
			t.Errorf("%s: %d from the start, short of %q, has\n%s", subject.Workload, p.Coverage.Starts(), p.Coverage.Shortfalls(), strings.Join(words, "\n"))
		}
	}
}

func startJob(ctx context.Context, s *Source, name string) error {
	script := `cat /etc/passwd; : > "$(printf '/tmp/a\nb\033[31m"\047\377')"`
	job := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"template": map[string]any{"spec": map[string]any{
			"restartPolicy": "Never",
			"containers": []any{map[string]any{
				"name": "job", "image": "localhost/shop:1", "imagePullPolicy": "Never", "command": []any{"/bin/busybox", "sh", "-c", script},
				"volumeMounts": []any{map[string]any{"name": "tmp", "mountPath": "/tmp"}},
			}},
			"volumes": []any{map[string]any{"name": "tmp", "emptyDir": map[string]any{}}},
		}}},
	}}
	_, err := s.api.Resource(resource("batch", "v1", "jobs")).Namespace("autopolicy-churn").Create(ctx, job, metav1.CreateOptions{})
	return err
}
