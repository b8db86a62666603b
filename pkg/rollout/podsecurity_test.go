package rollout_test

import (
	"errors"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// specified gives profiles what is known of their pods beside facts.
func specified(p behavior.Profile, change func(*behavior.PodSpec)) behavior.Profile {
	p.Coverage = behavior.MergeCoverage(p.Coverage, behavior.Coverage{})
	p.Coverage.Hooks = map[behavior.Kind][]string{behavior.File: {"fentry"}, behavior.Capability: {"tracepoint"}, behavior.Syscall: {"tracepoint"}}
	p.Coverage.Mounts = map[string]behavior.Mount{"/dev": {Kind: "tmpfs"}}
	spec := behavior.PodSpec{Containers: []behavior.ContainerSpec{{Name: p.Subject.Container}}}
	if change != nil {
		change(&spec)
	}
	p.Coverage.Spec = &behavior.SeenSpec{Made: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Pod: spec}
	return p
}

func hardInput(t overlay.Tree, list ...behavior.Profile) rollout.Input {
	in := input(t, list...)
	in.Engines = []engine.Engine{podsecurity.Engine{}, seccomp.Engine{}}
	return in
}

// applied builds an application's own kustomization with the Component.
func applied(t *testing.T, tree overlay.Tree) string {
	t.Helper()
	fsys := filesys.MakeFsInMemory()
	files := map[string][]byte{
		"/app/kustomization.yaml": []byte("namespace: shop\nnamePrefix: prod-\nresources: [all.yaml]\ncomponents: [../autopolicy/shop/components/hardening]\n"),
		"/app/all.yaml": []byte(`apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      containers:
      - {name: web, image: "web:1", volumeMounts: [{name: data, mountPath: /data}]}
      - {name: side, image: "side:1"}
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: webx}
spec: {template: {spec: {containers: [{name: web, image: "x:1"}]}}}
`),
	}
	for p, data := range tree {
		files[path.Join("/autopolicy/shop", p)] = data
	}
	for p, data := range files {
		if err := fsys.WriteFile(p, data); err != nil {
			t.Fatal(err)
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fsys, "/app")
	if err != nil {
		t.Fatal(err)
	}
	data, err := built.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A workload is hardened in its own manifest from deny on, and not before; its
// namespace's labels follow when all are there.
func TestTheComponentFollowsTheStages(t *testing.T) {
	w, a := shopProfiles()
	web, api := specified(w, nil), specified(a, nil)
	plan, err := rollout.Discover(hardInput(nil, web, api), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	audit := overlay.Tree{}.With(plan.Files)
	built := applied(t, audit)
	for text, want := range map[string]bool{"readOnlyRootFilesystem": false, "pod-security.kubernetes.io/warn: baseline": true,
		"pod-security.kubernetes.io/enforce": false, "team: a": true} {
		if strings.Contains(built, text) != want {
			t.Errorf("in stage audit %q is there: %t\n%s", text, !want, built)
		}
	}
	objects, err := overlay.Build(audit)
	if err != nil {
		t.Fatal(err)
	}
	actions := func(objects []engine.Object) (list []string) {
		for _, o := range objects {
			if o.Kind == "ValidatingAdmissionPolicyBinding" {
				_, after, _ := strings.Cut(string(o.JSON), `"validationActions":`)
				list = append(list, o.Name+after)
			}
		}
		return list
	}
	if got := actions(objects); !slices.Equal(got, []string{`autopolicy-shop-deployment-api["Audit","Warn"]}}`, `autopolicy-shop-deployment-web["Audit","Warn"]}}`}) {
		t.Errorf("in stage audit the bindings do %q", got)
	}

	plan, _, err = rollout.Promote(hardInput(audit, web, api), rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-web"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"components/hardening/kustomization.yaml", "kustomization.yaml", "rollout.yaml"}
	if got := slices.Sorted(maps.Keys(plan.Files)); !slices.Equal(got, want) {
		t.Errorf("a promotion changes %q", got)
	}
	one := audit.With(plan.Files)
	built = applied(t, one)
	if strings.Count(built, "readOnlyRootFilesystem: true") != 1 || !strings.Contains(built, "name: prod-webx") || strings.Contains(built, "/enforce") ||
		strings.Count(built, "image: ") != 3 || !strings.Contains(built, "mountPath: /data") {
		t.Errorf("with web in deny:\n%s", built)
	}
	if objects, err = overlay.Build(one); err != nil {
		t.Fatal(err)
	}
	if got := actions(objects); !slices.Equal(got, []string{`autopolicy-shop-deployment-api["Audit","Warn"]}}`, `autopolicy-shop-deployment-web["Deny"]}}`}) {
		t.Errorf("with web in deny the bindings do %q", got)
	}
	plan, _, err = rollout.Promote(hardInput(one, web, api), rollout.PromoteOptions{To: policy.Deny})
	if err != nil {
		t.Fatal(err)
	}
	all := one.With(plan.Files)
	if built = applied(t, all); !strings.Contains(built, "pod-security.kubernetes.io/enforce: baseline") {
		t.Errorf("with all in deny:\n%s", built)
	}
	if plan, err = rollout.Rollback(hardInput(all), history(audit, all)); err != nil {
		t.Fatal(err)
	}
	if back := all.With(plan.Files); string(back["components/hardening/kustomization.yaml"]) != string(audit["components/hardening/kustomization.yaml"]) {
		t.Errorf("rolled back: %s", back["components/hardening/kustomization.yaml"])
	}
}

// What the container does to files that become read-only, and pods that changed
// since, keep the gate shut.
func TestTheGateHoldsPodsAndFactsAgainstTheHardening(t *testing.T) {
	w, _ := shopProfiles()
	web := specified(w, nil)
	plan, err := rollout.Discover(hardInput(nil, web), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree := overlay.Tree{}.With(plan.Files)
	writes := specified(profile("web", behavior.Fact{Kind: behavior.File, Exe: "/usr/bin/web", Path: "/srv/x", Access: behavior.Write | behavior.Create}), nil)
	wider := specified(w, func(s *behavior.PodSpec) { s.HostPID = true })
	for name, tt := range map[string]struct {
		fresh behavior.Profile
		says  string
	}{
		"a write to the root file system": {writes, "the root file system is read-only"},
		"pods that share the node's ids":  {wider, "its new pods would be refused by podsecurity"},
	} {
		_, verdicts, err := rollout.Promote(hardInput(tree, tt.fresh), rollout.PromoteOptions{To: policy.Deny})
		var notYet *rollout.NotYetError
		if !errors.As(err, &notYet) {
			t.Fatalf("%s: %v", name, err)
		}
		said := strings.Join(notYet.Reasons, "\n")
		for _, v := range verdicts.Violations {
			said += "\n" + v.String()
		}
		if !strings.Contains(said, tt.says) {
			t.Errorf("%s: %s", name, said)
		}
		statuses, err := rollout.Statuses(hardInput(tree, tt.fresh), nil)
		if err != nil || len(statuses) != 1 || !strings.Contains(strings.Join(statuses[0].Obstacles, "\n"), tt.says) {
			t.Errorf("%s: status says %+v, %v", name, statuses, err)
		}
	}
}

// A pod template that changed is learned, though no rule does; the time at which
// it was seen changes nothing.
func TestAnotherSpecificationIsLearned(t *testing.T) {
	w, _ := shopProfiles()
	plan, err := rollout.Discover(hardInput(nil, specified(w, nil)), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tree := overlay.Tree{}.With(plan.Files)
	later := specified(w, nil)
	later.Coverage.Spec = &behavior.SeenSpec{Made: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Pod: later.Coverage.Spec.Pod}
	if plan, err = rollout.Discover(hardInput(tree, later), rollout.DiscoverOptions{}); err != nil || !plan.Empty() {
		t.Errorf("the same pods, later: %v, %q", err, slices.Sorted(maps.Keys(plan.Files)))
	}
	later.Coverage.Spec.Pod.HostPID = true
	if plan, err = rollout.Discover(hardInput(tree, later), rollout.DiscoverOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := string(plan.Files["workloads/deployment-web/base/podsecurity.yaml"]); !strings.Contains(got, `["hostPID"]`) {
		t.Errorf("other pods: %s", got)
	}
}

func TestAPatchThatAPersonEditedIsKept(t *testing.T) {
	w, _ := shopProfiles()
	plan, err := rollout.Discover(hardInput(nil, specified(w, nil)), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	file := overlay.ComponentFile("deployment-web", policy.Deny)
	edited := append(slices.Clone(plan.Files[file]), "# mine\n"...)
	tree := overlay.Tree{}.With(plan.Files).With(map[string][]byte{file: edited})
	more := specified(profile("web", behavior.Fact{Kind: behavior.Capability, Exe: "/usr/bin/web", Name: "CHOWN"}), nil)
	if plan, err = rollout.Discover(hardInput(tree, more), rollout.DiscoverOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, changed := plan.Files[file]; changed || plan.Empty() {
		t.Errorf("files changed: %q", slices.Sorted(maps.Keys(plan.Files)))
	}
	broken := tree.With(map[string][]byte{file: []byte("kind: [Deployment\n")})
	var invalid *overlay.InvalidError
	if _, _, err = rollout.Promote(hardInput(broken, specified(w, nil)), rollout.PromoteOptions{To: policy.Deny}); !errors.As(err, &invalid) || invalid.File != file {
		t.Errorf("a patch that is no YAML: %v", err)
	}
}

// What lies in the Component is a workload's own as well, and no drift of its folder.
func TestTheComponentIsNoDriftUntilSomebodyEditsIt(t *testing.T) {
	plan, err := rollout.Discover(hardInput(nil, specified(profile("web"), nil)), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const patch = "components/hardening/deployment-web/deny.yaml"
	if plan.Files[patch] == nil {
		t.Fatalf("no %s", patch)
	}
	tree := overlay.Tree{}.With(plan.Files)
	if drift, err := rollout.Drift(hardInput(tree)); err != nil || len(drift) > 0 {
		t.Errorf("drift of nothing: %q, %v", drift, err)
	}
	drift, err := rollout.Drift(hardInput(tree.With(map[string][]byte{patch: []byte("# mine\n")})))
	if err != nil || len(drift) != 1 || drift[0] != patch+" was edited in git by hand" {
		t.Errorf("drift %q, %v", drift, err)
	}
}
