package rollout_test

import (
	"bytes"
	"errors"
	"flag"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

var update = flag.Bool("update", false, "write the golden trees anew")

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func learnRules(p []behavior.Profile, d policy.Decided) (policy.Set, error) {
	return learn.Rules(p, learn.Options{Decided: d})
}

func learnEntered(p []behavior.Profile, d policy.Decided) (policy.Set, error) {
	return learn.Rules(p, learn.Options{Entered: true, Decided: d})
}

// subject is the one container of a deployment in the shop.
func subject(name string) behavior.Subject {
	return behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: name}, Container: name}
}

func reads(exe, path string) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: behavior.Read}
}

// profile is what a small service does, and what more a test has it do.
func profile(name string, more ...behavior.Fact) behavior.Profile {
	exe := "/usr/bin/" + name
	p := behavior.Profile{Subject: subject(name), Labels: "app=" + name, Coverage: behavior.Coverage{
		Replicas: 1, Pods: map[string]behavior.PodCoverage{name + "-1": {Node: "node-1", Image: name + "@sha256:1", From: noon, To: noon.Add(time.Minute), Start: true}},
	}}
	peer := behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.10")}
	facts := []behavior.Fact{
		{Kind: behavior.Process, Path: exe},
		{Kind: behavior.Process, Exe: "/usr/bin/runtime", Path: "/usr/bin/probe", Runtime: true},
		reads(exe, "/etc/"+name+".conf"),
		{Kind: behavior.Network, Exe: exe, Direction: behavior.Egress, Protocol: "tcp", Port: 443, Peer: peer},
		{Kind: behavior.Syscall, Name: "openat", Arch: "amd64"},
	}
	for _, f := range append(facts, more...) {
		p.Add(f, behavior.Evidence{First: noon, Last: noon.Add(time.Minute), Pods: map[string]uint64{name + "-1": 3}})
	}
	return p
}

func profiles(list ...behavior.Profile) behavior.Profiles {
	ps := behavior.Profiles{}
	for _, p := range list {
		ps.Add(p)
	}
	return ps
}

func input(t overlay.Tree, list ...behavior.Profile) rollout.Input {
	return rollout.Input{Namespace: "shop", Tree: t, Fresh: profiles(list...), Engines: listEngines(), Learn: learnRules,
		Now: noon.Add(time.Hour), By: "Jane Doe <jane@example.com>"}
}

func discover(t *testing.T, tree overlay.Tree, list ...behavior.Profile) overlay.Tree {
	t.Helper()
	plan, err := rollout.Discover(input(tree, list...), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tree.With(plan.Files)
}

func promote(t *testing.T, in rollout.Input, slugs ...string) overlay.Tree {
	t.Helper()
	plan, _, err := rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny, Workloads: slugs})
	if err != nil {
		t.Fatal(err)
	}
	return in.Tree.With(plan.Files)
}

// history gives versions newest first.
func history(list ...overlay.Tree) iter.Seq2[rollout.Version, error] {
	return func(yield func(rollout.Version, error) bool) {
		for i, t := range slices.Backward(list) {
			if !yield(rollout.Version{Revision: "rev-" + string(rune('a'+i)), Tree: t}, nil) {
				return
			}
		}
	}
}

func mustEqual(t *testing.T, got, want overlay.Tree) {
	t.Helper()
	for _, p := range want.Paths() {
		if !bytes.Equal(got[p], want[p]) {
			t.Errorf("%s is\n%s\nwant\n%s", p, got[p], want[p])
		}
	}
	for _, p := range got.Paths() {
		if _, ok := want[p]; !ok {
			t.Errorf("%s is there and should not be", p)
		}
	}
}

// TestGolden runs the steps of each case and compares the tree and the messages.
func TestGolden(t *testing.T) {
	type step func(*testing.T, overlay.Tree) rollout.Plan
	learned := func(list ...behavior.Profile) step {
		return func(t *testing.T, tree overlay.Tree) rollout.Plan {
			plan, err := rollout.Discover(input(tree, list...), rollout.DiscoverOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return plan
		}
	}
	promoted := func(force string, slugs []string, list ...behavior.Profile) step {
		return func(t *testing.T, tree overlay.Tree) rollout.Plan {
			plan, _, err := rollout.Promote(input(tree, list...), rollout.PromoteOptions{To: policy.Deny, Workloads: slugs, Force: force})
			if err != nil {
				t.Fatal(err)
			}
			return plan
		}
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"new-workloads-enter-at-audit", []step{learned(profile("web"), profile("api"))}},
		{"one-of-two-is-promoted", []step{learned(profile("web"), profile("api")), promoted("", []string{"deployment-web"}, profile("web"), profile("api"))}},
		{"all-are-promoted-by-force", []step{learned(profile("web"), profile("api")), promoted("the audit is on Monday", nil, profile("web", reads("/bin/sh", "/etc/other")))}},
		{"hostile-names", []step{learned(profile("web", reads(behavior.Escape("/bin/\x1b[31m\"evil\"\n: {a}"), behavior.Escape("/tmp/\xff\n- x: 'y'\n\u202e"))))}},
		{"people-edit-around-it", []step{learned(profile("web"), profile("cron"))}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, want := filepath.Join("testdata", c.name, "in"), filepath.Join("testdata", c.name, "want")
			tree := load(t, in)
			for i, s := range c.steps {
				plan := s(t, tree)
				tree = tree.With(plan.Files).With(map[string][]byte{"MESSAGE-" + string(rune('1'+i)): []byte(plan.Message)})
			}
			if *update {
				save(t, want, tree)
			}
			mustEqual(t, tree, load(t, want))
		})
	}
}

