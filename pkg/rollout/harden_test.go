package rollout_test

import (
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/harden"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// hardened is the shop with all built-in templates that fit.
func hardened(t *testing.T) (overlay.Tree, []rollout.Hardening) {
	t.Helper()
	templates, err := harden.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	web, api := shopProfiles()
	plan, err := rollout.Discover(realInput(nil, web, api), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree := overlay.Tree(nil).With(plan.Files)
	plan, all, err := rollout.Harden(realInput(tree), rollout.HardenOptions{Templates: templates})
	if err != nil {
		t.Fatal(err)
	}
	return tree.With(plan.Files), all
}

// actions counts the hardening policies that a tree builds to, by their action.
func actions(t *testing.T, tree overlay.Tree) map[string]int {
	t.Helper()
	objects, err := overlay.Build(tree)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, o := range objects {
		if strings.Contains(string(o.JSON), `"autopolicy.dev/hardening":"block"`) {
			switch {
			case strings.Contains(string(o.JSON), `"action":"Block"`):
				count["Block"]++
			case strings.Contains(string(o.JSON), `"action":"Audit"`):
				count["Audit"]++
			}
		}
	}
	return count
}

func TestHardeningReportsInAuditAndBlocksInDeny(t *testing.T) {
	tree, all := hardened(t)
	applied := 0
	for _, h := range all {
		for _, r := range h.Results {
			if r.Outcome == harden.Applies && r.Template.Actions()[0] == "Block" {
				applied++
			}
		}
	}
	if n := actions(t, tree); n["Block"] != 0 || n["Audit"] != applied || applied < 10 {
		t.Errorf("in audit, of %d: %v", applied, n)
	}
	web, api := shopProfiles()
	plan, _, err := rollout.Promote(realInput(tree, web, api), rollout.PromoteOptions{To: policy.Deny})
	if err != nil {
		t.Fatal(err)
	}
	if n := actions(t, tree.With(plan.Files)); n["Audit"] != 0 || n["Block"] != applied {
		t.Errorf("in deny, of %d: %v", applied, n)
	}
}

func TestLearningKeepsTheHardening(t *testing.T) {
	tree, _ := hardened(t)
	const file = "workloads/deployment-web/base/hardening.yaml"
	web, api := shopProfiles()
	web.Add(behavior.Fact{Kind: behavior.File, Exe: "/usr/sbin/nginx", Path: "/etc/nginx/new.conf", Access: behavior.Read},
		behavior.Evidence{Pods: map[string]uint64{"web-1": 1}})
	for name, edited := range map[string]string{"as it was made": "", "as a person edited it": "# mine\n"} {
		t.Run(name, func(t *testing.T) {
			before := tree.With(map[string][]byte{file: append([]byte(edited), tree[file]...)})
			plan, err := rollout.Discover(realInput(before, web, api), rollout.DiscoverOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if plan.Empty() {
				t.Fatal("nothing was learned")
			}
			after := before.With(plan.Files)
			if string(after[file]) != string(before[file]) || !strings.Contains(string(after["workloads/deployment-web/base/kustomization.yaml"]), "- hardening.yaml\n") {
				t.Error("the hardening is gone")
			}
			if err := overlay.Check(after); err != nil {
				t.Error(err)
			}
			again, _, err := rollout.Harden(realInput(after), rollout.HardenOptions{Remove: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := after.With(again.Files)[file]; ok != (edited != "") {
				t.Errorf("removed: %v", !ok)
			}
		})
	}
}
