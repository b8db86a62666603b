package topology_test

import (
	"fmt"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// BenchmarkSeal makes a picture of 5,000 pods ready, of which a tenth is in one
// namespace and a fifth of the workloads share their labels.
func BenchmarkSeal(b *testing.B) {
	c := topology.New()
	for i := range 5000 {
		app := fmt.Sprintf("app-%d", i/5)
		if i%5 == 0 {
			app = "shared"
		}
		c.AddPod(topology.Pod{Meta: topology.Meta{Namespace: fmt.Sprintf("ns-%d", i%10), Name: fmt.Sprintf("p-%d", i),
			Labels: map[string]string{"app": app, "part-of": "shop", "tier": fmt.Sprint(i % 3)},
			Owners: []topology.Owner{{Kind: "StatefulSet", Name: fmt.Sprintf("w-%d", i/5), Controller: true}}}}, t0())
	}
	for b.Loop() {
		c.AddNode(topology.Node{}) // what was made ready is dropped
		c.Seal()
	}
}
