package cluster

import (
	"context"
	"fmt"
	"net"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

// collectors are what answers in the collector's pods, by pod.
type collectors struct {
	*testing.T
	source *Source
	dials  map[string]dialer
}

func newCollectors(t *testing.T) *collectors {
	c := &collectors{T: t, dials: map[string]dialer{}}
	c.source = &Source{options: Options{Namespace: "shop", Now: at}, picture: newPicture(at), nodes: map[string]*node{},
		api: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{resource("", "v1", "pods"): "PodList"})}
	c.source.dial = func(ctx context.Context, pod string) (net.Conn, error) {
		if dial := c.dials[pod]; dial != nil {
			return dial(ctx, pod)
		}
		return nil, fmt.Errorf("pods %q not found", pod)
	}
	t.Cleanup(func() {
		for _, n := range c.source.list() {
			if n.conn != nil {
				n.conn.Close()
			}
		}
	})
	return c
}

// start lets a collector answer in a pod of a node.
func (c *collectors) start(pod, node string, f *fakeCollector) {
	c.Helper()
	c.dials[pod] = serve(c.T, f, 0, 0)
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": pod, "namespace": manifests.Namespace, "labels": map[string]any{"app.kubernetes.io/name": "autopolicy-collector"}},
		"spec":     map[string]any{"nodeName": node},
		"status":   map[string]any{"containerStatuses": []any{map[string]any{"state": map[string]any{"running": map[string]any{}}}}},
	}}
	if _, err := c.source.api.Resource(resource("", "v1", "pods")).Namespace(manifests.Namespace).Create(c.Context(), u, metav1.CreateOptions{}); err != nil {
		c.Fatal(err)
	}
}

func (c *collectors) end(pod string) {
	c.Helper()
	delete(c.dials, pod)
	if err := c.source.api.Resource(resource("", "v1", "pods")).Namespace(manifests.Namespace).Delete(c.Context(), pod, metav1.DeleteOptions{}); err != nil {
		c.Fatal(err)
	}
}

// round is one of those that pullOften makes.
func (c *collectors) round() {
	c.source.refresh(c.Context())
	c.source.pullAll(c.Context(), 1)
}

func (c *collectors) facts(node string) int {
	n := c.source.nodes[node]
	if n == nil || n.containers["id1"] == nil {
		return 0
	}
	return len(n.containers["id1"].facts)
}

func TestACollectorWhosePodWasReplacedIsPulled(t *testing.T) {
	for name, tc := range map[string]struct {
		epoch    string // of the one that comes after
		facts    int    // that it has
		since    uint64 // that it is asked for
		restarts int
	}{
		"with what the one before had kept": {"e1", 5, 3, 0},
		"with nothing":                      {"e2", 5, 0, 1},
		"with nothing, and less since":      {"e2", 2, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCollectors(t)
			c.start("a", "node-1", &fakeCollector{epoch: "e1", facts: manyFacts(3)})
			c.round()
			if got := c.facts("node-1"); got != 3 {
				t.Fatalf("%d facts of the first", got)
			}
			c.end("a")
			after := &fakeCollector{epoch: tc.epoch, facts: manyFacts(tc.facts)}
			c.start("b", "node-1", after)
			c.round()
			n := c.source.nodes["node-1"]
			if got := c.facts("node-1"); got != max(3, tc.facts) || n.restarts != tc.restarts || after.since.Load() != tc.since || n.failure != nil {
				t.Errorf("%d facts, %d restarts, pulled since %d, failure %v", got, n.restarts, after.since.Load(), n.failure)
			}
			if gaps := (&assembly{Source: c.source}).gaps(n); len(gaps) != tc.restarts {
				t.Errorf("gaps are %q", gaps)
			}
		})
	}
}

func TestANodeThatJoinsIsPulled(t *testing.T) {
	c := newCollectors(t)
	c.start("a", "node-1", &fakeCollector{epoch: "e1", facts: manyFacts(3)})
	c.round()
	c.start("b", "node-2", &fakeCollector{epoch: "e2", facts: manyFacts(2)})
	c.round()
	if one, two := c.facts("node-1"), c.facts("node-2"); one != 3 || two != 2 {
		t.Errorf("%d and %d facts", one, two)
	}
}

func TestANodeThatWasNotReadyIsPulledWhenItIs(t *testing.T) {
	c := newCollectors(t)
	c.start("a", "node-1", &fakeCollector{epoch: "e1", facts: manyFacts(3)})
	if err := c.source.settle([]NodeState{{Node: "node-0", Ready: true}, {Node: "node-1", Reason: "image: not there"}}); err != nil {
		t.Fatal(err)
	}
	c.round()
	if n := c.source.nodes["node-1"]; c.facts("node-1") != 3 || n.failure != nil {
		t.Errorf("%d facts, failure %v", c.facts("node-1"), n.failure)
	}
}

func TestANodeThatLeftKeepsWhatItToldAndIsAGap(t *testing.T) {
	c := newCollectors(t)
	c.start("a", "node-1", &fakeCollector{epoch: "e1", facts: manyFacts(3)})
	c.round()
	c.end("a")
	c.source.nodes["node-1"].conn.Close() // as a node that is gone does
	c.round()
	n := c.source.nodes["node-1"]
	if gaps := (&assembly{Source: c.source}).gaps(n); c.facts("node-1") != 3 || len(gaps) != 1 {
		t.Errorf("%d facts, gaps %q", c.facts("node-1"), gaps)
	}
}

func TestANodeThatWasCutOffStaysSoWithAnotherPod(t *testing.T) {
	c := newCollectors(t)
	c.start("a", "node-1", &fakeCollector{epoch: "e1", broken: true})
	c.round()
	c.end("a")
	again := &fakeCollector{epoch: "e2", facts: manyFacts(2)}
	c.start("b", "node-1", again)
	c.round()
	if n := c.source.nodes["node-1"]; n.failure == nil || again.pulls.Load() != 0 {
		t.Errorf("failure %v, pulled %d times", n.failure, again.pulls.Load())
	}
}

func TestACollectorThatKeptLessThanItToldIsPulledAnew(t *testing.T) {
	f := &fakeCollector{epoch: "e1", facts: manyFacts(5)}
	c := newCollectors(t)
	c.start("a", "node-1", f)
	c.round()
	// It goes on from what it had saved, and what it saw since has numbers that the
	// plugin takes for known.
	other := manyFacts(9)[6:]
	f.facts = append(manyFacts(1), other...)
	c.round()
	n := c.source.nodes["node-1"]
	if err := n.pull(t.Context(), "shop", at, pullTries); err != nil {
		t.Fatal(err)
	}
	for _, o := range other {
		if _, ok := n.containers["id1"].facts[o.Fact]; !ok {
			t.Errorf("%.10s is missing", o.Fact.Path)
		}
	}
	if n.restarts != 1 || n.failure != nil {
		t.Errorf("%d restarts, failure %v", n.restarts, n.failure)
	}
}