func load(t *testing.T, dir string) overlay.Tree {
	t.Helper()
	tree := overlay.Tree{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		tree[filepath.ToSlash(rel)], err = os.ReadFile(p)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return tree
}

func save(t *testing.T, dir string, tree overlay.Tree) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for p, data := range tree {
		p = filepath.Join(dir, filepath.FromSlash(p))
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiscoverTwiceLearnsNothing(t *testing.T) {
	tree := discover(t, nil, profile("web"), profile("api"))
	again := profile("web")
	for f := range again.Facts.Keys() { // seen again, by another pod, later
		again.Add(f, behavior.Evidence{First: noon, Last: noon.Add(9 * time.Hour), Pods: map[string]uint64{"web-2": 900}})
	}
	plan, err := rollout.Discover(input(tree, again), rollout.DiscoverOptions{})
	if err != nil || !plan.Empty() || plan.Message != "" {
		t.Fatalf("got %v and changes of %v", err, slices.Sorted(maps.Keys(plan.Files)))
	}
	if !slices.Equal(plan.Reasons, []string{"nothing new was learned"}) {
		t.Errorf("reasons are %q", plan.Reasons)
	}
	if len(plan.Summary) != 2 || plan.Summary[1].Change != rollout.Unchanged || plan.Summary[1].Rules["cilium"] != 1 {
		t.Errorf("summary is %+v", plan.Summary)
	}
}

func TestOrderOfObservationsDoesNotMatter(t *testing.T) {
	all := []behavior.Profile{profile("web"), profile("api"), profile("store", reads("/bin/sh", "/etc/passwd"))}
	want := discover(t, nil, all...)
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 2))
		shuffled := make([]behavior.Profile, len(all))
		for i, j := range r.Perm(len(all)) {
			p := profile("x")
			p.Subject, p.Labels, p.Coverage, p.Facts = all[j].Subject, all[j].Labels, all[j].Coverage, behavior.Facts{}
			observed := all[j].Observed()
			for _, k := range r.Perm(len(observed)) {
				p.Add(observed[k].Fact, observed[k].Evidence)
			}
			shuffled[i] = p
		}
		in := input(nil, shuffled...)
		r.Shuffle(len(in.Engines), func(i, j int) { in.Engines[i], in.Engines[j] = in.Engines[j], in.Engines[i] })
		plan, err := rollout.Discover(in, rollout.DiscoverOptions{})
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, overlay.Tree{}.With(plan.Files), want)
	}
}

// One observation or two that add up to it end at the same policies.
func TestLearningInTwoStepsEndsAtTheSamePolicies(t *testing.T) {
	more := reads("/usr/bin/web", "/etc/passwd")
	once := discover(t, nil, profile("web", more))
	twice := discover(t, discover(t, nil, profile("web")), profile("web", more))
	mustEqual(t, twice, once)
}

func TestNothingObservedIsNeverAPolicy(t *testing.T) {
	if _, err := rollout.Discover(input(nil), rollout.DiscoverOptions{}); !errors.Is(err, rollout.ErrNothingObserved) {
		t.Errorf("no profile at all gives %v", err)
	}
	idle := behavior.Profile{Subject: subject("idle"), Labels: "app=idle"}
	idle.Add(behavior.Fact{Kind: behavior.Process, Path: "/pause", Runtime: true}, behavior.Evidence{})
	plan, err := rollout.Discover(input(nil, idle), rollout.DiscoverOptions{})
	if err != nil || !plan.Empty() || len(plan.Reasons) != 1 || !strings.Contains(plan.Reasons[0], "nothing was observed") {
		t.Errorf("an idle container gives %v, %q, %v", plan.Files, plan.Reasons, err)
	}
}

func TestChangedLabelsAreTaken(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	moved := profile("web")
	moved.Labels = "app=aaa" // sorts before what was learned
	tree = discover(t, tree, moved)
	if got := string(tree["workloads/deployment-web/base/cilium.yaml"]); !strings.Contains(got, "app: aaa") {
		t.Errorf("policy still selects the labels of before:\n%s", got)
	}
}

