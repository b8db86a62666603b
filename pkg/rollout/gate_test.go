package rollout_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

const flux = "Flux's Kustomization flux-system/fleet"

// runs is a cluster that has run a tree for a day of its own clock, which is not
// ours.
func runs(tree overlay.Tree) *rollout.Synced {
	clock := time.Date(2031, 1, 2, 0, 0, 0, 0, time.UTC)
	since := clock.Add(-24 * time.Hour)
	return &rollout.Synced{By: flux, Revision: strings.Repeat("a", 40), Tree: tree, Since: since, Now: clock, Objects: []rollout.LiveObject{
		{Kind: "CiliumNetworkPolicy", Name: "autopolicy-deployment-web", State: "same", Since: since},
		{Kind: "KubeArmorPolicy", Name: "autopolicy-deployment-web-web", State: "same", Since: since.Add(-time.Hour)},
	}}
}

// lived has seen all of its life that Flux's default asks for.
func lived(name string) behavior.Profile {
	p := profile(name)
	for pod, c := range p.Coverage.Pods {
		c.Start, c.Ready, c.Steady, c.Restarts = true, true, true, 1
		p.Coverage.Pods[pod] = c
	}
	return p
}

func TestTheClusterMustRunTheStageForLongEnough(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	hour, month := time.Hour, 30*24*time.Hour
	for _, c := range []struct {
		name string
		edit func(*rollout.Synced)
		gate string // added to rollout.yaml
		soak *time.Duration
		want []string // parts of the reasons
	}{
		{name: "a cluster that runs it for a day may deny"},
		{name: "a soak that people set for longer is waited for", gate: "soak: 30h", want: []string{"in audit for 24h0m0s of 30h0m0s, until 2031-01-02T06:00:00Z"}},
		{name: "the caller cannot ask for less than people set", gate: "soak: 30h", soak: &hour, want: []string{"of 30h0m0s"}},
		{name: "the caller can ask for more", soak: &month, want: []string{"of 720h0m0s"}},
		{name: "a policy that was changed an hour ago soaks anew", edit: func(s *rollout.Synced) { s.Objects[1].Since = s.Now.Add(-hour) }, want: []string{"in audit for 1h0m0s of 24h0m0s"}},
		{name: "the caller may ask for less than the default", soak: &hour, edit: func(s *rollout.Synced) { s.Objects[1].Since = s.Now.Add(-hour) }},
		{name: "stamps of a clock that is ahead are no soak", edit: func(s *rollout.Synced) { s.Objects[0].Since = s.Now.Add(hour) }, want: []string{"in audit for 0s of 24h0m0s"}},
		{name: "without Argo CD and Flux no time is asked for", edit: func(s *rollout.Synced) { s.By, s.Objects[0].Since = "", s.Now }},
		{name: "Flux that is suspended", edit: func(s *rollout.Synced) { s.Obstacles = []string{"it is suspended"} }, want: []string{flux + ": it is suspended", "its 24h0m0s in audit have not begun"}},
		{name: "an older commit, before the workload was there", edit: func(s *rollout.Synced) { s.Tree = overlay.Tree{"kustomization.yaml": []byte("resources: []\n")} },
			want: []string{"runs commit aaaaaaaaaaaa, in which deployment/web is at observe, not audit", "not begun"}},
		{name: "an older commit with other policies", edit: func(s *rollout.Synced) {
			s.Tree = tree.With(map[string][]byte{"workloads/deployment-web/base/cilium.yaml": []byte("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x}\n")})
		}, want: []string{"in which deployment/web has other policies", "not begun"}},
		{name: "a commit that differs only in what is not applied", edit: func(s *rollout.Synced) {
			s.Tree = tree.With(map[string][]byte{"workloads/deployment-web/evidence.yaml": []byte("older")})
		}},
		{name: "a policy that was deleted in the cluster", edit: func(s *rollout.Synced) { s.Objects[0].State = "missing" }, want: []string{"CiliumNetworkPolicy/autopolicy-deployment-web is not in the cluster", "not begun"}},
		{name: "a policy that was changed in the cluster", edit: func(s *rollout.Synced) { s.Objects[1].State, s.Objects[1].Detail = "changed", "spec.action" }, want: []string{"spec.action differs", "not begun"}},
		{name: "a CRD that is missing", edit: func(s *rollout.Synced) {
			s.Objects[1].State, s.Objects[1].Detail = "no kind", "its CRD is not installed"
		}, want: []string{"its CRD is not installed", "not begun"}},
		{name: "what another workload lacks is no reason", edit: func(s *rollout.Synced) {
			s.Objects = append(s.Objects, rollout.LiveObject{Kind: "CiliumNetworkPolicy", Name: "autopolicy-deployment-api", State: "missing"})
		}},
		{name: "nothing applied yet", edit: func(s *rollout.Synced) {
			s.Tree, s.Revision, s.Obstacles = nil, "", []string{"it has applied no commit yet"}
		}, want: []string{"has applied no commit yet", "not begun"}},
		{name: "people may do without", gate: "synced: any", edit: func(s *rollout.Synced) { s.Tree = nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := tree.With(nil)
			if c.gate != "" {
				set["rollout.yaml"] = bytes.Replace(set["rollout.yaml"], []byte("coverage: complete\n"), []byte("coverage: complete\n  "+c.gate+"\n"), 1)
			}
			in := input(set, lived("web"))
			in.Synced = runs(set)
			if c.edit != nil {
				c.edit(in.Synced)
			}
			plan, _, err := rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny, Soak: c.soak})
			if len(c.want) == 0 {
				if err != nil || plan.Empty() {
					t.Fatalf("not promoted: %v", reasons(err))
				}
				return
			}
			got := reasons(err)
			if len(got) != len(c.want) {
				t.Fatalf("reasons %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.Contains(got[i], c.want[i]) {
					t.Errorf("reason %q, want %q", got[i], c.want[i])
				}
			}
			if _, _, err := rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny, Soak: c.soak, Force: "known"}); err != nil {
				t.Errorf("forced: %v", err)
			}
		})
	}
}

