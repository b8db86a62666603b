package oracle_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/cilium/pkg/endpoint/regeneration"
	ciliumv2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	"github.com/cilium/cilium/pkg/policy/utils"
	"github.com/cilium/cilium/pkg/u8proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
)

// passes tells what Cilium's proxy would do with a request or a question, once
// the connection itself is allowed: the rules that Cilium computed for the port
// and the peer, of which one has to match as a whole, or one that asks for
// nothing has to be there.
func (r *repository) passes(t *testing.T, subject, peer end, f behavior.Fact) bool {
	t.Helper()
	direction, proto := f.Direction, u8proto.TCP
	if f.Kind == behavior.DNS {
		direction = behavior.Egress
		if f.Protocol == "udp" {
			proto = u8proto.UDP
		}
	}
	r.ids.Add(subject.id)
	defer r.ids.Remove(subject.id)
	selected, _, err := r.repo.ComputeSelectorPolicy(subject.id)
	if err != nil {
		t.Fatal(err)
	}
	computed := selected.DistillPolicy(r.log, owner{}, nil)
	computed.Ready()
	defer computed.Detach(r.log)
	rules := &computed.SelectorPolicy.L4Policy.Egress
	if direction == behavior.Ingress {
		rules = &computed.SelectorPolicy.L4Policy.Ingress
	}
	for filter := range rules.PortRules.Filters() {
		inRange := filter.Port == 0 || filter.Port == f.Port || filter.EndPort > 0 && f.Port > filter.Port && f.Port <= filter.EndPort
		if !inRange || filter.U8Proto != u8proto.ANY && filter.U8Proto != proto {
			continue
		}
		for selector, per := range filter.PerSelectorPolicies {
			if selector.Selects(peer.id.ID) && (per == nil || lets(t, per.L7Rules, f)) {
				return true
			}
		}
	}
	return false
}

// owner is an endpoint without a name for any port.
type owner struct{}

func (owner) GetID() uint64                                      { return 1 }
func (owner) GetIngressNamedPort(string, u8proto.U8proto) uint16 { return 0 }
func (owner) PolicyDebug(string, ...any)                         {}
func (owner) IsHost() bool                                       { return false }
func (owner) PreviousMapState() *policy.MapState                 { return nil }
func (owner) RegenerateIfAlive(*regeneration.ExternalRegenerationMetadata) <-chan bool {
	done := make(chan bool)
	close(done)
	return done
}

func lets(t *testing.T, rules api.L7Rules, f behavior.Fact) bool {
	t.Helper()
	if rules.IsEmpty() {
		return true
	}
	whole := func(expression, text string) bool {
		re, err := regexp.Compile("^(?:" + expression + ")$")
		if err != nil {
			t.Fatal(err)
		}
		return expression == "" || re.MatchString(text)
	}
	for _, h := range rules.HTTP {
		if f.Kind == behavior.HTTP && whole(h.Method, f.Name) && whole(h.Path, f.Path) && whole(h.Host, f.Target) {
			return true
		}
	}
	for _, d := range rules.DNS {
		selector := api.FQDNSelector(d)
		re, err := selector.ToRegex()
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind == behavior.DNS && re.MatchString(strings.ToLower(f.Name)+".") {
			return true
		}
	}
	return false
}