func TestDenyIsNotWidenedWithoutAWord(t *testing.T) {
	tree := promote(t, input(discover(t, nil, profile("web")), profile("web")))
	more := profile("web", reads("/bin/sh", "/etc/other"))
	plan, err := rollout.Discover(input(tree, more), rollout.DiscoverOptions{})
	if err != nil || !plan.Empty() || plan.Summary[0].Change != rollout.Held || len(plan.Summary[0].New) != 1 {
		t.Fatalf("got %v, %+v", err, plan)
	}
	if len(plan.Reasons) != 1 || !strings.Contains(plan.Reasons[0], "read /etc/other, by /bin/sh") {
		t.Errorf("reasons are %q", plan.Reasons)
	}
	plan, err = rollout.Discover(input(tree, more), rollout.DiscoverOptions{Relearn: true})
	if err != nil || plan.Empty() || !strings.Contains(plan.Message, "Autopolicy-Stage: deny") {
		t.Fatalf("relearning gives %v, %+v", err, plan)
	}
}

func TestHandEditsAreKeptAndReported(t *testing.T) {
	file := "workloads/deployment-web/base/cilium.yaml"
	tree := discover(t, nil, profile("web"))
	edited := tree.With(map[string][]byte{file: append([]byte("# mine\n"), tree[file]...)})
	note := func(p rollout.Plan, text string) bool {
		return slices.ContainsFunc(p.Notes, func(n rollout.Note) bool { return n.Workload == "deployment-web" && strings.Contains(n.Text, text) })
	}
	plan, err := rollout.Discover(input(edited, profile("web")), rollout.DiscoverOptions{})
	if err != nil || !plan.Empty() || !note(plan, file+" was edited by hand and is kept") {
		t.Errorf("without anything new: %v, %v, %+v", err, plan.Files, plan.Notes)
	}
	peer := behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.11")}
	more := profile("web", reads("/usr/bin/web", "/new"), behavior.Fact{Kind: behavior.Network, Exe: "/usr/bin/web", Direction: behavior.Egress, Protocol: "tcp", Port: 80, Peer: peer})
	plan, err = rollout.Discover(input(edited, more), rollout.DiscoverOptions{})
	if _, touched := plan.Files[file]; err != nil || touched || plan.Files["workloads/deployment-web/base/kubearmor.yaml"] == nil {
		t.Errorf("with something new: %v, %q", err, slices.Sorted(maps.Keys(plan.Files)))
	}
	if !note(plan, "was edited by hand and is kept") || !note(plan, "would deny what was observed, 1 action: ") {
		t.Errorf("notes are %+v", plan.Notes)
	}
	again, err := rollout.Discover(input(edited.With(plan.Files), more), rollout.DiscoverOptions{})
	if err != nil || !note(again, "was edited by hand and is kept") {
		t.Errorf("the edit is forgotten: %v, %+v", err, again.Notes)
	}
	plan, err = rollout.Discover(input(edited, more), rollout.DiscoverOptions{Overwrite: true})
	if err != nil || bytes.HasPrefix(plan.Files[file], []byte("# mine")) || plan.Files[file] == nil || !note(plan, "is overwritten") {
		t.Errorf("overwriting gives %v, %+v", err, plan.Notes)
	}
}

func TestEnginesComeAndGo(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	in := input(tree)
	in.Engines = in.Engines[1:2] // cilium
	plan, err := rollout.Discover(in, rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	less := tree.With(plan.Files)
	for _, gone := range []string{"base/kubearmor.yaml", "base/networkpolicy.yaml", "audit/seccomp-web.json", "deny/seccomp-web.json"} {
		if _, ok := less["workloads/deployment-web/"+gone]; ok {
			t.Errorf("%s is still there", gone)
		}
	}
	_, _, err = rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny, Force: "yes"})
	var unjudged *rollout.UnjudgedError
	if !errors.As(err, &unjudged) || unjudged.Engine != "kubearmor" {
		t.Errorf("promoting without an engine gives %v", err)
	}
	back := discover(t, less, profile("web"))
	mustEqual(t, back, tree)
}

func TestExplain(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	x, err := rollout.Explain(input(tree), "deployment-web")
	if err != nil {
		t.Fatal(err)
	}
	if x.Stage != policy.Audit || len(x.Rules) != 4 {
		t.Fatalf("got stage %s and %d rules", x.Stage, len(x.Rules))
	}
	for _, r := range x.Rules {
		if r.Kind == behavior.Network {
			if len(r.Objects) != 2 || r.Objects["cilium"].Object != "CiliumNetworkPolicy/autopolicy-deployment-web" || r.Count() != 3 {
				t.Errorf("rule %s is explained by %+v", r, r.Objects)
			}
		}
	}
	var unknown *rollout.UnknownWorkloadError
	if _, err := rollout.Explain(input(tree), "deployment-x"); !errors.As(err, &unknown) {
		t.Errorf("a workload that is not there gives %v", err)
	}
}