func reasons(err error) []string {
	var notYet *rollout.NotYetError
	if errors.As(err, &notYet) {
		return notYet.Reasons
	}
	if err != nil {
		return []string{err.Error()}
	}
	return nil
}

func TestEveryPartOfALifeThatIsAskedForMustBeSeen(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	in := input(tree, profile("web"))
	in.Synced = runs(tree)
	_, _, err := rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny})
	want := []string{
		"deployment/web/web: its steady state was never observed: discover --until-stable observes until nothing new comes",
		"deployment/web/web: no restart of it was ever observed: discover --restart makes one",
	}
	if got := reasons(err); !slices.Equal(got, want) {
		t.Errorf("reasons %q", got)
	}
	t.Run("a pod that replaced another is a restart", func(t *testing.T) {
		p := lived("web")
		for pod, c := range p.Coverage.Pods {
			c.Restarts = 0
			p.Coverage.Pods[pod] = c
			c.From = c.From.Add(-time.Hour)
			p.Coverage.Pods["web-before"] = c
		}
		p.Coverage.Replicas = 2
		in.Fresh = input(tree, p).Fresh
		if _, _, err := rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny}); err != nil {
			t.Error(reasons(err))
		}
	})
}

func TestAnImageThatWasNotLearnedFromStopsAPromotion(t *testing.T) {
	image := func(name string) behavior.Profile {
		p := profile("web")
		for pod, c := range p.Coverage.Pods {
			c.Image = name
			p.Coverage.Pods[pod] = c
		}
		return p
	}
	const old, now = "registry/web:1@sha256:aa", "registry/web:1@sha256:bb"
	tree := discover(t, nil, image(old))
	_, _, err := rollout.Promote(input(tree, image(now)), rollout.PromoteOptions{To: policy.Deny})
	if got := reasons(err); len(got) != 1 || !strings.Contains(got[0], now) {
		t.Fatalf("reasons %q", got)
	}
	for name, same := range map[string]string{"the same": old, "one whose digest nobody told": "registry/web:1"} {
		if _, _, err := rollout.Promote(input(tree, image(same)), rollout.PromoteOptions{To: policy.Deny}); err != nil {
			t.Errorf("%s: %v", name, reasons(err))
		}
	}
	t.Run("discover learns of it though it does nothing new", func(t *testing.T) {
		again := discover(t, tree, image(now))
		if _, _, err := rollout.Promote(input(again, image(now)), rollout.PromoteOptions{To: policy.Deny}); err != nil {
			t.Error(reasons(err))
		}
		plan, err := rollout.Discover(input(again, image(now)), rollout.DiscoverOptions{})
		if err != nil || !plan.Empty() {
			t.Errorf("and once is not enough: %v %v", plan.Files, err)
		}
	})
}

