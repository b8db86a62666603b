package cluster

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

func TestJoiningARunOfSomebodyElse(t *testing.T) {
	c := newCollectors(t)
	if _, err := c.source.Join(t.Context()); !errors.Is(err, ErrNoCollector) {
		t.Errorf("without a run: %v", err)
	}
	namespaces := c.source.api.Resource(resource("", "v1", "namespaces"))
	n := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
		"name": manifests.Namespace, "annotations": map[string]any{byAnnotation: "ann\n@laptop"}, "creationTimestamp": "2026-01-01T12:00:00Z"}}}
	if _, err := namespaces.Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.source.Join(t.Context()); !errors.Is(err, ErrNoCollector) {
		t.Errorf("with a namespace and no collector: %v", err)
	}
	c.start("a", "node-1", &fakeCollector{epoch: "e1", facts: manyFacts(3)})
	c.start("b", "node-2", &fakeCollector{epoch: "e2", facts: manyFacts(2)})
	joined, err := c.source.Join(t.Context())
	if err != nil || joined.By != `ann\x0a@laptop` || !joined.Since.Equal(at()) || joined.Nodes != 2 {
		t.Errorf("got %+v, %v", joined, err)
	}
	c.source.pullAll(t.Context(), 1)
	if one, two := c.facts("node-1"), c.facts("node-2"); one != 3 || two != 2 {
		t.Errorf("%d and %d facts", one, two)
	}
	if err := c.source.Leave(); err != nil {
		t.Error(err)
	}
	if _, err := namespaces.Get(t.Context(), manifests.Namespace, metav1.GetOptions{}); err != nil {
		t.Errorf("the other's run was touched: %v", err)
	}
}
