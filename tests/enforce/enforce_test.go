// Package enforce lets Cilium enforce what the plugin learned: the shop runs on a
// real cluster that Cilium connects, its policies go to deny, and everything that it
// does goes on while what it never did is dropped. Hubble tells both.
package enforce

import (
	"bufio"
	"bytes"
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

const collectorImage = "localhost/autopolicy-collector:enforce"

// world is the cluster and the programs that it is worked with.
type world struct {
	root, dir, kubeconfig, bin string
}

var shared world

func TestMain(m *testing.M) {
	if os.Getenv("AUTOPOLICY_E2E") == "" {
		os.Exit(m.Run()) // every test skips, and says why
	}
	os.Exit(func() (code int) {
		if err := shared.up(); err != nil {
			fmt.Fprintln(os.Stderr, "start the test cluster:", err)
			code = 1
		} else {
			code = m.Run()
		}
		if out, err := shared.command(shared.path("cluster"), "down", "--name=enforce").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "stop the test cluster: %v\n%s", err, out)
			code = 1
		}
		os.RemoveAll(shared.dir)
		return code
	}())
}

func needCilium(t *testing.T) *world {
	t.Helper()
	if os.Getenv("AUTOPOLICY_E2E") == "" {
		t.Skip("needs a real cluster with Cilium: run 'make e2e', which sets AUTOPOLICY_E2E")
	}
	return &shared
}

func (w *world) up() error {
	var err error
	if w.root, err = filepath.Abs("../.."); err != nil {
		return err
	}
	if w.dir, err = os.MkdirTemp("", "autopolicy-enforce-"); err != nil {
		return err
	}
	cluster := w.path("cluster")
	shop := filepath.Join(w.root, "tests/demo/shop")
	for _, step := range [][]string{
		{"go", "-C", filepath.Join(w.root, "tests/cluster"), "build", "-o", cluster, "./cmd/cluster"},
		{"go", "-C", w.root, "build", "-o", w.path("flows"), "./tests/enforce/flows"},
		{cluster, "up", "--name=enforce", "--nodes=2", "--cni=cilium", "--source=" + filepath.Join(w.root, "tests/cluster")},
		{"go", "-C", w.root, "run", "./manifests/image", "-ref", collectorImage, "-version", "e2e", "-out", w.path("collector.tar")},
		{filepath.Join(shop, "image.sh"), w.path("shop.tar")},
		{cluster, "load", "--name=enforce", w.path("collector.tar"), w.path("shop.tar")},
		{"kubectl", "apply", "-k", filepath.Join(shop, "k8s")},
		{"kubectl", "apply", "-k", filepath.Join(shop, "vault")},
		{"kubectl", "-n", "shop", "wait", "--for=condition=Available", "--timeout=180s", "deployment", "--all"},
		{"kubectl", "-n", "shop", "rollout", "status", "statefulset/store", "--timeout=120s"},
		{"kubectl", "-n", "other", "wait", "--for=condition=Available", "--timeout=120s", "deployment", "--all"},
	} {
		if out, err := w.command(step[0], step[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(step, " "), err, out)
		}
		if len(step) > 1 && step[1] == "up" {
			config, err := w.command(cluster, "kubeconfig", "--name=enforce").Output()
			if err != nil {
				return fmt.Errorf("find the cluster: %w", err)
			}
			w.kubeconfig = strings.TrimSpace(string(config))
			w.bin = filepath.Join(filepath.Dir(w.kubeconfig), "bin")
		}
	}
	return nil
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) command(name string, args ...string) *exec.Cmd {
	switch name {
	case "kubectl":
		name = filepath.Join(w.bin, name)
	case "kubectl-autopolicy":
		name = filepath.Join(w.root, "bin", name)
	}
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "KUBECONFIG="+w.kubeconfig, "CLUSTER="+w.path("cluster"), "PATH="+w.bin+":"+filepath.Join(w.root, "bin")+":"+os.Getenv("PATH"))
	return c
}

// must runs a command that has to succeed, and gives what it printed.
func (w *world) must(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	c := w.command(name, args...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// flow is what is asked of a flow here.
type flow struct {
	Verdict          string
	DropReasonDesc   string `json:"drop_reason_desc"`
	TrafficDirection string `json:"traffic_direction"`
	Source           end
	Destination      end
	IP               struct{ Source, Destination string }
	L4               map[string]map[string]any
}

type end struct {
	Namespace string
	PodName   string `json:"pod_name"`
}

func (f flow) String() string {
	return fmt.Sprintf("%s %s: %s/%s (%s) -> %s/%s (%s) %v %s", f.Verdict, f.TrafficDirection, f.Source.Namespace, f.Source.PodName, f.IP.Source,
		f.Destination.Namespace, f.Destination.PodName, f.IP.Destination, f.L4, f.DropReasonDesc)
}

// flows are what both nodes' Hubble saw since then.
func (w *world) flows(t *testing.T, since time.Time) (all []flow) {
	t.Helper()
	for _, node := range []string{"node0", "node1"} {
		c := w.command(w.path("cluster"), "node", "--name=enforce", node, "--", w.path("flows"), "127.0.0.1:4244", since.UTC().Format(time.RFC3339))
		var errOut bytes.Buffer
		c.Stderr = &errOut
		out, err := c.Output()
		if err != nil {
			t.Fatalf("flows of %s: %v\n%s", node, err, errOut.String())
		}
		scan := bufio.NewScanner(bytes.NewReader(out))
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			var response struct {
				Flow       *flow
				LostEvents json.RawMessage `json:"lost_events"`
			}
			if err := json.Unmarshal(scan.Bytes(), &response); err != nil {
				t.Fatal(err)
			}
			if response.LostEvents != nil {
				t.Fatalf("%s lost flows: %s", node, response.LostEvents)
			}
			if response.Flow != nil {
				all = append(all, *response.Flow)
			}
		}
	}
	return all
}

// drops are the flows of the shop that a policy dropped since then, as text, each
// once.
func (w *world) drops(t *testing.T, since time.Time) []string {
	t.Helper()
	all := w.flows(t, since)
	var list []string
	for _, f := range all {
		if f.Verdict == "DROPPED" && (f.Source.Namespace == "shop" || f.Destination.Namespace == "shop") {
			list = append(list, f.String())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", limit, what)
		}
		<-tick.C
	}
}
