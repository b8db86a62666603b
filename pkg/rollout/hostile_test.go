package rollout_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func TestEditedTreesThatCannotBeUsed(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	line := func(file, from, to string) map[string][]byte {
		return map[string][]byte{file: bytes.Replace(tree[file], []byte(from), []byte(to), 1)}
	}
	for _, c := range []struct {
		name string
		edit map[string][]byte
		want string
	}{
		{"a stage that only one file knows of", line("kustomization.yaml", "web/audit", "web/deny"), "workload deployment-web: kustomization.yaml applies stage deny, rollout.yaml says audit"},
		{"a line that was taken away", line("kustomization.yaml", "- workloads/deployment-web/audit\n", ""), "kustomization.yaml applies stage observe, rollout.yaml says audit"},
		{"a workload that nobody recorded", map[string][]byte{"rollout.yaml": nil}, "kustomization.yaml applies stage audit, rollout.yaml says observe"},
		{"another version of rollout.yaml", line("rollout.yaml", "v1alpha1", "v9"), "rollout.yaml: is"},
		{"a field that is none", line("rollout.yaml", "gate:", "gates: {}\ngate:"), "rollout.yaml:8: unknown field gates"},
		{"a gate that is none", line("rollout.yaml", "coverage: complete", "coverage: maybe"), `rollout.yaml: gate.coverage is "maybe"`},
		{"a record of another namespace", line("rollout.yaml", "namespace: shop", "namespace: bank"), `rollout.yaml: is about namespace "bank"`},
		{"evidence of another workload", line("workloads/deployment-web/evidence.yaml", `"name":"web"`, `"name":"api"`), "workloads/deployment-web/evidence.yaml: is about deployment/api"},
		{"evidence that is broken", line("workloads/deployment-web/evidence.yaml", "facts:", "facts: ["), "workloads/deployment-web/evidence.yaml: decode profiles"},
		{"a remote base", line("kustomization.yaml", "resources:", "resources:\n- https://example.com/x"), "kustomization.yaml:4: remote resource"},
		{"a policy that its engine refuses", line("workloads/deployment-web/base/cilium.yaml", "allow:", "allow:\n  - invalid"), "read policies as cilium does: CiliumNetworkPolicy/autopolicy-deployment-web: it says so"},
	} {
		t.Run(c.name+" stops everything with a typed error", func(t *testing.T) {
			broken := tree.With(c.edit)
			_, err := rollout.Discover(input(broken, profile("web", reads("/x", "/y"))), rollout.DiscoverOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("discover gives %v", err)
			}
			if strings.HasPrefix(c.name, "evidence") {
				return // which a promotion does not read
			}
			_, _, err = rollout.Promote(input(broken, profile("web")), rollout.PromoteOptions{To: policy.Deny, Force: "yes"})
			var notYet *rollout.NotYetError
			if err == nil || errors.As(err, &notYet) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("promote gives %v", err)
			}
		})
	}
}

// A tree may hold anything: it ends in a plan or an error, and never in a panic.
func FuzzDiscover(f *testing.F) {
	data, err := os.ReadFile("testdata/one-of-two-is-promoted/want/rollout.yaml")
	if err != nil {
		f.Fatal(err)
	}
	kustomization, err := os.ReadFile("testdata/one-of-two-is-promoted/want/kustomization.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data, kustomization, []byte(nil))
	f.Add([]byte("kind: Rollout\n"), []byte("resources: []\n"), []byte("kind: Namespace\n"))
	f.Fuzz(func(t *testing.T, record, kustomization, namespace []byte) {
		tree := overlay.Tree{"rollout.yaml": record, "kustomization.yaml": kustomization, "namespace.yaml": namespace}
		plan, err := rollout.Discover(input(tree, profile("web")), rollout.DiscoverOptions{})
		if err == nil && !plan.Empty() {
			if err := overlay.Check(tree.With(plan.Files)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
