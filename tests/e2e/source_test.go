package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// The source's own tests against a real cluster, in this one.
func TestTheClusterSource(t *testing.T) {
	w := needCluster(t)
	c := w.command("go", "test", "-count=1", "-v", "-timeout=8m", "./pkg/source/cluster")
	c.Dir = w.root
	c.Env = append(c.Env, "AUTOPOLICY_KUBECONFIG="+w.kubeconfig, "AUTOPOLICY_COLLECTOR_IMAGE="+collectorImage)
	out, err := c.CombinedOutput()
	if err != nil || strings.Contains(string(out), "--- SKIP") {
		t.Errorf("%s: %v\n%s", filepath.Join("pkg", "source", "cluster"), err, out)
	}
}
