package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// The walk through the whole house, as the README promises it.
func TestTheMainJob(t *testing.T) {
	w := needCluster(t)
	dir, repository := w.workspace(t)
	before := w.trace(t)

	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		time.Sleep(15 * time.Second) // well into the observation; nothing is asserted on when
		w.command("kubectl", "-n", "shop", "rollout", "restart", "deployment,statefulset").Run()
	}()
	r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "50s")
	<-restarted
	if r.code != 0 {
		t.Fatalf("discover: exit code %d", r.code)
	}
	for _, want := range []string{"deployment/web", "deployment/api", "statefulset/store", "deployment/traffic", "audit"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the table does not speak of %s", want)
		}
	}
	for _, want := range []string{"collector", "removed", "committed"} {
		if !strings.Contains(r.errOut, want) {
			t.Errorf("discover does not say %q", want)
		}
	}
	if left := addedLines(before, w.trace(t)); left != "" {
		t.Errorf("discover left something behind:\n%s", left)
	}

	t.Run("the evidence holds what the shop is known to do", func(t *testing.T) { shopEvidence(t, repository) })

	t.Run("a second discover that learns nothing makes no commit", func(t *testing.T) {
		eventuallyNothingNew(t, w, dir, repository)
	})

	t.Run("explain shows a rule with its facts", func(t *testing.T) {
		r := w.plugin(t, dir, "explain", "-n", "shop", "deploy/web", "--rule", "web.json")
		if r.code != 0 || !strings.Contains(r.out, "/etc/shop/") || !strings.Contains(r.out, "of 2 pods") && !strings.Contains(r.out, "pods, first") {
			t.Error("no evidence for reading the configuration")
		}
	})

	checkout := filepath.Join(dir, "checkout")
	git(t, "clone", "-q", repository, checkout)
	w.kubectl(t, "apply", "-k", filepath.Join(checkout, "autopolicy/shop"))

	t.Run("an attack stops the promotion", func(t *testing.T) {
		head := git(t, "-C", repository, "rev-parse", "main")
		p := w.start(t, dir, "promote", "-n", "shop", "--to=deny", "--duration", "25s")
		p.until("observing")
		for range 3 {
			w.attack(t, "id; wc -c /var/run/secrets/kubernetes.io/serviceaccount/token; wget -qO- http://vault.other")
			time.Sleep(3 * time.Second) // a burst would do; this is a persistent attacker
		}
		r := p.wait()
		if r.code != 1 {
			t.Fatalf("promote: exit code %d, want 1", r.code)
		}
		for _, want := range []string{"/bin/busybox", "serviceaccount", "other/deployment-vault", "denied by kubearmor", "denied by cilium", "not yet"} {
			if !strings.Contains(r.out+r.errOut, want) {
				t.Errorf("the violations do not speak of %s", want)
			}
		}
		if git(t, "-C", repository, "rev-parse", "main") != head {
			t.Error("a refused promotion made a commit")
		}
	})

	t.Run("clean traffic promotes, and a rollback restores the bytes", func(t *testing.T) {
		promoteInTheEnd(t, w, dir)
		head := git(t, "-C", repository, "rev-parse", "main~1")
		audit := git(t, "-C", repository, "rev-parse", "main~1:autopolicy/shop")
		changed := strings.Fields(git(t, "-C", repository, "diff", "--name-only", head, "main"))
		want := []string{"autopolicy/shop/components/hardening/kustomization.yaml", "autopolicy/shop/kustomization.yaml", "autopolicy/shop/namespace.yaml", "autopolicy/shop/rollout.yaml"}
		if strings.Join(changed, " ") != strings.Join(want, " ") {
			t.Errorf("the promotion changed %v, want %v", changed, want)
		}
		git(t, "-C", checkout, "pull", "-q")
		w.kubectl(t, "apply", "-k", filepath.Join(checkout, "autopolicy/shop"))
		if posture := w.kubectl(t, "get", "namespace", "shop", "-o", `jsonpath={.metadata.annotations.kubearmor-file-posture}`); posture != "block" {
			t.Errorf("posture %q after deny was applied", posture)
		}
		if r := w.plugin(t, dir, "rollback", "-n", "shop"); r.code != 0 {
			t.Fatalf("rollback: exit code %d", r.code)
		}
		if back := git(t, "-C", repository, "rev-parse", "main:autopolicy/shop"); back != audit {
			t.Error("the rollback did not restore the folder")
		}
		git(t, "-C", repository, "fsck", "--strict")
	})
	if after := w.trace(t); len(after) < len(before)/2 {
		t.Error("the trace is broken: it shows less than half of what it did")
	}
}

