package learn_test

import (
	"fmt"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
)

// BenchmarkRules learns from distinct facts, ten times as many the second time.
func BenchmarkRules(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var facts []behavior.Fact
			for i := range n {
				facts = append(facts, read("/usr/bin/app", fmt.Sprintf("/srv/d%d/%c%c%c", i/1000, 'a'+i%10, 'a'+i/10%10, 'a'+i/100%10))...)
			}
			profiles := []behavior.Profile{profile("web", facts...)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := learn.Rules(profiles, learn.Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
