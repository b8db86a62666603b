package rollout_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func TestPromotionTouchesThreeFiles(t *testing.T) {
	tree := discover(t, nil, profile("web"), profile("api"))
	plan, verdicts, err := rollout.Promote(input(tree, profile("web"), profile("api")), rollout.PromoteOptions{To: policy.Deny})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(plan.Files)); !slices.Equal(got, []string{"kustomization.yaml", "namespace.yaml", "rollout.yaml"}) {
		t.Errorf("promotion touches %q", got)
	}
	if verdicts.Facts != 8 || verdicts.Denied != 0 || verdicts.Allowed != 10 {
		t.Errorf("verdicts are %+v", verdicts)
	}
	again, _, err := rollout.Promote(input(tree.With(plan.Files)), rollout.PromoteOptions{To: policy.Deny})
	if err != nil || !again.Empty() || len(again.Reasons) != 1 {
		t.Errorf("promoting again gives %v, %q, %v", again.Files, again.Reasons, err)
	}
}

func TestGate(t *testing.T) {
	lossy := profile("web")
	lossy.Coverage.Lost = map[string]uint64{"node-1: ring buffer full": 7}
	few := profile("web")
	few.Coverage.Replicas = 3
	silent := profile("web")
	silent.Facts = behavior.Facts{}
	attack := reads("/bin/sh", "/etc/other")
	for _, c := range []struct {
		name       string
		edit       map[string][]byte
		fresh      []behavior.Profile
		violations []string
		reasons    []string
	}{
		{"a fact that no policy holds", nil, []behavior.Profile{profile("web", attack)}, []string{"/bin/sh reads /etc/other"}, nil},
		{"facts of several engines", nil, []behavior.Profile{profile("web", attack, behavior.Fact{Kind: behavior.Syscall, Name: "chroot", Arch: "amd64"})}, []string{"/bin/sh reads /etc/other", "calls chroot (amd64)"}, nil},
		{"lost facts", nil, []behavior.Profile{lossy}, nil, []string{"deployment/web/web: 7 facts lost (node-1: ring buffer full)"}},
		{"replicas that nobody saw", nil, []behavior.Profile{few}, nil, []string{"deployment/web/web: 1 of 3 pods observed"}},
		{"a workload that was not observed", nil, nil, nil, []string{"deployment/web was not observed"}},
		{"a workload that did nothing", nil, []behavior.Profile{silent}, nil, []string{"deployment/web was observed doing nothing at all"}},
		{"a rule that a person took out", map[string][]byte{"workloads/deployment-web/base/cilium.yaml": []byte("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: autopolicy-deployment-web\nspec:\n  allow: []\n")},
			[]behavior.Profile{profile("web")}, []string{"/usr/bin/web connects to 192.0.2.10 (outside) on tcp/443"}, nil},
		{"a policy of which nobody can tell", map[string][]byte{"workloads/deployment-web/base/cilium.yaml": []byte("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n  name: autopolicy-deployment-web\nspec:\n  allow: [unknown]\n")},
			[]behavior.Profile{profile("web")}, []string{"/usr/bin/web connects to 192.0.2.10 (outside) on tcp/443"}, nil},
	} {
		t.Run(c.name+" keeps the stage from beginning", func(t *testing.T) {
			tree := discover(t, nil, profile("web")).With(c.edit)
			plan, verdicts, err := rollout.Promote(input(tree, c.fresh...), rollout.PromoteOptions{To: policy.Deny})
			var notYet *rollout.NotYetError
			if !errors.As(err, &notYet) || !plan.Empty() {
				t.Fatalf("got %v and %d changes", err, len(plan.Files))
			}
			var facts []string
			for _, v := range notYet.Violations {
				facts = append(facts, v.Fact.String())
				if v.Object == "" || v.Reason == "" || v.Evidence.Count() != 3 {
					t.Errorf("violation lacks its reasons: %+v", v)
				}
			}
			slices.Sort(facts)
			if !slices.Equal(facts, c.violations) || !slices.Equal(notYet.Reasons, c.reasons) || len(verdicts.Violations) != len(facts) {
				t.Errorf("violations %q, reasons %q", facts, notYet.Reasons)
			}
			forced, _, err := rollout.Promote(input(tree, c.fresh...), rollout.PromoteOptions{To: policy.Deny, Force: "we know"})
			if err != nil || forced.Empty() || !strings.Contains(forced.Message, "forced: we know") || !bytes.Contains(forced.Files["rollout.yaml"], []byte("reason: we know")) {
				t.Errorf("force gives %v, %q", err, forced.Message)
			}
			if plan, _, err := rollout.Promote(input(tree, c.fresh...), rollout.PromoteOptions{To: policy.Audit}); err != nil || !plan.Empty() {
				t.Errorf("audit asks for something: %v", err)
			}
		})
	}
}

