package rollout_test

import (
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
)

// A probe was once learned as coming from the address of one node, and refused
// when the pod had moved to another.
func TestProbesFromThePodsOwnNodeAreAllowedOnEveryNode(t *testing.T) {
	subject := engine.Subject{Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"}, Labels: map[string]string{"app": "web"}}
	probe := behavior.Fact{Kind: behavior.Network, Exe: "/web", Direction: behavior.Ingress, Protocol: "tcp", Port: 8080, Peer: behavior.Peer{Kind: behavior.PeerOwnNode}}
	other := probe
	other.Port = 9090
	other.Peer = behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-x", Labels: "app=x"}
	profile := behavior.Profile{Subject: subject.Subject, Labels: "app=web"}
	at := time.Unix(1_700_000_000, 0).UTC()
	profile.Add(probe, behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{"web-1": 1}})
	set, err := learn.Rules([]behavior.Profile{profile}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []engine.Engine{netpol.New(), cilium.New(cilium.Options{})} {
		rendered, err := e.Render(set)
		if err != nil {
			t.Fatal(err)
		}
		json, err := yaml.YAMLToJSON(rendered.Base)
		if err != nil {
			t.Fatal(err)
		}
		var head struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(json, &head); err != nil {
			t.Fatal(err)
		}
		judge, err := e.Parse([]engine.Object{{APIVersion: head.APIVersion, Kind: head.Kind, Name: head.Metadata.Name, Namespace: head.Metadata.Namespace, JSON: json}})
		if err != nil {
			t.Fatal(err)
		}
		if v := judge.Judge(subject, probe); v.Decision != engine.Allowed {
			t.Errorf("%s: a probe is %s (%s)\n%s", e.Name(), v.Decision, v.Reason, rendered.Base)
		}
		if v := judge.Judge(subject, other); v.Decision != engine.Denied {
			t.Errorf("%s: another pod is %s\n%s", e.Name(), v.Decision, rendered.Base)
		}
	}
}
