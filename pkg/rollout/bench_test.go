package rollout_test

import (
	"fmt"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// large is a namespace of workloads with three policies each, and what each of
// their containers was seen doing.
func large(b *testing.B, workloads, facts int) (overlay.Tree, []behavior.Profile) {
	b.Helper()
	var list []behavior.Profile
	for i := range workloads {
		p := profile(fmt.Sprintf("web-%04d", i))
		for j := range facts - 4 {
			p.Add(reads("/usr/bin/web", fmt.Sprintf("/srv/%c%d/data", 'a'+rune(j%26), j)), behavior.Evidence{First: noon, Last: noon, Pods: map[string]uint64{"web-1": 1}})
		}
		list = append(list, p)
	}
	plan, err := rollout.Discover(input(nil, list...), rollout.DiscoverOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return overlay.Tree{}.With(plan.Files), list
}

func BenchmarkPromote(b *testing.B) {
	for _, workloads := range []int{67, 667} {
		b.Run(fmt.Sprintf("%d policies, %d facts", 3*workloads, 150*workloads), func(b *testing.B) {
			tree, list := large(b, workloads, 150)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := rollout.Promote(input(tree, list...), rollout.PromoteOptions{To: policy.Deny}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDiscoverNothingNew(b *testing.B) {
	tree, list := large(b, 67, 150)
	b.ReportAllocs()
	for b.Loop() {
		if plan, err := rollout.Discover(input(tree, list...), rollout.DiscoverOptions{}); err != nil || !plan.Empty() {
			b.Fatal(err, len(plan.Files))
		}
	}
}
