package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// apply hands manifests to kubectl, and takes them away when the test ends.
func (w *world) apply(t *testing.T, manifests string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(file, []byte(manifests), 0o644); err != nil {
		t.Fatal(err)
	}
	w.kubectl(t, "apply", "-f", file)
	t.Cleanup(func() {
		if out, err := w.command("kubectl", "delete", "--ignore-not-found", "-f", file).CombinedOutput(); err != nil {
			t.Errorf("clean up: %v\n%s", err, out)
		}
	})
}

// userConfig writes a kubeconfig for a service account of namespace default.
func (w *world) userConfig(t *testing.T, account string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(w.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for name, user := range config.AuthInfos {
		*user = *user.DeepCopy()
		user.ClientCertificate, user.ClientKey, user.ClientCertificateData, user.ClientKeyData = "", "", nil, nil
		user.Token = strings.TrimSpace(w.kubectl(t, "-n", "default", "create", "token", account))
		config.AuthInfos[name] = user
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAUserWithoutPermissionIsToldWhichRuleIsMissing(t *testing.T) {
	w := needCluster(t)
	w.apply(t, `apiVersion: v1
kind: ServiceAccount
metadata: {name: nobody, namespace: default}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: viewer, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-viewer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: viewer, namespace: default}]
`)
	for _, c := range []struct {
		name, account string
		wants, not    []string
	}{
		{
			"a user who may do nothing", "nobody",
			[]string{"not permitted to", "get, create, delete namespaces in the whole cluster", "list, get, watch pods in the whole cluster", `resources: ["pods"]`},
			nil,
		},
		{
			"a user who may only view", "viewer",
			[]string{"to create, delete namespaces in the whole cluster", "create, patch, delete clusterroles.rbac.authorization.k8s.io in the whole cluster", "create pods/portforward in namespace autopolicy-collector"},
			[]string{" pods in", `resources: ["pods"]`},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, repository := w.workspace(t)
			before := w.trace(t)
			r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "5s", "--kubeconfig", w.userConfig(t, c.account))
			r.wantsCode(t, 2)
			r.wants(t, append(c.wants, "hint: ", "ClusterRole", "bound by a ClusterRoleBinding:",
				"- apiGroups: [\"rbac.authorization.k8s.io\"]\n  resources: [\"clusterroles\"]\n  verbs: [")...)
			for _, text := range c.not {
				if strings.Contains(r.errOut, text) {
					t.Errorf("the plugin asks for %q, which the user has", text)
				}
			}
			if strings.Contains(r.errOut, "deploying") || addedLines(before, w.trace(t)) != "" || commits(t, repository) > 0 {
				t.Error("something was done although the user may not")
			}
		})
	}
}

func TestANamespaceThatHoldsNothingIsNotObserved(t *testing.T) {
	w := needCluster(t)
	w.apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: bare}\n")
	before := w.trace(t)
	for _, c := range []struct{ name, namespace, want string }{
		{"a namespace without pods", "bare", "namespace bare: namespace has no pods"},
		{"a namespace that does not exist", "shpo", "namespace shpo: namespace does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, _ := w.workspace(t)
			r := w.plugin(t, dir, "discover", "-n", c.namespace, "--duration", "5s")
			r.wantsCode(t, 2)
			r.wants(t, c.want, "hint: ")
			if strings.Contains(r.errOut, "deploying") || addedLines(before, w.trace(t)) != "" {
				t.Error("something was deployed")
			}
		})
	}
}

func TestACollectorThatCannotStartIsExplainedAndRemoved(t *testing.T) {
	w := needCluster(t)
	t.Run("an image that no node can pull", func(t *testing.T) {
		dir, _ := w.workspace(t)
		before := w.trace(t)
		r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "5s", "--collector-wait", "30s", "--collector-image", "localhost/nosuch:1")
		r.wantsCode(t, 2)
		r.wants(t, "no node has a collector that works", "node0", "node1", "localhost/nosuch:1", "hint: ", "--collector-image", "collector removed")
		w.nothingLeft(t, before)
	})
	t.Run("a cluster that refuses pods with host processes", func(t *testing.T) {
		w.apply(t, denyHostProcesses)
		// The policy is in force a moment after it was made.
		eventually(t, time.Minute, "the policy to be in force", func() bool {
			out, err := w.command("kubectl", "-n", "bare-metal", "run", "probe", "--image=x", `--overrides={"spec":{"hostPID":true}}`, "--dry-run=server").CombinedOutput()
			return err != nil && strings.Contains(string(out), "no host processes here")
		})
		dir, _ := w.workspace(t)
		before := w.trace(t)
		r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "5s", "--collector-wait", "30s")
		r.wantsCode(t, 2)
		r.wants(t, "refused: ", "no host processes here", "hint: the collector needs pods with host processes and capabilities", "collector removed")
		w.nothingLeft(t, before)
	})
}

// denyHostProcesses is what a careful cluster has.
const denyHostProcesses = `apiVersion: v1
kind: Namespace
metadata: {name: bare-metal}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: e2e-no-host-processes}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}
  validations:
  - expression: "!has(object.spec.hostPID) || !object.spec.hostPID"
    message: no host processes here
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: e2e-no-host-processes}
spec: {policyName: e2e-no-host-processes, validationActions: [Deny]}
`
