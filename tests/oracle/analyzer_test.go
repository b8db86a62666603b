package oracle_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/np-guard/netpol-analyzer/pkg/netpol/eval"
	corev1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
)

// analyzer is np-guard's evaluation of NetworkPolicies with the ends in it.
func analyzer(t *testing.T, ends []end) *eval.PolicyEngine {
	t.Helper()
	pe := eval.NewPolicyEngine()
	for _, ns := range []string{"shop", "other"} {
		o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: map[string]string{"kubernetes.io/metadata.name": ns}}}
		if err := pe.UpsertObject(o); err != nil {
			t.Fatal(err)
		}
	}
	for i, e := range ends {
		if !e.pod {
			continue
		}
		ip := fmt.Sprintf("10.1.0.%d", i+1)
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: e.namespace, Name: e.labels["app"], Labels: e.labels},
			Status: corev1.PodStatus{HostIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: ip}}, PodIP: ip}}
		if err := pe.UpsertObject(p); err != nil {
			t.Fatal(err)
		}
	}
	return pe
}

// who is an end as the analyzer calls it.
func (e end) who() string {
	if e.pod {
		return e.namespace + "/" + e.labels["app"]
	}
	return e.peer.Address.String()
}

// truth tells whether a verdict lets a connection pass.
func truth(v engine.Verdict) engine.Truth {
	switch v.Decision {
	case engine.Denied:
		return engine.No
	case engine.Unknown:
		return engine.Maybe
	}
	return engine.Yes
}

// TestNetworkPolicyJudgeAgreesWithTheAnalyzer compares whole connections, which
// pass where the egress of one pod and the ingress of the other let them, with
// np-guard's netpol-analyzer.
func TestNetworkPolicyJudgeAgreesWithTheAnalyzer(t *testing.T) {
	// It fails on a name of a port where the other end is an address.
	g := &generator{Rand: rand.New(rand.NewPCG(11, 12)), numbers: true}
	var all []end
	for _, e := range podsAndOutside() {
		if e.pod || e.peer.Address.Is4() { // it knows no IPv6
			all = append(all, e)
		}
	}
	var count tally
	for range rounds(t, 1200) {
		pe := analyzer(t, all)
		var objects []engine.Object
		var shown []string
		for i := range 1 + g.IntN(3) {
			data, err := json.Marshal(g.networkPolicy(i))
			if err != nil {
				t.Fatal(err)
			}
			var np networking.NetworkPolicy
			if err := json.Unmarshal(data, &np); err != nil {
				t.Fatal(err)
			}
			if err := pe.UpsertObject(&np); err != nil {
				t.Fatalf("%v\n%s", err, data)
			}
			objects = append(objects, objectOf(t, data))
			shown = append(shown, string(data))
		}
		j, err := netpol.New().Parse(objects)
		if err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(shown, "\n"))
		}
		for _, from := range all {
			for _, to := range all {
				if !from.pod && !to.pod || from.id == to.id {
					continue
				}
				port := one(g, netpolPorts()...)
				ours := engine.Yes
				for _, side := range []struct {
					direction behavior.Direction
					own, peer end
				}{{behavior.Egress, from, to}, {behavior.Ingress, to, from}} {
					if side.own.pod {
						f := behavior.Fact{Kind: behavior.Network, Direction: side.direction, Protocol: port.Protocol, Port: port.Number, Peer: side.peer.peer}
						ours = ours.And(truth(j.Judge(side.own.subject(), f)))
					}
				}
				theirs, err := pe.CheckIfAllowed(from.who(), to.who(), strings.ToUpper(port.Protocol), strconv.Itoa(int(port.Number)))
				if err != nil {
					t.Fatal(err)
				}
				switch {
				case ours == engine.Maybe:
					count.unknown++
				case (ours == engine.Yes) != theirs:
					t.Fatalf("%s to %s on %s/%d: the analyzer allows it: %v\n%s", from.who(), to.who(), port.Protocol, port.Number, theirs, strings.Join(shown, "\n"))
				case theirs:
					count.allowed++
				default:
					count.denied++
				}
			}
		}
	}
	count.report(t)
}