func TestGateSettingsArePeoples(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	tree["rollout.yaml"] = bytes.ReplaceAll(tree["rollout.yaml"], []byte("coverage: complete"), []byte("coverage: any"))
	few := profile("web")
	few.Coverage.Replicas = 3
	tree = promote(t, input(tree, few))
	if !bytes.Contains(tree["rollout.yaml"], []byte("coverage: any")) {
		t.Error("the setting is lost")
	}
}

func TestAWorkloadThatIsNotAppliedComesToAudit(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	observed := tree.With(map[string][]byte{
		"kustomization.yaml": bytes.ReplaceAll(tree["kustomization.yaml"], []byte("- workloads/deployment-web/audit\n"), nil),
		"rollout.yaml":       bytes.ReplaceAll(tree["rollout.yaml"], []byte("stage: audit"), []byte("stage: observe")),
	})
	plan, _, err := rollout.Promote(input(observed), rollout.PromoteOptions{To: policy.Audit})
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, observed.With(plan.Files), tree)
}

func TestNothingLearnedIsNotYet(t *testing.T) {
	_, _, err := rollout.Promote(input(nil, profile("web")), rollout.PromoteOptions{To: policy.Deny})
	var notYet *rollout.NotYetError
	if !errors.As(err, &notYet) {
		t.Fatalf("got %v", err)
	}
}

