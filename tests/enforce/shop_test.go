package enforce

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// attempt is a connection that nobody of the shop ever makes.
type attempt struct{ from, to, port, why string }

func (a attempt) String() string { return fmt.Sprintf("%s to %s:%s (%s)", a.from, a.to, a.port, a.why) }

// attempts are from pods of the shop, or of the vault's namespace when from is
// "vault". Addresses are looked up with kubectl: a name that does not resolve would
// prove nothing.
func (w *world) attempts(t *testing.T) []attempt {
	t.Helper()
	ip := func(namespace, app string) string {
		return w.must(t, "", "kubectl", "-n", namespace, "get", "pods", "-l", "app="+app, "-o", "jsonpath={.items[0].status.podIP}")
	}
	service := func(namespace, name string) string {
		return w.must(t, "", "kubectl", "-n", namespace, "get", "service", name, "-o", "jsonpath={.spec.clusterIP}")
	}
	node := w.must(t, "", "kubectl", "get", "node", "node0", "-o", "jsonpath={.status.addresses[0].address}")
	web, api, store, vault := ip("shop", "web"), ip("shop", "api"), ip("shop", "store"), ip("other", "vault")
	return []attempt{
		{"web", vault, "8200", "another namespace"},
		{"api", vault, "8200", "another namespace"},
		{"store", vault, "8200", "another namespace"},
		{"traffic", vault, "8200", "another namespace"},
		{"web", service("other", "vault"), "80", "another namespace's Service"},
		{"web", "169.254.169.254", "80", "the metadata address"},
		{"api", "169.254.169.254", "80", "the metadata address"},
		{"web", "198.51.100.7", "80", "outside"},
		{"store", "198.51.100.7", "8443", "outside"},
		{"web", api, "9091", "a wrong port"},
		{"api", store, "7001", "a wrong port"},
		{"traffic", web, "22", "a wrong port"},
		{"web", store, "7000", "past the API"},
		{"traffic", store, "7000", "past the API"},
		{"traffic", api, "9090", "past the web server"},
		{"api", web, "8080", "the wrong direction"},
		{"store", api, "9090", "the wrong direction"},
		{"store", web, "8080", "the wrong direction"},
		{"web", node, "6443", "a node's port"},
		{"vault", store, "7000", "from another namespace"},
		{"vault", web, "8080", "from another namespace"},
	}
}

// tries makes the connection and tells whether somebody answered.
func (w *world) tries(t *testing.T, a attempt) bool {
	t.Helper()
	namespace, workload := "shop", "deployment/"+a.from
	switch a.from {
	case "vault":
		namespace = "other"
	case "store":
		workload = "statefulset/store"
	}
	// Busybox's wget would do, but cannot be told how long to wait.
	c := w.command("kubectl", "-n", namespace, "exec", workload, "--", "sh", "-c", "nc -w 3 "+a.to+" "+a.port+" < /dev/null 2>&1; echo status $?")
	out, err := c.CombinedOutput()
	switch text := string(out); {
	case err == nil && strings.HasSuffix(text, "status 0\n"), strings.Contains(text, "refused"):
		return true
	case err == nil && (strings.Contains(text, "timed out") || strings.Contains(text, "unreachable")):
		return false
	}
	t.Fatalf("exec in %s: %v\n%s", workload, err, out)
	return false
}

func TestCiliumEnforcesWhatWasLearned(t *testing.T) {
	for _, engine := range []string{"cilium", "networkpolicy"} {
		t.Run("as policies of "+engine, func(t *testing.T) { w := needCilium(t); w.enforce(t, engine) })
	}
}

