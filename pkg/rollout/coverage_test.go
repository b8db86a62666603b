package rollout_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// seeing is the profile of a service of whose life just this was observed.
func seeing(name string, life behavior.PodCoverage, more ...behavior.Fact) behavior.Profile {
	p := profile(name, more...)
	life.Node, life.Image, life.From, life.To = "node-1", name+"@sha256:1", noon, noon
	p.Coverage.Pods = map[string]behavior.PodCoverage{name + "-1": life}
	return p
}

func TestWhatIsSeenOfALifeForTheFirstTimeIsCommittedOnce(t *testing.T) {
	tree := discover(t, nil, seeing("web", behavior.PodCoverage{}), seeing("api", behavior.PodCoverage{Start: true}))
	for _, life := range []behavior.PodCoverage{{Start: true, Ready: true}, {Steady: true}, {Restarts: 1}, {Restarts: 7, Terminated: true}} {
		in := input(tree, seeing("web", life))
		plan, err := rollout.Discover(in, rollout.DiscoverOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Collect(maps.Keys(plan.Files)); !slices.Equal(got, []string{"workloads/deployment-web/evidence.yaml"}) {
			t.Fatalf("%+v changes %q", life, got)
		}
		if !strings.HasPrefix(plan.Message, "Record coverage of shop: deployment/web\n\n- deployment/web/web: observed for the first time: ") {
			t.Errorf("message is %s", plan.Message)
		}
		if i := slices.IndexFunc(plan.Summary, func(s rollout.Summary) bool { return s.Change == rollout.Covered }); i < 0 || !plan.Summary[i].More {
			t.Errorf("summary is %+v", plan.Summary)
		}
		tree = tree.With(plan.Files)
		// The same again, or less, is nothing new.
		for _, again := range []behavior.PodCoverage{life, {}} {
			plan, err := rollout.Discover(input(tree, seeing("web", again)), rollout.DiscoverOptions{})
			if err != nil || !plan.Empty() {
				t.Errorf("%+v again changes %v, %v", again, slices.Collect(maps.Keys(plan.Files)), err)
			}
		}
	}
	list, err := behavior.DecodeFile(tree["workloads/deployment-web/evidence.yaml"])
	if err != nil {
		t.Fatal(err)
	}
	if got := list[0].Coverage.Milestones(); !slices.Equal(got, []string{"start", "ready", "steady", "restart", "end"}) {
		t.Errorf("committed is %q", got)
	}
}

func TestAStartThatWasCommittedOpensTheGate(t *testing.T) {
	tree := discover(t, nil, seeing("web", behavior.PodCoverage{}))
	opts := rollout.PromoteOptions{To: policy.Deny}
	if _, _, err := rollout.Promote(input(tree, seeing("web", behavior.PodCoverage{})), opts); err == nil {
		t.Fatal("promoted though no start was ever seen")
	}
	tree = discover(t, tree, seeing("web", behavior.PodCoverage{Start: true}))
	if plan, _, err := rollout.Promote(input(tree, seeing("web", behavior.PodCoverage{})), opts); err != nil || plan.Empty() {
		t.Errorf("not promoted: %v", err)
	}
}

func TestAWorkloadInDenyGetsCoverageAndNoRules(t *testing.T) {
	tree := discover(t, nil, seeing("web", behavior.PodCoverage{Start: true}))
	tree = promote(t, input(tree, seeing("web", behavior.PodCoverage{Start: true})))
	plan, err := rollout.Discover(input(tree, seeing("web", behavior.PodCoverage{Ready: true}, reads("/bin/sh", "/etc/other"))), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Files) != 1 || strings.Contains(string(plan.Files["workloads/deployment-web/evidence.yaml"]), "other") || plan.Summary[0].Change != rollout.Held {
		t.Errorf("changes %v: %+v", slices.Collect(maps.Keys(plan.Files)), plan.Summary)
	}
}

func TestWhoEnteredAContainerIsLeftOutUnlessAsked(t *testing.T) {
	shell := behavior.Fact{Kind: behavior.Process, Path: "/bin/sh", Origin: behavior.OriginExec}
	secret := reads("/bin/sh", "/etc/secret")
	secret.Origin = behavior.OriginExec
	probe := behavior.Fact{Kind: behavior.Process, Path: "/bin/healthy", Origin: behavior.OriginProbe}
	in := input(nil, profile("web", shell, secret, probe), profile("api"))
	in.Learn = learnEntered
	for _, entered := range []bool{false, true} {
		plan, err := rollout.Discover(in, rollout.DiscoverOptions{Entered: entered})
		if err != nil {
			t.Fatal(err)
		}
		web := plan.Summary[slices.IndexFunc(plan.Summary, func(s rollout.Summary) bool { return s.Workload.Name == "web" })]
		noted := slices.ContainsFunc(plan.Notes, func(n rollout.Note) bool {
			return n.Workload == "deployment-web" && strings.HasPrefix(n.Text, "2 facts of processes that entered")
		})
		if want := map[bool]int{false: 2, true: 0}[entered]; web.Entered != want || noted == entered {
			t.Errorf("asked for: %t: %d left out, noted: %t", entered, web.Entered, noted)
		}
		var all strings.Builder
		for _, data := range plan.Files {
			all.Write(data)
		}
		if text := all.String(); strings.Contains(text, "/etc/secret") != entered || !strings.Contains(text, "/bin/healthy") {
			t.Errorf("asked for: %t: the tree is\n%s", entered, text)
		}
		// What was taken stays, what was not stays out.
		again := in
		again.Tree = in.Tree.With(plan.Files)
		if plan, err := rollout.Discover(again, rollout.DiscoverOptions{}); err != nil || !plan.Empty() {
			t.Errorf("asked for: %t: a second observation changes %v, %v", entered, slices.Collect(maps.Keys(plan.Files)), err)
		}
	}
	// Asking later learns it still.
	plan, err := rollout.Discover(in, rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	later := in
	later.Tree = in.Tree.With(plan.Files)
	if plan, err := rollout.Discover(later, rollout.DiscoverOptions{Entered: true}); err != nil || plan.Empty() {
		t.Errorf("asking later changes nothing (%v)", err)
	}
}
