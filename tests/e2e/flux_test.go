package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
)

// fluxWorld is a workspace whose repository real Flux controllers watch.
type fluxWorld struct {
	*world
	dir, repository, url string
}

// flux starts Flux and a git server for a workspace. Its controllers and objects go
// with the test.
func (w *world) flux(t *testing.T) fluxWorld {
	t.Helper()
	dir, repository := w.workspace(t)
	cmd := w.command(w.cluster, "flux", "--name="+w.name, "--source="+filepath.Join(w.root, "tests/cluster"), dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.command("kubectl", "-n", "flux-system", "delete", "kustomizations,gitrepositories", "--all", "--wait", "--timeout=60s").Run()
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("Flux: %v", err)
		}
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("Flux does not start: %v", err)
	}
	f := fluxWorld{w, dir, repository, strings.TrimSpace(url) + "/fleet.git"}
	config := fmt.Sprintf("apiVersion: autopolicy.dev/v1alpha1\nkind: Config\nrepository: %s\nauthor: {name: Test, email: test@example.com}\ncollector: {image: %q}\n", f.url, collectorImage)
	if err := os.WriteFile(filepath.Join(dir, "autopolicy.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	f.manifest(t, fmt.Sprintf("apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {name: fleet, namespace: flux-system}\nspec: {interval: 2s, url: %q, ref: {branch: main}}\n", f.url))
	return f
}

// manifest gives the API server a manifest.
func (w *world) manifest(t *testing.T, manifest string) {
	t.Helper()
	cmd := w.command("kubectl", "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("apply %s: %v\n%s", manifest, err, out)
	}
}

// kustomization makes Flux apply a folder.
func (f fluxWorld) kustomization(t *testing.T, name, folder string) {
	t.Helper()
	f.manifest(t, fmt.Sprintf("apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: %s, namespace: flux-system}\nspec: {interval: 10s, retryInterval: 2s, prune: true, path: ./%s, sourceRef: {kind: GitRepository, name: fleet}}\n", name, folder))
}

// applied waits until Flux has applied the head of the repository.
func (f fluxWorld) applied(t *testing.T, name string) {
	t.Helper()
	head := git(t, "-C", f.repository, "rev-parse", "main")
	eventually(t, time.Minute, "Flux to apply "+head, func() bool {
		out, _ := f.command("kubectl", "-n", "flux-system", "get", "kustomization", name, "-o", `jsonpath={.status.lastAppliedRevision} {.status.conditions[?(@.type=="Ready")].status}`).Output()
		return string(out) == "main@sha1:"+head+" True"
	})
}

// status is what the plugin says, as a program reads it.
type status struct {
	Synced struct {
		By, Revision string
		Obstacles    []string
	}
	Drift     []string
	Workloads []struct {
		Workload, Stage string
		Obstacles       []string
		Gates           []struct {
			Gate    string
			Open    bool
			Reasons []string
		}
	}
}

func (f fluxWorld) status(t *testing.T) status {
	t.Helper()
	r := f.plugin(t, f.dir, "status", "-n", "shop", "-o", "json")
	r.wantsCode(t, 0)
	var s status
	if err := json.Unmarshal([]byte(r.out), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// edit changes a file of the repository as a person would, in a clone.
func (f fluxWorld) edit(t *testing.T, message string, files map[string]string) {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "clone")
	git(t, "clone", "-q", f.repository, clone)
	for name, text := range files {
		full := filepath.Join(clone, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(t, "-C", clone, "add", ".")
	git(t, "-C", clone, "-c", "user.name=Colleague", "-c", "user.email=colleague@example.com", "commit", "-q", "-m", message)
	git(t, "-C", clone, "push", "-q", "origin", "HEAD:main")
}

// From audit to deny and back with Flux, which is the only one that changes
// policies in the cluster.
func TestFluxTakesTheShopToDenyAndBack(t *testing.T) {
	w := needCluster(t)
	f := w.flux(t)
	const by = "Flux's Kustomization flux-system/policies"

	restarted := make(chan struct{})
	p := w.start(t, f.dir, "discover", "-n", "shop", "--duration", "45s")
	p.until("observing")
	go func() {
		defer close(restarted)
		w.command("kubectl", "-n", "shop", "rollout", "restart", "deployment,statefulset").Run()
	}()
	p.wait().wantsCode(t, 0)
	<-restarted
	f.kustomization(t, "policies", "autopolicy/shop")
	f.applied(t, "policies")

	t.Run("status shows that audit is synced, and every gate", func(t *testing.T) {
		s := f.status(t)
		if head := git(t, "-C", f.repository, "rev-parse", "main"); s.Synced.By != by || s.Synced.Revision != head || len(s.Synced.Obstacles) > 0 || len(s.Drift) > 0 {
			t.Errorf("synced %+v, drift %q", s.Synced, s.Drift)
		}
		for _, x := range s.Workloads {
			open := map[string]bool{}
			for _, g := range x.Gates {
				open[g.Gate] = g.Open
			}
			if !open["synced"] || open["soak"] || len(open) != 8 {
				t.Errorf("%s: gates %v", x.Workload, open)
			}
		}
	})

	t.Run("an attack stops the promotion, and a promotion that is refused commits nothing", func(t *testing.T) {
		head := git(t, "-C", f.repository, "rev-parse", "main")
		p := w.start(t, f.dir, "promote", "-n", "shop", "--to=deny", "--duration", "20s")
		p.until("observing")
		for range 3 {
			w.attack(t, "id; wget -qO- http://vault.other")
		}
		r := p.wait()
		r.wantsCode(t, 1)
		r.wants(t, "/bin/busybox", "other/deployment-vault", "denied by cilium", "of 24h0m0s, until ", "steady state was never observed")
		if git(t, "-C", f.repository, "rev-parse", "main") != head {
			t.Error("a refused promotion made a commit")
		}
	})

	t.Run("what is changed in the cluster is drift until Flux is back", func(t *testing.T) {
		w.kubectl(t, "-n", "flux-system", "patch", "kustomization", "policies", "--type=merge", "-p", `{"spec":{"suspend":true}}`)
		w.kubectl(t, "-n", "shop", "delete", "ciliumnetworkpolicy", "autopolicy-deployment-web")
		s := f.status(t)
		if text := fmt.Sprint(s.Synced.Obstacles, s.Drift); !strings.Contains(text, "it is suspended") || !strings.Contains(text, "CiliumNetworkPolicy/autopolicy-deployment-web is not in the cluster") {
			t.Errorf("status says %s", text)
		}
		for _, x := range s.Workloads {
			if !strings.Contains(fmt.Sprint(x.Obstacles), "it is suspended") {
				t.Errorf("%s could be promoted: %q", x.Workload, x.Obstacles)
			}
		}
		w.kubectl(t, "-n", "flux-system", "patch", "kustomization", "policies", "--type=merge", "-p", `{"spec":{"suspend":false}}`)
		eventually(t, time.Minute, "Flux to bring the policy back", func() bool {
			return w.command("kubectl", "-n", "shop", "get", "ciliumnetworkpolicy", "autopolicy-deployment-web").Run() == nil
		})
	})

	const file = "autopolicy/shop/rollout.yaml"
	text := git(t, "-C", f.repository, "show", "main:"+file)
	f.edit(t, "Ask for less than a day", map[string]string{file: strings.Replace(text, "  coverage: complete\n", "  coverage: complete\n  seen: [start]\n  soak: 5s\n", 1) + "\n"})

	var audit string
	t.Run("clean traffic promotes, and --wait ends when Flux has applied it", func(t *testing.T) {
		f.applied(t, "policies")
		f.promoteInTheEnd(t)
		audit = git(t, "-C", f.repository, "rev-parse", "main~1:autopolicy/shop")
		if posture := w.kubectl(t, "get", "namespace", "shop", "-o", `jsonpath={.metadata.annotations.kubearmor-file-posture}`); posture != "block" {
			t.Errorf("posture %q after --wait", posture)
		}
		w.kubectl(t, "-n", "shop", "get", "networkpolicy", "autopolicy-deployment-web")
		w.kubectl(t, "-n", "shop", "rollout", "status", "deployment", "--timeout=60s")
	})

	t.Run("a rollback restores the bytes, and Flux applies them", func(t *testing.T) {
		w.plugin(t, f.dir, "rollback", "-n", "shop").wantsCode(t, 0)
		if back := git(t, "-C", f.repository, "rev-parse", "main:autopolicy/shop"); back != audit {
			t.Error("the rollback did not restore the folder")
		}
		f.applied(t, "policies")
		if posture := w.kubectl(t, "get", "namespace", "shop", "-o", `jsonpath={.metadata.annotations.kubearmor-file-posture}`); posture != "audit" {
			t.Errorf("posture %q after the rollback", posture)
		}
		if w.command("kubectl", "-n", "shop", "get", "networkpolicy", "autopolicy-deployment-web").Run() == nil {
			t.Error("a NetworkPolicy stays behind")
		}
		if s := f.status(t); len(s.Drift) > 0 {
			t.Errorf("drift %q", s.Drift)
		}
	})

	t.Run("without the overlay the namespace and its workloads stand", func(t *testing.T) {
		f.edit(t, "Remove the overlay", map[string]string{"autopolicy/shop/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n"})
		f.applied(t, "policies")
		if left := w.kubectl(t, "-n", "shop", "get", "ciliumnetworkpolicies,kubearmorpolicies", "-o", "name"); left != "" {
			t.Errorf("policies stay:\n%s", left)
		}
		w.kubectl(t, "-n", "shop", "rollout", "status", "deployment", "--timeout=60s")
	})
}

// promoteInTheEnd promotes as a pipeline would: not yet is no error.
func (f fluxWorld) promoteInTheEnd(t *testing.T) {
	t.Helper()
	for range 4 {
		r := f.plugin(t, f.dir, "promote", "-n", "shop", "--to=deny", "--duration", "20s", "--wait=2m")
		switch r.code {
		case 0:
			r.wants(t, "synced: the cluster runs deny")
			return
		case 1:
			f.plugin(t, f.dir, "discover", "-n", "shop", "--duration", "10s").wantsCode(t, 0)
			f.applied(t, "policies")
		default:
			t.Fatalf("promote: exit code %d", r.code)
		}
	}
	t.Fatal("four promotions on clean traffic were refused")
}

// What a namespace's owner set on it stands, whoever made the namespace, while the
// overlay is applied, when it is removed from git, and when the Kustomization is.
func TestFluxLeavesANamespaceToItsOwner(t *testing.T) {
	w := needCluster(t)
	f := w.flux(t)
	const labels = "pod-security.kubernetes.io/enforce=baseline"
	for name, make := range map[string]func(){
		"made-by-create": func() {
			w.kubectl(t, "create", "namespace", "made-by-create")
			w.kubectl(t, "label", "namespace", "made-by-create", labels)
			w.kubectl(t, "annotate", "namespace", "made-by-create", "owner=team")
		},
		"made-by-apply": func() {
			w.manifest(t, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: made-by-apply\n  labels: {pod-security.kubernetes.io/enforce: baseline}\n  annotations: {owner: team}\n")
		},
	} {
		make()
		t.Cleanup(func() { w.kubectl(t, "delete", "namespace", name, "--wait=false") })
		w.kubectl(t, "-n", name, "create", "configmap", "of-the-owner")
		audit, err := overlay.Namespace(nil, name, overlay.PostureAudit)
		if err != nil {
			t.Fatal(err)
		}
		folder := "autopolicy/" + name
		f.edit(t, "Apply", map[string]string{folder + "/namespace.yaml": string(audit), folder + "/kustomization.yaml": "resources: [namespace.yaml]\n"})
		f.kustomization(t, name, folder)
		stands := func(when, posture string) {
			t.Helper()
			got := w.kubectl(t, "get", "namespace", name, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce} {.metadata.annotations.owner} {.metadata.annotations.kubearmor-file-posture} {.status.phase}`)
			if want := "baseline team " + posture + " Active"; got != want {
				t.Errorf("%s, %s: %q, want %q", name, when, got, want)
			}
			w.kubectl(t, "-n", name, "get", "configmap", "of-the-owner")
		}
		f.applied(t, name)
		stands("applied", "audit")
		f.edit(t, "Remove", map[string]string{folder + "/kustomization.yaml": "resources: []\n"})
		f.applied(t, name)
		stands("removed from git", "audit")
		w.kubectl(t, "-n", "flux-system", "delete", "kustomization", name, "--wait", "--timeout=60s")
		stands("its Kustomization deleted", "audit")
	}
}
