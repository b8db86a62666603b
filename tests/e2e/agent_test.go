//go:build linux

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agent is one of a node's own programs.
type agent struct {
	pid         int
	words, env  []string
	groups, dir string // of control groups as /proc shows them; where it works
}

// agentOf finds the program of that name which serves a node of the cluster.
func (w *world) agentOf(t *testing.T, node, name string) agent {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is right
	for _, file := range files {
		line, err := os.ReadFile(file)
		words := strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
		if err != nil || filepath.Base(words[0]) != name || !bytes.Contains(line, []byte("/"+w.name+"/")) || !bytes.Contains(line, []byte("/"+node+"/")) {
			continue
		}
		process := filepath.Dir(file)
		a := agent{words: words}
		if _, err := fmt.Sscan(filepath.Base(process), &a.pid); err != nil {
			t.Fatal(err)
		}
		env, envErr := os.ReadFile(process + "/environ")
		groups, groupErr := os.ReadFile(process + "/cgroup")
		dir, dirErr := os.Readlink(process + "/cwd")
		if envErr != nil || groupErr != nil || dirErr != nil {
			t.Fatal(envErr, groupErr, dirErr)
		}
		a.env, a.groups, a.dir = strings.Split(strings.TrimSuffix(string(env), "\x00"), "\x00"), string(groups), dir
		return a
	}
	t.Fatalf("no %s of %s", name, node)
	return agent{}
}

// restart kills the program and starts it again beside another one of its node, as
// the node's init system would.
func (w *world) restart(t *testing.T, a, beside agent) {
	t.Helper()
	if err := syscall.Kill(a.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the program to end", func() bool { return syscall.Kill(a.pid, 0) != nil })
	// It must end with the cluster, which ends by its control groups.
	var join strings.Builder
	for line := range strings.Lines(a.groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[2] == "/" {
			continue
		}
		controller := strings.TrimPrefix(parts[1], "name=")
		if controller == "" {
			controller = "unified"
		}
		for _, root := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
			procs := filepath.Join(root, parts[2], "cgroup.procs")
			if _, err := os.Stat(procs); err == nil {
				fmt.Fprintf(&join, "echo $$ > '%s' && ", procs)
				break
			}
		}
	}
	enter := []string{"-c", join.String() + `exec nsenter --mount=/proc/$0/ns/mnt --net=/proc/$0/ns/net --uts=/proc/$0/ns/uts "$@"`, fmt.Sprint(beside.pid)}
	c := exec.Command("sh", append(enter, a.words...)...)
	c.Env, c.Dir = a.env, a.dir
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.Wait() }() // it ends with the cluster
}

// The kubelet is killed and started again while a namespace is observed: the
// collector goes on, nobody's facts are lost, and nothing is left.
func TestAKubeletThatIsRestartedCostsNoFact(t *testing.T) {
	w := needCluster(t)
	dir, repository := w.workspace(t)
	before := w.trace(t)
	p := w.start(t, dir, "discover", "-n", "shop", "--duration", "25s")
	p.until("left, ")
	w.restart(t, w.agentOf(t, "node1", "kubelet"), w.agentOf(t, "node1", "containerd"))
	w.kubectl(t, "-n", "shop", "delete", "pod", "-l", "app=api", "--wait=false") // new ones start meanwhile
	r := p.wait()
	r.wantsCode(t, 0)
	for line := range strings.Lines(r.out + r.errOut) {
		_, what, lost := strings.Cut(line, "facts lost (")
		if lost && !expected(strings.TrimSuffix(strings.TrimSpace(what), ")")) || strings.Contains(line, "not observed") {
			t.Errorf("a kubelet's restart costs: %s", line)
		}
	}
	w.nothingLeft(t, before)
	w.kubectl(t, "-n", "shop", "rollout", "status", "deployment/api", "--timeout=90s")
	if commits(t, repository) != 1 {
		t.Errorf("%d commits", commits(t, repository))
	}
}
