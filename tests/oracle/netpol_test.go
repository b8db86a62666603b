package oracle_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/cilium/pkg/k8s"
	slimnetworking "github.com/cilium/cilium/pkg/k8s/slim/k8s/api/networking/v1"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
)

// podsAndOutside leaves out nodes and API servers, whom Cilium does not count to
// ipBlocks while other network plugins do, and those told by a name.
func podsAndOutside() []end {
	return slices.DeleteFunc(ends(), func(e end) bool {
		return e.peer.Name != "" || e.peer.Kind == behavior.PeerNode || e.peer.Kind == behavior.PeerOwnNode || e.peer.Kind == behavior.PeerAPIServer
	})
}

// netpolPorts leaves out ICMP, of which the API says nothing.
func netpolPorts() []engine.Port {
	return slices.DeleteFunc(testPorts(), func(p engine.Port) bool { return engine.IsICMP(p.Protocol) })
}

func (r *repository) addNetworkPolicy(t *testing.T, i int, data []byte) {
	t.Helper()
	var np slimnetworking.NetworkPolicy
	if err := json.Unmarshal(data, &np); err != nil {
		t.Fatal(err)
	}
	entries, err := k8s.ParseNetworkPolicy(r.log, clusterName, &np)
	if err != nil {
		t.Fatalf("Cilium refuses it: %v\n%s", err, data)
	}
	r.add(i, entries)
}

// TestNetworkPolicyJudgeAgreesWithCilium compares verdicts with those of Cilium
// as a second implementation of NetworkPolicy.
func TestNetworkPolicyJudgeAgreesWithCilium(t *testing.T) {
	setUp()
	g := &generator{Rand: rand.New(rand.NewPCG(5, 6))}
	all := podsAndOutside()
	var count tally
	for range rounds(t, 200) {
		repo := newRepository(all)
		var objects []engine.Object
		var shown []string
		for i := range 1 + g.IntN(3) {
			data, err := json.Marshal(g.networkPolicy(i))
			if err != nil {
				t.Fatal(err)
			}
			repo.addNetworkPolicy(t, i, data)
			objects = append(objects, objectOf(t, data))
			shown = append(shown, string(data))
		}
		j, err := netpol.New().Parse(objects)
		if err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(shown, "\n"))
		}
		count.compare(t, j, repo, all, netpolPorts(), func() string { return strings.Join(shown, "\n") })
	}
	count.report(t)
}

// TestRenderedNetworkPoliciesAllowTheirFacts gives them to Cilium.
func TestRenderedNetworkPoliciesAllowTheirFacts(t *testing.T) {
	setUp()
	g := rand.New(rand.NewPCG(7, 8))
	all := podsAndOutside()
	for range 40 {
		subject := all[g.IntN(6)]
		facts := observed(g, subject, all, 2+g.IntN(12), netpolPorts())
		if len(facts) == 0 {
			continue
		}
		set := learned(t, subject, facts)
		o, data := render(t, netpol.New(), set)
		repo := newRepository(all)
		repo.addNetworkPolicy(t, 0, data)
		j, err := netpol.New().Parse([]engine.Object{o})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range facts {
			for _, peer := range all {
				if f.Kind != behavior.Network || peer.peer != f.Peer || peer.id == subject.id {
					continue
				}
				if !repo.allows(t, subject, peer, f.Direction, f.Protocol, f.Port) {
					t.Fatalf("Cilium denies %s\n%s", f, data)
				}
				if v := j.Judge(subject.subject(), f); v.Decision != engine.Allowed {
					t.Fatalf("we say %v of %s\n%s", v, f, data)
				}
			}
		}
		var count tally
		count.compare(t, j, repo, all, netpolPorts(), func() string { return string(data) })
	}
}

func (g *generator) networkPolicy(i int) object {
	spec := object{"podSelector": g.podSelector()}
	for section, peers := range map[string]string{"ingress": "from", "egress": "to"} {
		if g.IntN(4) == 0 {
			continue
		}
		spec[section] = some(g, 3, func() object {
			r := object{}
			if g.IntN(6) != 0 {
				r[peers] = some(g, 2, g.networkPolicyPeer)
			}
			if g.IntN(4) != 0 {
				r["ports"] = some(g, 3, g.networkPolicyPort)
			}
			return r
		})
	}
	switch g.IntN(4) {
	case 0:
		// Cilium heeds rules of a direction that the policy is not about, which
		// the API says have no effect: there are none.
		only := one(g, "Ingress", "Egress")
		spec["policyTypes"] = []string{only}
		delete(spec, map[string]string{"Ingress": "egress", "Egress": "ingress"}[only])
	case 1:
		spec["policyTypes"] = []string{"Ingress", "Egress"}
	}
	return object{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
		"metadata": object{"name": fmt.Sprintf("p%d", i), "namespace": one(g, "shop", "other")}, "spec": spec}
}

func (g *generator) podSelector() object {
	switch g.IntN(5) {
	case 0:
		return object{}
	case 1:
		return object{"matchLabels": object{"tier": one(g, "front", "back")}}
	case 2:
		return object{"matchExpressions": []object{{"key": "app", "operator": one(g, "In", "NotIn"), "values": []string{one(g, "web", "api"), "store"}}}}
	case 3:
		return object{"matchExpressions": []object{{"key": "tier", "operator": one(g, "Exists", "DoesNotExist")}}}
	}
	return object{"matchLabels": object{"app": one(g, "web", "api", "store")}}
}

func (g *generator) networkPolicyPeer() object {
	namespaces := func() object {
		if g.IntN(3) == 0 {
			return object{}
		}
		return object{"matchLabels": object{"kubernetes.io/metadata.name": one(g, "shop", "other")}}
	}
	switch g.IntN(5) {
	case 0:
		return object{"namespaceSelector": namespaces()}
	case 1:
		return object{"namespaceSelector": namespaces(), "podSelector": g.podSelector()}
	case 2:
		b := object{"cidr": one(g, "203.0.113.0/24", "0.0.0.0/0", "198.51.100.0/24")}
		if b["cidr"] == "203.0.113.0/24" {
			b["except"] = some(g, 1, func() string { return one(g, "203.0.113.64/26", "203.0.113.7/32") })
		}
		return object{"ipBlock": b}
	}
	return object{"podSelector": g.podSelector()}
}

func (g *generator) networkPolicyPort() object {
	p := object{}
	if g.IntN(2) == 0 {
		p["protocol"] = one(g, "TCP", "UDP", "SCTP")
	}
	switch g.IntN(5) {
	case 0:
	case 1:
		p["port"], p["endPort"] = 8000, one(g, 8090, 8000, 65535)
	case 2:
		p["port"] = one(g, "http", "dns")
		if g.numbers {
			p["port"] = 80
		}
	default:
		p["port"] = one(g, 80, 8080, 53)
	}
	return p
}