func TestStatusShowsEveryGate(t *testing.T) {
	tree := discover(t, nil, lived("web"))
	in := input(tree, lived("web"))
	in.Synced = runs(tree)
	in.Synced.Objects[0].Since = in.Synced.Now.Add(-time.Minute)
	list, err := rollout.Statuses(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	var gates []string
	for _, g := range list[0].Gates {
		gates = append(gates, g.Gate)
		if open := g.Gate != rollout.GateSoak; g.Open != open || open == (g.Evidence == "") || open == (len(g.Reasons) > 0) {
			t.Errorf("gate %+v", g)
		}
	}
	if want := []string{rollout.GateViolations, rollout.GateSuspicions, rollout.GateCoverage, rollout.GateLife, rollout.GateImages, rollout.GateSynced, rollout.GateSoak}; !slices.Equal(gates, want) {
		t.Errorf("gates %q", gates)
	}
	if len(list[0].Obstacles) != 1 || !strings.Contains(list[0].Obstacles[0], "in audit for 1m0s of 24h0m0s") {
		t.Errorf("obstacles %q", list[0].Obstacles)
	}
}

func TestDriftIsFoundInTheClusterAndInGit(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	in := input(tree)
	in.Synced = runs(tree)
	if drift, err := rollout.Drift(in); err != nil || len(drift) > 0 {
		t.Fatalf("drift of nothing: %q, %v", drift, err)
	}
	in.Synced.Objects = append(in.Synced.Objects[:1], rollout.LiveObject{Kind: "NetworkPolicy", Name: "autopolicy-deployment-web", State: "extra"})
	in.Tree = tree.With(map[string][]byte{
		"workloads/deployment-web/base/cilium.yaml": []byte("apiVersion: v1\n"),
		"workloads/deployment-web/base/mine.yaml":   []byte("apiVersion: v1\n"),
	})
	drift, err := rollout.Drift(in)
	want := []string{
		"NetworkPolicy/autopolicy-deployment-web is in the cluster and not in the commit",
		"workloads/deployment-web/base/cilium.yaml was edited in git by hand",
		"workloads/deployment-web/base/mine.yaml was added to git by hand",
	}
	if err != nil || !slices.Equal(drift, want) {
		t.Errorf("drift %q, %v", drift, err)
	}
}

func TestAGateOfNoKnownFormIsRefused(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	for _, setting := range []string{"soak: tomorrow", "soak: -1h", "seen: [birth]", "images: some", "synced: maybe"} {
		bad := tree.With(map[string][]byte{"rollout.yaml": bytes.Replace(tree["rollout.yaml"], []byte("coverage: complete\n"), []byte("coverage: complete\n  "+setting+"\n"), 1)})
		var invalid *overlay.InvalidError
		if _, _, err := rollout.Promote(input(bad, profile("web")), rollout.PromoteOptions{To: policy.Deny}); !errors.As(err, &invalid) {
			t.Errorf("%s gives %v", setting, err)
		}
	}
}

// A nightly job need not run for a promotion, if one whole run of it was learned.
func TestAJobIsJudgedByTheRunThatWasLearned(t *testing.T) {
	nightly := profile("web")
	job := behavior.Workload{Namespace: nightly.Subject.Workload.Namespace, Kind: "CronJob", Name: "nightly"}
	nightly.Subject.Workload = job
	run := func(end bool) overlay.Tree {
		p := nightly
		pods := map[string]behavior.PodCoverage{}
		for pod, c := range p.Coverage.Pods {
			c.Terminated = end
			pods[pod] = c
		}
		p.Coverage.Pods = pods
		return discover(t, nil, p)
	}
	if _, _, err := rollout.Promote(input(run(true)), rollout.PromoteOptions{To: policy.Deny}); err != nil {
		t.Errorf("a job that was seen to its end: %v", reasons(err))
	}
	_, _, err := rollout.Promote(input(run(false)), rollout.PromoteOptions{To: policy.Deny})
	if got := reasons(err); len(got) != 1 || !strings.Contains(got[0], "no run of it was observed to its end") {
		t.Errorf("a job whose end was not seen: %q", got)
	}
}