func (w *world) enforce(t *testing.T, engine string) {
	dir := t.TempDir()
	repository := filepath.Join(dir, "fleet.git")
	w.must(t, dir, "git", "init", "-q", "--bare", "-b", "main", repository)
	config := fmt.Sprintf("apiVersion: autopolicy.dev/v1alpha1\nkind: Config\nrepository: file://%s\nauthor: {name: Test, email: test@example.com}\ncollector: {image: %q}\nengines: [%s]\n",
		repository, collectorImage, engine)
	if err := os.WriteFile(filepath.Join(dir, "autopolicy.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Log(w.must(t, dir, "kubectl-autopolicy", "discover", "-n", "shop", "--duration", "40s", "--restart", "--yes"))
	checkout := filepath.Join(dir, "checkout")
	w.must(t, dir, "git", "clone", "-q", repository, checkout)
	apply := func() {
		w.must(t, checkout, "git", "pull", "-q")
		w.must(t, checkout, "kubectl", "apply", "-k", "autopolicy/shop")
	}
	t.Cleanup(func() {
		w.must(t, "", "kubectl", "-n", "shop", "delete", "ciliumnetworkpolicies,networkpolicies", "--all")
	})
	attempts := w.attempts(t)
	if !w.tries(t, attempts[0]) {
		t.Fatal("nothing is enforced yet, and the vault is not reached: the test would see no difference")
	}
	if engine == "cilium" { // NetworkPolicies know no audit, and are not applied there
		apply()
	}

	since := time.Now()
	time.Sleep(10 * time.Second) // for a policy to take effect and for the shop to trade under it
	if !w.tries(t, attempts[0]) {
		t.Error("in audit, a connection was denied")
	}
	if drops := w.drops(t, since); len(drops) > 0 {
		t.Errorf("in audit, policies dropped %d flows:\n%s", len(drops), strings.Join(drops, "\n"))
	}

	t.Log(w.must(t, dir, "kubectl-autopolicy", "promote", "-n", "shop", "--to=deny", "--duration", "15s", "--force", "the test looks for itself"))
	apply()
	eventually(t, 3*time.Minute, "the vault to be out of reach", func() bool { return !w.tries(t, attempts[0]) })

	t.Run("the shop goes on through restarts, more replicas and a node that is cordoned", func(t *testing.T) {
		since := time.Now().Add(5 * time.Second)
		w.must(t, "", "kubectl", "-n", "shop", "rollout", "restart", "deployment,statefulset")
		w.must(t, "", "kubectl", "-n", "shop", "scale", "deployment/web", "--replicas=3")
		w.must(t, "", "kubectl", "cordon", "node1")
		t.Cleanup(func() {
			w.must(t, "", "kubectl", "uncordon", "node1")
			w.must(t, "", "kubectl", "-n", "shop", "scale", "deployment/web", "--replicas=2")
		})
		for _, workload := range []string{"deployment/web", "deployment/api", "deployment/traffic", "statefulset/store"} {
			w.must(t, "", "kubectl", "-n", "shop", "rollout", "status", workload, "--timeout=120s")
		}
		deadline := time.Now().Add(tradeFor(t))
		for time.Now().Before(deadline) {
			time.Sleep(10 * time.Second)
			if out := w.must(t, "", "kubectl", "-n", "shop", "logs", "deployment/traffic", "--since=8s"); strings.TrimSpace(out) != "" {
				t.Errorf("the customer is not served: %s", out)
			}
		}
		if drops := w.drops(t, since); len(drops) > 0 {
			t.Errorf("policies dropped %d flows of the shop:\n%s", len(drops), strings.Join(drops, "\n"))
		}
	})

	t.Run("what it never did is dropped, and Hubble says so", func(t *testing.T) {
		for _, a := range w.attempts(t) {
			since := time.Now().Add(-time.Second)
			if w.tries(t, a) {
				t.Errorf("%s was answered", a)
				continue
			}
			all := w.flows(t, since)
			denied := 0
			for _, f := range all {
				if f.Verdict == "DROPPED" && strings.HasPrefix(f.Source.PodName, a.from) && f.DropReasonDesc == "POLICY_DENIED" {
					denied++
				}
			}
			if denied == 0 {
				t.Errorf("%s: Hubble shows no denial among %d flows", a, len(all))
			}
		}
	})
}

// tradeFor is how long the shop trades under deny; AUTOPOLICY_ENFORCE_FOR says
// otherwise.
func tradeFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("AUTOPOLICY_ENFORCE_FOR")
	if text == "" {
		return 30 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
