package rollout_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func fleet(t *testing.T, n int) overlay.Tree {
	var list []behavior.Profile
	for i := range n {
		list = append(list, profile(fmt.Sprintf("app%02d", i)))
	}
	return discover(t, nil, list...)
}

func TestAGrowingPercentageKeepsWhomItChose(t *testing.T) {
	in := input(fleet(t, 10))
	var before []string
	for percent := 1; percent <= 100; percent += 9 {
		chosen, err := rollout.Choose(in, rollout.Choice{Percent: percent})
		if err != nil || len(chosen) != (10*percent+99)/100 {
			t.Fatalf("%d percent of 10 are %q, %v", percent, chosen, err)
		}
		for _, slug := range before {
			if !slices.Contains(chosen, slug) {
				t.Errorf("%s is left out at %d percent", slug, percent)
			}
		}
		before = chosen
	}
}

func TestChoices(t *testing.T) {
	tree := discover(t, nil, profile("web"), profile("api"), profile("store"))
	tree["rollout.yaml"] = bytes.Replace(tree["rollout.yaml"], []byte("  workload: deployment-store\n"), []byte("  wave: 2\n  workload: deployment-store\n"), 1)
	for _, c := range []struct {
		name   string
		choice rollout.Choice
		want   string
	}{
		{"nothing said is all", rollout.Choice{}, "deployment-api deployment-store deployment-web"},
		{"the first wave", rollout.Choice{Wave: 1}, "deployment-api deployment-web"},
		{"a wave holds those before it", rollout.Choice{Wave: 2}, "deployment-api deployment-store deployment-web"},
		{"a selector", rollout.Choice{Selector: "app in (web, store)"}, "deployment-store deployment-web"},
		{"both", rollout.Choice{Selector: "app in (web, store)", Wave: 1}, "deployment-web"},
		{"by name", rollout.Choice{Workloads: []string{"deployment-api"}}, "deployment-api"},
	} {
		if got, err := rollout.Choose(input(tree), c.choice); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
	for name, c := range map[string]rollout.Choice{"a selector of no form": {Selector: "=="}, "101 percent": {Percent: 101}, "a workload that is not there": {Workloads: []string{"x"}}} {
		if _, err := rollout.Choose(input(tree), c); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := rollout.Choose(input(tree), rollout.Choice{Selector: "app=none"}); !errors.Is(err, rollout.ErrNoneChosen) {
		t.Errorf("a selector that matches nothing gives %v", err)
	}
}

func TestTheScheduleCountsFromWhenTheClusterRunsTheStage(t *testing.T) {
	tree := discover(t, nil, profile("web"), profile("api"))
	tree["rollout.yaml"] = append(tree["rollout.yaml"], "schedule:\n- {after: 24h, to: deny, workloads: [deployment-web]}\n- {after: 72h, to: deny}\n- {at: 2031-01-01T00:00:00Z, to: deny, selector: app=api}\n"...)
	in := input(tree)
	in.Synced = runs(tree)
	ask := func(wantDue string, wantWaiting int) {
		t.Helper()
		got, err := rollout.Schedule(in)
		if err != nil || strings.Join(got.Due, " ") != wantDue || len(got.Waiting) != wantWaiting {
			t.Errorf("due %q, waiting %q, %v", got.Due, got.Waiting, err)
		}
	}
	ask("deployment-api deployment-web", 2) // web and api at 72h
	in.Synced.Objects[0].Since = in.Synced.Now.Add(-time.Hour)
	ask("deployment-api", 3)
	in.Synced.Obstacles = []string{"it is suspended"}
	ask("deployment-api", 3) // the date has come; the gate says what is in the way
	in.Tree = promote(t, input(tree, profile("web"), profile("api")))
	ask("", 0)
	for _, bad := range []string{"- {to: deny}", "- {to: audit, after: 1h}", "- {to: deny, after: 1h, at: 2031-01-01T00:00:00Z}", "- {to: deny, after: soon}", "- {to: deny, after: 1h, workloads: [x]}"} {
		before, _, _ := bytes.Cut(tree["rollout.yaml"], []byte("schedule:"))
		in.Tree = tree.With(map[string][]byte{"rollout.yaml": append(slices.Clone(before), "schedule:\n"+bad+"\n"...)})
		var invalid *overlay.InvalidError
		if _, err := rollout.Schedule(in); !errors.As(err, &invalid) {
			t.Errorf("%s gives %v", bad, err)
		}
	}
}