func TestUnknownWorkloadIsNamed(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	_, _, err := rollout.Promote(input(tree), rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-wbe"}})
	var unknown *rollout.UnknownWorkloadError
	if !errors.As(err, &unknown) || !slices.Equal(unknown.Known, []string{"deployment-web"}) {
		t.Fatalf("got %v", err)
	}
}

// While one workload denies, KubeArmor's posture is block for all: one in audit
// must not be enforced by it, and comes back when it may.
func TestAuditIsSparedFromAnothersDeny(t *testing.T) {
	audited := discover(t, nil, profile("web"), profile("api"))
	mixed := promote(t, input(audited, profile("web"), profile("api", reads("/bin/sh", "/new"))), "deployment-web")
	objects, err := overlay.Build(mixed)
	if err != nil {
		t.Fatal(err)
	}
	var armored []string
	for _, o := range objects {
		if o.Kind == "KubeArmorPolicy" {
			armored = append(armored, o.Name)
		}
	}
	if !slices.Equal(armored, []string{"autopolicy-deployment-web"}) {
		t.Errorf("applied are KubeArmor policies %q", armored)
	}
	late := discover(t, mixed, profile("late"))
	if k := string(late["workloads/deployment-late/audit/kustomization.yaml"]); !strings.Contains(k, "kind: KubeArmorPolicy") {
		t.Errorf("a workload that comes later is enforced at once:\n%s", k)
	}
	back, err := rollout.Rollback(input(mixed), history(audited, mixed))
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, mixed.With(back.Files), audited)
	edited := audited.With(map[string][]byte{"workloads/deployment-api/audit/kustomization.yaml": append([]byte("# mine\n"), audited["workloads/deployment-api/audit/kustomization.yaml"]...)})
	_, _, err = rollout.Promote(input(edited, profile("web"), profile("api")), rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-web"}})
	var hand *rollout.HandEditedError
	if !errors.As(err, &hand) {
		t.Errorf("an edited stage that cannot be spared gives %v", err)
	}
}

func TestRollback(t *testing.T) {
	web, api := profile("web"), profile("api")
	audited := discover(t, nil, web, api)
	first := promote(t, input(audited, web, api), "deployment-web")
	second := promote(t, input(first, web, api))
	custom := map[string][]byte{"custom/mine.yaml": []byte("kind: Mine\n"), "decisions.yaml": []byte("mine: true\n")}

	t.Run("goes back one promotion at a time, to the same bytes", func(t *testing.T) {
		plan, err := rollout.Rollback(input(second), history(audited, first, second))
		if err != nil {
			t.Fatal(err)
		}
		back := second.With(plan.Files)
		mustEqual(t, back, first)
		if !strings.Contains(plan.Message, "Autopolicy-Stage: audit") || !strings.HasPrefix(plan.Message, "Roll back shop to audit: deployment/api\n") {
			t.Errorf("message is\n%s", plan.Message)
		}
		plan, err = rollout.Rollback(input(back), history(audited, first, second, back))
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, back.With(plan.Files), audited)
	})
	t.Run("leaves what people own as it is now", func(t *testing.T) {
		now := second.With(custom)
		plan, err := rollout.Rollback(input(now), history(audited, first.With(map[string][]byte{"custom/old.yaml": {}}), now))
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, now.With(plan.Files), first.With(custom))
	})
	t.Run("says which workloads go with it", func(t *testing.T) {
		now := discover(t, second, profile("late"))
		plan, err := rollout.Rollback(input(now), history(audited, first, second, now))
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, now.With(plan.Files), first)
		if len(plan.Notes) != 1 || plan.Notes[0].Workload != "deployment-late" {
			t.Errorf("notes are %+v", plan.Notes)
		}
	})
	t.Run("passes over a version that cannot be read, and says so", func(t *testing.T) {
		broken := overlay.Tree{"kustomization.yaml": []byte("resources: {")}
		plan, err := rollout.Rollback(input(second), history(audited, first, broken, second))
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, second.With(plan.Files), first)
		if len(plan.Notes) != 1 || !strings.Contains(plan.Notes[0].Text, "rev-c cannot be read") {
			t.Errorf("notes are %+v", plan.Notes)
		}
	})
	t.Run("has nowhere to go from the first stage", func(t *testing.T) {
		_, err := rollout.Rollback(input(audited), history(overlay.Tree{}, audited, second, audited))
		var none *rollout.NoEarlierStageError
		if !errors.As(err, &none) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("hands on an error of the history", func(t *testing.T) {
		broken := errors.New("object is missing")
		_, err := rollout.Rollback(input(second), func(yield func(rollout.Version, error) bool) { yield(rollout.Version{}, broken) })
		if !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

// What was learned from processes that ran already knows nothing of how they
// start, and would keep them from starting again.
func TestAStartMustHaveBeenSeenOnce(t *testing.T) {
	running := func() behavior.Profile {
		p := profile("web")
		for name, pod := range p.Coverage.Pods {
			pod.Start = false
			p.Coverage.Pods[name] = pod
		}
		return p
	}
	blind, seen := discover(t, nil, running()), discover(t, nil, profile("web"))
	for name, c := range map[string]struct {
		tree  overlay.Tree
		fresh behavior.Profile
		ready bool
	}{
		"never":                    {blind, running(), false},
		"when it was learned":      {seen, running(), true},
		"in the fresh observation": {blind, profile("web"), true},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := rollout.Promote(input(c.tree, c.fresh), rollout.PromoteOptions{To: policy.Deny})
			var notYet *rollout.NotYetError
			switch {
			case c.ready && err != nil:
				t.Error(err)
			case !c.ready && !errors.As(err, &notYet):
				t.Errorf("promoted (%v)", err)
			case !c.ready && (len(notYet.Reasons) != 1 || !strings.Contains(notYet.Reasons[0], "start was never observed")):
				t.Errorf("reasons are %q", notYet.Reasons)
			}
		})
	}
}
