package cluster

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// realCluster gives the cluster of AUTOPOLICY_KUBECONFIG, which runs the demo
// shop, and whose nodes have the image of AUTOPOLICY_COLLECTOR_IMAGE.
func realCluster(t *testing.T) (*rest.Config, string) {
	t.Helper()
	path, image := os.Getenv("AUTOPOLICY_KUBECONFIG"), os.Getenv("AUTOPOLICY_COLLECTOR_IMAGE")
	if path == "" || image == "" {
		t.Skip("needs a cluster with the demo shop and the collector's image: set AUTOPOLICY_KUBECONFIG and AUTOPOLICY_COLLECTOR_IMAGE (make e2e does)")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	return config, image
}

func newReal(t *testing.T, o Options) *Source {
	t.Helper()
	if o.Deadline == 0 {
		o.Deadline = 10 * time.Minute
	}
	if o.Namespace == "" {
		o.Namespace = "shop"
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// removeAfter removes what was deployed when the test ends, and proves it.
func removeAfter(t *testing.T, s *Source) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := s.Remove(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestARealClusterIsObserved(t *testing.T) {
	config, image := realCluster(t)
	s := newReal(t, Options{Config: config, Image: image, By: "test"})
	ctx := t.Context()
	if err := s.Check(ctx); err != nil {
		t.Fatal(err)
	}
	removeAfter(t, s)
	if err := s.Deploy(ctx); err != nil {
		t.Fatal(err)
	}
	second := newReal(t, Options{Config: config, Image: image})
	var exists *ExistsError
	if err := second.Deploy(ctx); !errors.As(err, &exists) || exists.By != "test" || exists.Hint() == "" {
		t.Errorf("a second run gets %v", err)
	}
	if err := s.WaitReady(ctx, func(states []NodeState) { t.Log(states) }); err != nil {
		t.Fatal(err)
	}
	var last Progress
	if _, err := s.Observe(ctx, Watch{Most: 15 * time.Second}, func(p Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if last.Pods < 5 || last.Facts == 0 || last.Nodes != 2 || len(last.Failing) > 0 {
		t.Errorf("progress at the end is %+v", last)
	}
	result, err := s.Pull(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, subject := range result.Profiles.Subjects() {
		p := result.Profiles[subject]
		t.Logf("%s: %d facts, %+v, short of %q", subject.Workload, p.Facts.Len(), p.Coverage.Pods, p.Coverage.Shortfalls())
	}
	web := result.Profiles[behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"}]
	if web.Labels != "app=web" || len(web.Coverage.Pods) < 2 {
		t.Errorf("web has labels %q and pods %v", web.Labels, web.Coverage.Pods)
	}
	var words []string
	for f := range web.Facts.Keys() {
		words = append(words, f.String())
	}
	all := strings.Join(words, "\n")
	for _, want := range []string{"runs /shop", "/shop connects to shop/deployment-api on tcp/9090 (service api:80)", "is reached on tcp/8080 by shop/deployment-traffic", "/shop listens on tcp/8080"} {
		if !strings.Contains(all, want) {
			t.Errorf("web lacks %q; it has\n%s", want, all)
		}
	}
	for _, name := range []string{"/usr/bin/containerd", "kubelet"} {
		if strings.Contains(all, name) {
			t.Errorf("web has facts of the node: %s", all)
		}
	}
}

func TestARealClusterSaysWhyItCannotBeObserved(t *testing.T) {
	config, image := realCluster(t)
	ctx := t.Context()
	t.Run("a namespace that is not there", func(t *testing.T) {
		if err := newReal(t, Options{Config: config, Namespace: "nowhere"}).Check(ctx); !errors.Is(err, ErrNoNamespace) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a namespace without pods", func(t *testing.T) {
		if err := newReal(t, Options{Config: config, Namespace: "kube-public"}).Check(ctx); !errors.Is(err, ErrNoPods) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a user who may do nothing", func(t *testing.T) {
		weak := rest.CopyConfig(config)
		weak.Impersonate.UserName = "nobody"
		var missing *PermissionError
		if err := newReal(t, Options{Config: weak}).Check(ctx); !errors.As(err, &missing) || len(missing.Missing) != len(needed("")) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an image that is not there", func(t *testing.T) {
		s := newReal(t, Options{Config: config, Image: "localhost/nothing:1"})
		removeAfter(t, s)
		if err := s.Deploy(ctx); err != nil {
			t.Fatal(err)
		}
		var why *ReadyError
		if err := s.WaitReady(ctx, func([]NodeState) {}); !errors.As(err, &why) || !strings.Contains(why.Error(), imageReason) || why.Hint() == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a program that ends", func(t *testing.T) {
		s := newReal(t, Options{Config: config, Image: "localhost/shop:1"})
		removeAfter(t, s)
		if err := s.Deploy(ctx); err != nil {
			t.Fatal(err)
		}
		var why *ReadyError
		if err := s.WaitReady(ctx, func([]NodeState) {}); !errors.As(err, &why) || !strings.Contains(why.Error(), "collector ended") {
			t.Errorf("got %v", err)
		}
		t.Log(why)
	})
	t.Run("pods that an admission policy refuses", func(t *testing.T) {
		s := newReal(t, Options{Config: config, Image: image})
		forbid(t, s)
		inForce(t, s)
		removeAfter(t, s)
		if err := s.Deploy(ctx); err != nil {
			t.Fatal(err)
		}
		var why *ReadyError
		if err := s.WaitReady(ctx, func([]NodeState) {}); !errors.As(err, &why) || !strings.Contains(why.Error(), refusedReason) || why.Hint() == "" {
			t.Errorf("got %v", err)
		}
		t.Log(why)
	})
	t.Run("an interrupt in the middle", func(t *testing.T) {
		s := newReal(t, Options{Config: config, Image: image})
		removeAfter(t, s)
		if err := s.Deploy(ctx); err != nil {
			t.Fatal(err)
		}
		interrupted, cancel := context.WithCancel(ctx)
		cancel()
		if err := s.WaitReady(interrupted, func([]NodeState) {}); err == nil {
			t.Error("waiting went on")
		}
	})
}

// forbid refuses privileged pods in the collector's namespace, by an admission
// policy, until the test ends.
func forbid(t *testing.T, s *Source) {
	t.Helper()
	for kind, spec := range map[string]map[string]any{
		"ValidatingAdmissionPolicy": {
			"failurePolicy":    "Fail",
			"matchConstraints": map[string]any{"resourceRules": []any{map[string]any{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"CREATE"}, "resources": []any{"pods"}}}},
			"validations":      []any{map[string]any{"expression": "!has(object.metadata.labels) || !('app.kubernetes.io/name' in object.metadata.labels) || object.metadata.labels['app.kubernetes.io/name'] != 'autopolicy-collector'", "message": "no privileged pods here"}},
		},
		"ValidatingAdmissionPolicyBinding": {"policyName": "autopolicy-test", "validationActions": []any{"Deny"}},
	} {
		name := strings.ToLower(kind) + "s"
		if kind == "ValidatingAdmissionPolicy" {
			name = "validatingadmissionpolicies"
		}
		client := s.api.Resource(resource("admissionregistration.k8s.io", "v1", name))
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": map[string]any{"name": "autopolicy-test"}, "spec": spec}}
		if _, err := client.Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := client.Delete(context.Background(), "autopolicy-test", metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// inForce waits until the policy of forbid refuses a pod.
func inForce(t *testing.T, s *Source) {
	t.Helper()
	pods := s.api.Resource(resource("", "v1", "pods")).Namespace("kube-public")
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "autopolicy-test", "labels": map[string]any{"app.kubernetes.io/name": "autopolicy-collector"}},
		"spec":     map[string]any{"containers": []any{map[string]any{"name": "a", "image": "localhost/a"}}},
	}}
	for ctx := t.Context(); ; {
		_, err := pods.Create(ctx, u, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil && strings.Contains(err.Error(), "no privileged pods here") {
			return
		}
		if pauseErr := pause(ctx, 100*time.Millisecond); pauseErr != nil {
			t.Fatalf("policy is not in force: %v, %v", err, pauseErr)
		}
	}
}

func TestARealCollectorRemovesItselfAtItsDeadline(t *testing.T) {
	config, image := realCluster(t)
	s := newReal(t, Options{Config: config, Image: image, Deadline: 8 * time.Second})
	removeAfter(t, s)
	if err := s.Deploy(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := s.waitGone(ctx); err != nil {
		t.Errorf("nobody removed it: %v", err)
	}
}