// shopEvidence checks facts that are known from the shop's sources and manifests.
func shopEvidence(t *testing.T, repository string) {
	text := git(t, "-C", repository, "show", "main:autopolicy/shop/workloads/deployment-web/evidence.yaml")
	profiles, err := behavior.DecodeFile([]byte(text + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	has := func(what string, match func(behavior.Fact) bool) {
		for _, p := range profiles {
			for f := range p.Facts.Keys() {
				if match(f) {
					return
				}
			}
		}
		t.Errorf("no fact: %s", what)
	}
	has("the entrypoint is run from outside the container", func(f behavior.Fact) bool {
		return f.Kind == behavior.Process && f.Path == "/shop" && f.Parent == ""
	})
	has("the configuration is read at its resolved path", func(f behavior.Fact) bool {
		return f.Kind == behavior.File && f.Exe == "/shop" && strings.HasSuffix(f.Path, "/web.json") && f.Access == behavior.Read
	})
	has("web calls api on the port of its pods", func(f behavior.Fact) bool {
		return f.Kind == behavior.Network && f.Direction == behavior.Egress && f.Peer.Workload == "deployment-api" && f.Port == 9090
	})
	has("web asks DNS", func(f behavior.Fact) bool {
		return f.Kind == behavior.Network && f.Direction == behavior.Egress && f.Protocol == "udp" && f.Port == 53 && f.Peer.Namespace == "kube-system"
	})
	has("traffic reaches web", func(f behavior.Fact) bool {
		return f.Kind == behavior.Network && f.Direction == behavior.Ingress && f.Peer.Workload == "deployment-traffic" && f.Port == 8080
	})
	has("web listens", func(f behavior.Fact) bool {
		return f.Kind == behavior.Network && f.Direction == behavior.Listen && f.Port == 8080
	})
	has("web calls epoll_pwait", func(f behavior.Fact) bool { return f.Kind == behavior.Syscall && f.Name == "epoll_pwait" })
	for _, p := range profiles {
		if p.Coverage.Starts() == 0 {
			t.Errorf("container %s: no start was seen although the rollout was restarted", p.Subject.Container)
		}
	}
}

// promoteInTheEnd promotes as a pipeline would: not yet is no error. What a
// refusal finds must be true all the same: on a machine that runs nothing else
// the first try passes.
func promoteInTheEnd(t *testing.T, w *world, dir string) {
	for range 3 {
		r := w.plugin(t, dir, "promote", "-n", "shop", "--to=deny", "--duration", "25s")
		switch r.code {
		case 0:
			return
		case 1:
			if r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "10s"); r.code != 0 {
				t.Fatalf("discover: exit code %d", r.code)
			}
		default:
			t.Fatalf("promote: exit code %d", r.code)
		}
	}
	t.Fatal("three promotions on clean traffic were refused")
}

// eventuallyNothingNew observes until nothing is learned: a run may still see
// something new, but never often.
func eventuallyNothingNew(t *testing.T, w *world, dir, repository string) {
	for range 4 {
		head := git(t, "-C", repository, "rev-parse", "main")
		r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "15s", "-o", "json")
		var out struct {
			Revision string
			Files    []string
		}
		if err := json.Unmarshal([]byte(r.out), &out); err != nil || r.code != 0 {
			t.Fatalf("discover -o json: exit code %d, %v", r.code, err)
		}
		if len(out.Files) > 0 {
			continue
		}
		if !strings.Contains(r.errOut, "nothing new") || out.Revision != "" || git(t, "-C", repository, "rev-parse", "main") != head {
			t.Error("nothing was learned, but it was not said, or committed")
		}
		return
	}
	t.Error("four observations of the same shop each learned something new")
}

// addedLines are the lines of after that before has not. What another program on
// the machine takes away meanwhile is nobody's fault.
func addedLines(before, after string) string {
	var b strings.Builder
	count := map[string]int{}
	for line := range strings.Lines(before) {
		count[line]--
	}
	for line := range strings.Lines(after) {
		if count[line]++; count[line] > 0 {
			b.WriteString("+ " + line)
		}
	}
	return b.String()
}
