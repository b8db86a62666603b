package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// processOf gives the PID of a container's program.
func processOf(t *testing.T, id string) string {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is right
	for _, file := range files {
		if group, err := os.ReadFile(file); err == nil && strings.Contains(string(group), id) {
			return filepath.Base(filepath.Dir(file))
		}
	}
	t.Fatalf("container %s has no process", id)
	return ""
}

// What docs/security.md says of the collector, on a real node.
func TestTheCollectorMayDoLittleAndNoNeighbourReachesIt(t *testing.T) {
	w := needCluster(t)
	dir, repository := w.workspace(t)
	before := w.trace(t)
	p := w.start(t, dir, "discover", "-n", "shop", "--duration", "20s")
	p.until("left, ")
	pod, container := w.collectorPod(t, "node0")
	status, err := os.ReadFile("/proc/" + processOf(t, container) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"CapEff:\t0000000000080004", // SYS_PTRACE and DAC_READ_SEARCH
		"CapPrm:\t0000000000080004",
		"CapBnd:\t000000c000081004", // and BPF, PERFMON, NET_ADMIN
		"NoNewPrivs:\t1",
		"Seccomp:\t2",
	} {
		if !strings.Contains(string(status), line+"\n") {
			t.Errorf("the collector's status has no %q:\n%s", line, status)
		}
	}

	address := w.kubectl(t, "-n", namespace, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
	neighbour := w.kubectl(t, "-n", "shop", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].status.podIP}")
	// The first is to show that the second would be reached if it could be.
	w.kubectl(t, "-n", "shop", "exec", "deployment/api", "--", "sh", "-c", "nc -w 2 "+neighbour+" 8080 </dev/null")
	reach := w.command("kubectl", "-n", "shop", "exec", "deployment/api", "--", "sh", "-c", "nc -w 2 "+address+" 9847 </dev/null")
	if out, err := reach.CombinedOutput(); err == nil {
		t.Errorf("a neighbour reaches the collector at %s: %s", address, out)
	}

	w.kubectl(t, "-n", "shop", "exec", "store-0", "--", "ls", "/etc")
	p.wait().wantsCode(t, 0)
	w.nothingLeft(t, before)
	evidence := git(t, "-C", repository, "show", "main:autopolicy/shop/workloads/statefulset-store/evidence.yaml")
	if !strings.Contains(evidence, `"origin":"probe"`) {
		t.Error("the probe of the store is not told from what the store does")
	}
}
