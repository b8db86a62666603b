package kubearmor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
)

// Sockets that send nothing are not seen in traffic: a list of protocols made of it
// would deny them.
func TestNoListOfProtocolsIsMadeOfTrafficAlone(t *testing.T) {
	flow := behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: "tcp", Port: 80,
		Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-api", Labels: "app=api"}}
	named := flow
	named.Exe, named.Port = "/usr/bin/web", 81
	for name, c := range map[string]struct {
		facts []behavior.Fact
		made  bool
	}{
		"traffic alone":                   {[]behavior.Fact{flow}, false},
		"traffic, and programs that talk": {[]behavior.Fact{flow, named}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := behavior.Profile{Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"}, Labels: "app=web"}
			for _, f := range c.facts {
				e := behavior.Evidence{Pods: map[string]uint64{"web-1": 1}}
				if f.Exe == "" {
					e.Witnesses = []string{behavior.ByHubble}
				}
				p.Add(f, e)
			}
			set, err := learn.Rules([]behavior.Profile{p}, learn.Options{Decided: accepted})
			if err != nil {
				t.Fatal(err)
			}
			r, err := kubearmor.Engine{}.Render(set)
			if err != nil && !errors.Is(err, engine.ErrNoEvidence) {
				t.Fatal(err)
			}
			if made := strings.Contains(string(r.Base), "matchProtocols"); made != c.made {
				t.Errorf("a list of protocols was made: %v, want %v\n%s", made, c.made, r.Base)
			}
			said := false
			for _, n := range r.Notes {
				said = said || strings.Contains(n.Text, "only its traffic")
			}
			if said == c.made {
				t.Errorf("notes are %v", r.Notes)
			}
		})
	}
}
