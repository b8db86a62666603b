package e2e

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestASecondRunIsRefusedAndUninstallEndsTheFirst(t *testing.T) {
	w := needCluster(t)
	dir, repository := w.workspace(t)
	before := w.trace(t)
	first := w.start(t, dir, "discover", "-n", "shop", "--duration", "3m")
	first.until("left, ")

	r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "5s")
	r.wantsCode(t, 2)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	r.wants(t, "exists since 20", "deployed by "+me.Username+"@", "hint: wait until that run is over, or remove it: kubectl autopolicy uninstall")
	if w.trace(t) == before {
		t.Error("the second run removed the first one's collector")
	}

	r = w.plugin(t, dir, "uninstall")
	r.wantsCode(t, 0)
	r.wants(t, "namespace/autopolicy-collector deleted", "nothing of the collector is in the cluster")
	w.nothingLeft(t, before)
	r = first.wait()
	r.wantsCode(t, 2)
	r.wants(t, "error: ", "removed")
	if commits(t, repository) > 0 {
		t.Error("a run whose collectors were taken away made a commit")
	}
	r = w.plugin(t, dir, "uninstall")
	r.wantsCode(t, 0)
	r.wants(t, "nothing of the collector is in the cluster")
	w.nothingLeft(t, before)
}

// collectorPod gives name and container of a node's collector.
func (w *world) collectorPod(t *testing.T, node string) (pod, container string) {
	t.Helper()
	out := w.kubectl(t, "-n", namespace, "get", "pods", "--field-selector=spec.nodeName="+node,
		"-o", `jsonpath={.items[0].metadata.name} {.items[0].status.containerStatuses[0].containerID}`)
	pod, id, _ := strings.Cut(out, " ")
	_, container, ok := strings.Cut(id, "://")
	if !ok {
		t.Fatalf("no collector on %s: %q", node, out)
	}
	return pod, container
}

// killContainer ends the processes of one container as a crash would.
func killContainer(t *testing.T, id string) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is right
	killed := 0
	for _, file := range files {
		group, err := os.ReadFile(file)
		if err != nil || !strings.Contains(string(group), id) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			killed++
		}
	}
	if killed == 0 {
		t.Fatalf("container %s has no process", id)
	}
}

func TestANodeThatIsLostIsNamedAndStopsAPromotion(t *testing.T) {
	w := needCluster(t)
	dir, repository := w.workspace(t)
	before := w.trace(t)

	p := w.start(t, dir, "discover", "-n", "shop", "--duration", "13s")
	p.until("left, ")
	_, container := w.collectorPod(t, "node1")
	killContainer(t, container)
	r := p.wait()
	r.wantsCode(t, 0)
	// It went on with what it knew, and says when nobody looked.
	r.wants(t, "facts lost (web-", "collector restarted")
	w.nothingLeft(t, before)
	head := git(t, "-C", repository, "rev-parse", "main")
	if text := git(t, "-C", repository, "show", "main:autopolicy/shop/workloads/deployment-web/evidence.yaml"); !strings.Contains(text, "collector restarted") {
		t.Error("the evidence does not hold that a collector restarted")
	}

	// Long enough for another collector to come, and to be pulled from.
	p = w.start(t, dir, "promote", "-n", "shop", "--to=deny", "--duration", "25s")
	p.until("left, ")
	pod, _ := w.collectorPod(t, "node0")
	w.kubectl(t, "-n", namespace, "delete", "pod", pod, "--force", "--grace-period=0")
	r = p.wait()
	r.wantsCode(t, 1)
	r.wants(t, "warning: node node0: collector restarted", "not yet", "reason: deployment/web/web: node node0: collector restarted")
	w.nothingLeft(t, before)
	if git(t, "-C", repository, "rev-parse", "main") != head {
		t.Error("a refused promotion made a commit")
	}
}
