package rollout_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func statusOf(t *testing.T, in rollout.Input, name string) rollout.Status {
	t.Helper()
	list, err := rollout.Statuses(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(s rollout.Status) bool { return s.Workload.Name == name })
	if i < 0 {
		t.Fatalf("no status of %s in %+v", name, list)
	}
	return list[i]
}

func TestStatusSaysWhatStandsInTheWayAndWhatToDo(t *testing.T) {
	whole := behavior.PodCoverage{Start: true, Ready: true, Steady: true}
	lossy := seeing("web", whole)
	lossy.Coverage.Lost = map[string]uint64{"node-1: ring buffer full": 3}
	for name, c := range map[string]struct {
		committed, live []behavior.Profile
		obstacle, do    string // "" for none; the first of each
	}{
		"all was seen, and nobody observes now": {[]behavior.Profile{seeing("web", whole)}, nil, "", "promote it, which observes once more: kubectl autopolicy promote -n shop deployment/web --to=deny"},
		"its start was never seen":              {[]behavior.Profile{seeing("web", behavior.PodCoverage{Steady: true})}, nil, "deployment/web/web: its start was never observed: restart it while discover or promote observes", "see it start: kubectl autopolicy discover -n shop --restart"},
		"its start is seen just now":            {[]behavior.Profile{seeing("web", behavior.PodCoverage{Steady: true})}, []behavior.Profile{seeing("web", whole)}, "", "promote it, which observes once more: kubectl autopolicy promote -n shop deployment/web --to=deny"},
		"it was never seen at rest":             {[]behavior.Profile{seeing("web", behavior.PodCoverage{Start: true})}, nil, "", "see it at rest: kubectl autopolicy discover -n shop --until-stable"},
		"something was lost":                    {[]behavior.Profile{lossy}, nil, "deployment/web/web: 3 facts lost (node-1: ring buffer full)", "observe again: kubectl autopolicy discover -n shop"},
		"something was lost, and is seen now":   {[]behavior.Profile{lossy}, []behavior.Profile{seeing("web", whole)}, "", "promote it, which observes once more: kubectl autopolicy promote -n shop deployment/web --to=deny"},
		"it does what is not allowed":           {[]behavior.Profile{seeing("web", whole)}, []behavior.Profile{seeing("web", whole, reads("/bin/sh", "/etc/other"))}, "deployment/web/web: /bin/sh reads /etc/other: denied by kubearmor", "if the violations are what the workload should do, run discover again"},
		"it has no policies yet":                {[]behavior.Profile{seeing("api", whole)}, []behavior.Profile{seeing("web", whole)}, "deployment/web has no policies yet", "kubectl autopolicy discover -n shop"},
	} {
		t.Run(name, func(t *testing.T) {
			in := input(discover(t, nil, c.committed...), c.live...)
			s := statusOf(t, in, "web")
			if (len(s.Obstacles) > 0) != (c.obstacle != "") || len(s.Obstacles) > 0 && !strings.HasPrefix(s.Obstacles[0], c.obstacle) {
				t.Errorf("obstacles are %q, want %q", s.Obstacles, c.obstacle)
			}
			if len(s.Advice) == 0 || !strings.HasPrefix(s.Advice[0], c.do) {
				t.Errorf("advice is %q, want %q", s.Advice, c.do)
			}
		})
	}
}

func TestStatusMergesTheLiveWithTheCommitted(t *testing.T) {
	in := input(discover(t, nil, profile("web"), profile("api")), profile("web", reads("/bin/cat", "/etc/motd")), profile("new"))
	web, api, fresh := statusOf(t, in, "web"), statusOf(t, in, "api"), statusOf(t, in, "new")
	if c := web.Containers[0]; !c.Committed || !c.Live || c.Profile.Facts.Len() != profile("web").Facts.Len()+1 {
		t.Errorf("web is %+v", c)
	}
	if c := api.Containers[0]; !c.Committed || c.Live {
		t.Errorf("api is %+v", c)
	}
	if c := fresh.Containers[0]; c.Committed || !c.Live || fresh.Stage != policy.Observe || fresh.Next != policy.Audit {
		t.Errorf("new is %+v", fresh)
	}
	if web.Stage != policy.Audit || web.By == "" || web.Since.IsZero() {
		t.Errorf("web is at %+v", web)
	}
	in.Tree = promote(t, input(in.Tree, profile("web"), profile("api")))
	if s := statusOf(t, in, "web"); s.Stage != policy.Deny || s.Next != "" || len(s.Obstacles)+len(s.Advice) != 0 {
		t.Errorf("in deny it is %+v", s)
	}
}

func TestStatusOfAWorkloadThatNobodyKnows(t *testing.T) {
	var unknown *rollout.UnknownWorkloadError
	if _, err := rollout.Statuses(input(discover(t, nil, profile("web"))), []string{"deployment-x"}); !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
}

func TestEvidenceThatSomebodyDeletedIsNoneAndNoPanic(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	delete(tree, "workloads/deployment-web/evidence.yaml")
	if s := statusOf(t, input(tree, profile("web")), "web"); len(s.Containers) != 1 || s.Containers[0].Committed {
		t.Errorf("got %+v", s)
	}
	if _, _, err := rollout.Promote(input(tree, profile("web")), rollout.PromoteOptions{To: policy.Deny}); err != nil {
		t.Errorf("a start that is seen now is not taken: %v", err)
	}
}