func (g *generator) layer7Rule() object {
	to := one(g, []object{{"matchLabels": object{"app": "api"}}}, []object{{}}, []object{{"matchLabels": object{"tier": "back"}}})
	e := object{"toEndpoints": to}
	http := func() object {
		r := object{}
		if g.IntN(3) != 0 {
			r["method"] = one(g, "GET", "GET|HEAD", "P.*", "^POST$")
		}
		if g.IntN(3) != 0 {
			r["path"] = one(g, "/items/[0-9]+", "^/items/[0-9]+([?].*)?$", "/.*", "/(a|b)", "/items", `/a\.b`)
		}
		if g.IntN(5) == 0 {
			r["host"] = one(g, "api", `^api(:[0-9]+)?$`, "a.*")
		}
		return r
	}
	switch g.IntN(5) {
	case 0:
		e["toPorts"] = []object{{"ports": []object{{"port": one(g, "80", "8080", "0"), "protocol": one(g, "TCP", "ANY")}}}}
	case 1:
		e["toPorts"] = []object{{"ports": []object{{"port": "53", "protocol": "ANY"}}, "rules": object{"dns": some(g, 3, func() object {
			n := one(g, nameSelectors()...)
			if n.MatchName != "" {
				return object{"matchName": n.MatchName}
			}
			return object{"matchPattern": n.MatchPattern}
		})}}}
	default:
		port := object{"port": one(g, "80", "80", "8080"), "protocol": "TCP"}
		if g.IntN(6) == 0 {
			port["endPort"] = 8090
		}
		e["toPorts"] = []object{{"ports": []object{port}, "rules": object{"http": some(g, 3, http)}}}
	}
	return e
}

func (g *generator) inside(peer end) behavior.Fact {
	if g.IntN(3) == 0 {
		return behavior.Fact{Kind: behavior.DNS, Protocol: one(g, "udp", "tcp"), Port: 53, Type: "A", Peer: peer.peer,
			Name: one(g, "api.example.com", "example.com", "a.b.example.com", "www.example.org", "other.example", "anexample.com")}
	}
	return behavior.Fact{Kind: behavior.HTTP, Direction: behavior.Egress, Protocol: "tcp", Port: one[uint16](g, 80, 80, 8080, 81), Type: "http", Peer: peer.peer,
		Name: one(g, "GET", "HEAD", "POST", "PUT", "DELETE"), Target: one(g, "api", "api:80", "other"),
		Path: one(g, "/items/17", "/items", "/items/", "/a", "/b", "/c", "/a.b", "/axb", "/items/17/x", "/")}
}

// TestCiliumJudgeAgreesAboutRequests compares verdicts on what is inside
// connections: HTTP requests, and the names that a server is asked for.
func TestCiliumJudgeAgreesAboutRequests(t *testing.T) {
	setUp()
	g := &generator{Rand: rand.New(rand.NewPCG(9, 10))}
	all := ends()
	var count tally
	for range rounds(t, 300) {
		repo := newRepository(all)
		var objects []engine.Object
		var shown []string
		for i := range 1 + g.IntN(3) {
			doc := object{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": object{"name": fmt.Sprintf("p%d", i), "namespace": "shop"},
				"spec": object{"endpointSelector": object{"matchLabels": object{"app": "web"}}, "egress": append([]object{g.layer7Rule()}, some(g, 3, g.layer7Rule)...)}}
			data, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			var cnp ciliumv2.CiliumNetworkPolicy
			if err := json.Unmarshal(data, &cnp); err != nil {
				t.Fatal(err)
			}
			rules, err := cnp.Parse(repo.log, clusterName)
			if err != nil {
				t.Fatalf("%v\n%s", err, data)
			}
			repo.add(i, utils.RulesToPolicyEntries(rules))
			objects = append(objects, objectOf(t, data))
			shown = append(shown, string(data))
		}
		j, err := cilium.New(cilium.Options{}).Parse(objects)
		if err != nil {
			t.Fatalf("%v\n%s", err, strings.Join(shown, "\n"))
		}
		subject := all[0]
		for range 40 {
			peer := all[1+g.IntN(5)]
			f := g.inside(peer)
			want := repo.passes(t, subject, peer, f)
			v := j.Judge(subject.subject(), f)
			switch {
			case v.Decision == engine.Unknown:
				count.unknown++
			case (v.Decision != engine.Denied) != want:
				t.Fatalf("%s: Cilium lets it pass: %v, we say %s (%s)\n%s", f, want, v.Decision, v.Reason, strings.Join(shown, "\n"))
			case want:
				count.allowed++
			default:
				count.denied++
			}
		}
	}
	count.report(t)
}
