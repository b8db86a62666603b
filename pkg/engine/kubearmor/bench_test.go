package kubearmor_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
)

func BenchmarkRenderOverBudget(b *testing.B) {
	var facts []behavior.Fact
	for i := range 5000 {
		facts = append(facts, open("/usr/bin/python3", fmt.Sprintf("/usr/lib/python3/d%c%c/m%c%c.py", 'a'+i%20, 'a'+i/20%20, 'a'+i%26, 'a'+i/26%26), r))
	}
	set := learnt(b, profile("web", facts...))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (kubearmor.Engine{}).Render(set); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	facts := random(rand.New(rand.NewPCG(1, 3)), 900)
	j := parse(b, namespace("block")+string(render(b, learnt(b, profile("web", facts...))).Base))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		j.Judge(web, facts[i%len(facts)])
	}
}
