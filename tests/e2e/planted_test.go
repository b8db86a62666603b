//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/plant"
)

const plantedImage = "localhost/planted:1"

// loadPlanted writes the planted program's image and loads it into every node.
func (w *world) loadPlanted(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	build := func(name, arch string) string {
		out := filepath.Join(dir, name)
		c := exec.Command("go", "build", "-trimpath", "-o", out, "./tests/kernel/planted")
		c.Dir = w.root
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if text, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, text)
		}
		return out
	}
	program := build("planted", runtime.GOARCH)
	args := []string{"image", filepath.Join(dir, "planted.tar"), plantedImage, "--binary=" + program, "--add=" + program + ":" + plant.Program, "--add=" + program + ":" + plant.Child}
	if runtime.GOARCH == "amd64" {
		args = append(args, "--add="+build("planted32", "386")+":"+plant.Compat)
	}
	page := filepath.Join(dir, "page")
	if err := os.WriteFile(page, make([]byte, os.Getpagesize()), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(plant.Prepared(), "by-hook") {
		args = append(args, "--add="+page+":"+plant.Dir+"/"+name)
	}
	for _, step := range [][]string{args, {"load", "--name=" + w.name, filepath.Join(dir, "planted.tar")}} {
		if out, err := w.command(w.cluster, step...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(step, " "), err, out)
		}
	}
}

// plantedPod is a deployment of one pod of the planted program in a role.
func plantedPod(name, extra string) string {
	return `apiVersion: apps/v1
kind: Deployment
metadata: {name: ` + name + `, namespace: planted}
spec:
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: ` + name + `
        image: ` + plantedImage + `
        imagePullPolicy: Never
        stdin: true # it stays until that ends
        command: [` + plant.Program + `, ` + name + `]
        env: [{name: ` + plant.NoServiceVariable + `, value: "1"}]
        securityContext: {privileged: true}
` + extra
}

// A program that does one of everything runs as a pod, with a probe, a hook,
// volumes and a person's session; one that ran before; and one that asks a Service.
func TestThePlantedWorkloadIsSeenWhole(t *testing.T) {
	w := needCluster(t)
	w.loadPlanted(t)
	w.apply(t, `apiVersion: v1
kind: Namespace
metadata: {name: planted}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: greeting, namespace: planted}
data: {text: hello}
---
`+plantedPod(plant.RoleHeld, ""))
	w.kubectl(t, "-n", "planted", "rollout", "status", "deployment/held", "--timeout=60s")
	eventually(t, time.Minute, "what was there before", func() bool {
		return strings.Contains(w.kubectl(t, "-n", "planted", "logs", "deployment/held"), "done")
	})
	dir, repository := w.workspace(t)
	before := w.trace(t)
	r := w.start(t, dir, "discover", "-n", "planted", "--duration", "40s")
	r.until("left, ")
	w.apply(t, plantedPod(plant.RoleMain, `        livenessProbe:
          exec: {command: [`+plant.Program+`, `+plant.RoleProbe+`]}
          periodSeconds: 2
        lifecycle:
          postStart:
            exec: {command: [`+plant.Program+`, read, `+plant.Dir+`/by-hook]}
        volumeMounts:
        - {name: greeting, mountPath: /etc/greeting, readOnly: true}
        - {name: scratch, mountPath: /scratch}
      - name: caller
        image: localhost/shop:1
        imagePullPolicy: Never
        command: [/bin/sh, -c, "while :; do cat /etc/greeting/text; wget -qO- http://web.shop/ > /dev/null; sleep 1; done"]
        volumeMounts:
        - {name: greeting, mountPath: /etc/greeting, readOnly: true}
      volumes:
      - {name: greeting, configMap: {name: greeting}}
      - {name: scratch, emptyDir: {}}
`))
	w.kubectl(t, "-n", "planted", "rollout", "status", "deployment/main", "--timeout=60s")
	eventually(t, time.Minute, "everything to be done", func() bool {
		return strings.Contains(w.kubectl(t, "-n", "planted", "logs", "deployment/main", "-c", "main"), "done")
	})
	w.kubectl(t, "-n", "planted", "exec", "deployment/main", "-c", "main", "--", plant.Program, plant.RoleExec)
	said := w.kubectl(t, "-n", "planted", "logs", "deployment/main", "-c", "main")
	eventually(t, time.Minute, "the session to be seen", func() bool {
		live := w.statusOf(t, dir, "main")
		return live["main"].Live && live["main"].Entered > 0
	})
	result := r.wait()
	result.wantsCode(t, 0)
	result.wants(t, "left out: deployment/main")
	w.nothingLeft(t, before)

	main, held := evidenceOf(t, repository, "main"), evidenceOf(t, repository, "held")["held"]
	t.Run("every planted fact is there", func(t *testing.T) { plantedFacts(t, said, main["main"], held) })
	t.Run("a person's session is not learned, a probe and a hook are", func(t *testing.T) {
		for f := range main["main"].Facts.Keys() {
			if f.Origin == behavior.OriginExec || strings.Contains(f.Path, "by-exec") {
				t.Errorf("learned: %s", f)
			}
		}
		for _, name := range []string{"by-probe", "by-hook"} {
			want := behavior.Fact{Kind: behavior.File, Exe: plant.Program, Path: plant.Dir + "/" + name, Access: behavior.Read, Origin: behavior.OriginProbe}
			if _, ok := main["main"].Facts.Get(want); !ok {
				t.Errorf("no fact: %s", want)
			}
		}
	})
	t.Run("a Service is the pods that it leads to", func(t *testing.T) {
		for f := range main["caller"].Facts.Keys() {
			if f.Kind == behavior.Network && f.Direction == behavior.Egress && f.Peer.Workload == "deployment-web" && f.Port == 8080 {
				return
			}
		}
		t.Error("no call of the web's pods")
	})
	t.Run("status says what was seen and what was not", func(t *testing.T) {
		m := w.statusOf(t, dir, "main")["main"]
		m.Lost = slices.DeleteFunc(m.Lost, func(l loss) bool { return expected(l.What) })
		if !m.Committed || !m.Seen.Start || m.Pods != 1 || m.Replicas != 1 || len(m.Lost) > 0 || len(m.Hooks[behavior.File]) == 0 || m.Images[0] == "" {
			t.Errorf("main is %+v", m)
		}
		if v := m.Mounts["/etc/greeting"]; v.Volume != "greeting" || v.Kind != "configMap" || !v.ReadOnly {
			t.Errorf("the volume is %+v of %v", v, m.Mounts)
		}
		for kind, n := range m.Facts {
			if got := main["main"].Count(kind); n != got {
				t.Errorf("%d %s facts, the evidence has %d", n, kind, got)
			}
		}
		h := w.statusOf(t, dir, "held")["held"]
		h.Lost = slices.DeleteFunc(h.Lost, func(l loss) bool { return expected(l.What) })
		if h.Seen.Start || h.Snapshot[behavior.File] == 0 || len(h.Lost) > 0 {
			t.Errorf("held is %+v", h)
		}
	})
}

