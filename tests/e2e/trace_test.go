package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// trace is what a run must not leave: kernel objects and API objects.
func (w *world) trace(t *testing.T) string {
	t.Helper()
	return strings.Join(w.kernelObjects(t), "") +
		w.kubectl(t, "get", "namespaces,clusterroles,clusterrolebindings", "-o", "name") +
		w.kubectl(t, "get", "daemonsets,serviceaccounts,roles,rolebindings", "-A", "-o", "name")
}

// nothingLeft fails unless the trace soon is what it was: the kernel frees a
// program a moment after its last user ended.
func (w *world) nothingLeft(t *testing.T, before string) {
	t.Helper()
	var left string
	defer func() {
		if left != "" {
			t.Errorf("something was left behind:\n%s", left)
		}
	}()
	eventually(t, 15*time.Second, "the trace to be gone", func() bool { left = addedLines(before, w.trace(t)); return left == "" })
}

// kernelObject is what bpftool says of a program, a map or a link.
type kernelObject struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Name    string `json:"name"`
	Program int    `json:"prog_id"`
	Maps    []int  `json:"map_ids"`
}

// kernelObjects lists BPF programs, links and maps that live in the kernel, but
// those that a program outside of the cluster holds: another test's collector.
func (w *world) kernelObjects(t *testing.T) []string {
	t.Helper()
	foreign := w.foreign()
	var list []string
	for _, kind := range []string{"link", "prog", "map"} {
		out, err := exec.Command("bpftool", "-j", kind, "show").Output()
		if err != nil {
			t.Fatalf("bpftool %s show: %v", kind, err)
		}
		var objects []kernelObject
		if err := json.Unmarshal(out, &objects); err != nil {
			t.Fatalf("bpftool %s show: %v\n%s", kind, err, out)
		}
		for _, o := range objects {
			skip := foreign[fmt.Sprint(kind, "_id ", o.ID)] || foreign[fmt.Sprint("prog_id ", o.Program)]
			// A container's runtime loads a device program for its cgroup.
			if skip = skip || o.Type == "cgroup_device"; skip {
				for _, m := range o.Maps {
					foreign[fmt.Sprint("map_id ", m)] = true
				}
				continue
			}
			list = append(list, fmt.Sprintf("%s %d %s %s\n", kind, o.ID, o.Type, o.Name))
		}
	}
	return list
}

// foreign gives the kernel objects, as "prog_id 7", that processes outside of the
// cluster hold open.
func (w *world) foreign() map[string]bool {
	held := map[string]bool{}
	files, _ := filepath.Glob("/proc/[0-9]*/fd/*") // the pattern is right
	for _, file := range files {
		target, err := os.Readlink(file)
		if err != nil || !strings.HasPrefix(target, "anon_inode:bpf") {
			continue // the process has ended, or it is another kind of file
		}
		process := filepath.Dir(filepath.Dir(file))
		group, err := os.ReadFile(filepath.Join(process, "cgroup"))
		if err != nil || strings.Contains(string(group), "/cluster-"+w.name+"/") {
			continue
		}
		info, err := os.ReadFile(filepath.Join(process, "fdinfo", filepath.Base(file)))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(info)) {
			name, id, _ := strings.Cut(strings.TrimSpace(line), ":")
			if slices.Contains([]string{"prog_id", "map_id", "link_id"}, name) {
				held[name+" "+strings.TrimSpace(id)] = true
			}
		}
	}
	return held
}