// expected tells whether it is true that this is lost: a program that was deleted
// before it ran can be asked for nothing later, and what is the node's is of others,
// who may run on the machine beside the test.
func expected(what string) bool {
	return strings.HasPrefix(what, "node") || strings.HasSuffix(what, "dynamic linker of a program that was gone")
}

// containerStatus is what status -o json says of a container, as far as it is
// looked at here.
type containerStatus struct {
	Container       string
	Committed, Live bool
	Seen            struct{ Start bool }
	Pods, Replicas  int
	Images          []string
	Hooks           map[behavior.Kind][]string
	Facts           map[behavior.Kind]int
	Snapshot        map[behavior.Kind]int `json:"snapshotOnly"`
	Entered         int
	Lost            []loss
	Gaps            []string
	Mounts          map[string]behavior.Mount
	NoPod           uint64 `json:"unattributed"`
}

type loss struct {
	What  string
	Count int
}

func (w *world) statusOf(t *testing.T, dir, workload string) map[string]containerStatus {
	t.Helper()
	c := w.command(filepath.Join(w.root, "bin/kubectl-autopolicy"), "status", "-n", "planted", "deployment/"+workload, "-o", "json")
	c.Dir = dir
	out, err := c.Output()
	containers := map[string]containerStatus{}
	if err != nil {
		t.Logf("status: %v", err)
		return containers // before anything is known of it
	}
	var report struct {
		Workloads []struct{ Containers []containerStatus }
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, workload := range report.Workloads {
		for _, container := range workload.Containers {
			containers[container.Container] = container
		}
	}
	return containers
}

func evidenceOf(t *testing.T, repository, workload string) map[string]behavior.Profile {
	t.Helper()
	text := git(t, "-C", repository, "show", "main:autopolicy/planted/workloads/deployment-"+workload+"/evidence.yaml")
	profiles, err := behavior.DecodeFile([]byte(text + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]behavior.Profile{}
	for _, p := range profiles {
		byName[p.Subject.Container] = p
	}
	return byName
}

// plantedFacts looks for every fact that the program says it has planted.
func plantedFacts(t *testing.T, said string, main, held behavior.Profile) {
	how := map[string]string{}
	for line := range strings.Lines(said) {
		part := append(strings.SplitN(strings.TrimSpace(line), "\t", 3), "", "")
		how[part[1]] = part[0]
		if part[0] == "failed" {
			t.Errorf("the program could not: %s", line)
		}
	}
	planted := 0
	look := func(p behavior.Profile, role, arch string) {
		for _, thing := range plant.Of(role, arch) {
			if how[thing.Name] == "absent" || how[thing.Name] == "failed" {
				continue
			}
			for _, want := range thing.Facts {
				planted++
				if want.Peer.Address.IsLoopback() {
					want.Peer = behavior.Peer{} // the pod itself, in a profile
				}
				if len(p.Coverage.Hooks[want.Kind]) == 0 {
					t.Logf("no hook has seen a %s fact, and the coverage says so: %s", want.Kind, want)
					continue
				}
				if !has(p, want, thing.Snapshot) && !toldOf(p.Coverage.Gaps, thing.Gaps) {
					t.Errorf("%s: no fact, and nothing is said of it: %s", thing.Name, want)
				}
			}
		}
	}
	look(main, plant.RoleMain, runtime.GOARCH)
	look(main, plant.RoleProbe, runtime.GOARCH)
	if runtime.GOARCH == "amd64" {
		look(main, plant.RoleCompat, "386")
	}
	look(held, plant.RoleHeld, runtime.GOARCH)
	t.Logf("%d planted facts", planted)
	if planted < 50 {
		t.Error("that is too few: the test shows nothing")
	}
	for f := range main.Facts.Keys() {
		if why := plant.Never(f); why != "" {
			t.Errorf("%s: %s", f, why)
		}
	}
}

func has(p behavior.Profile, want behavior.Fact, snapshot bool) bool {
	for f, e := range p.Facts.All() {
		if plant.Found(want, f) && (!snapshot || e.Snapshot) {
			return true
		}
	}
	return false
}

func toldOf(gaps, words []string) bool {
	for _, gap := range gaps {
		for _, word := range words {
			if strings.Contains(gap, word) {
				return true
			}
		}
	}
	return false
}
