package oracle_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	ciliumv2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	"github.com/cilium/cilium/pkg/policy/utils"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
)

type object = map[string]any

// TestCiliumJudgeAgreesWithCilium compares verdicts on policies as people might
// write them, with every feature of layers 3 and 4 in them, and, as a policy may
// be invalid, whether it is.
func TestCiliumJudgeAgreesWithCilium(t *testing.T) {
	setUp()
	g := &generator{Rand: rand.New(rand.NewPCG(1, 2))}
	all := ends()
	var count tally
	invalid := 0
	for range rounds(t, 540) {
		repo := newRepository(all)
		var objects []engine.Object
		var shown []string
		for i := range 1 + g.IntN(3) {
			doc := g.policy(i)
			data, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			o := objectOf(t, data)
			_, ourErr := cilium.New(cilium.Options{}).Parse([]engine.Object{o})
			var cnp ciliumv2.CiliumNetworkPolicy
			theirErr := json.Unmarshal(data, &cnp)
			if theirErr == nil {
				rules, err := cnp.Parse(repo.log, clusterName)
				if theirErr = err; err == nil && ourErr == nil {
					repo.add(i, utils.RulesToPolicyEntries(rules))
				}
			}
			if (ourErr != nil) != (theirErr != nil) {
				t.Fatalf("we say %v, Cilium says %v\n%s", ourErr, theirErr, data)
			}
			if ourErr != nil {
				invalid++
				continue
			}
			objects = append(objects, o)
			shown = append(shown, string(data))
		}
		j, err := cilium.New(cilium.Options{}).Parse(objects)
		if err != nil {
			t.Fatal(err)
		}
		count.compare(t, j, repo, all, testPorts(), func() string { return strings.Join(shown, "\n") })
	}
	t.Logf("%d policies were invalid to both", invalid)
	count.report(t)
	if all := count.allowed + count.denied; all < flows && os.Getenv("AUTOPOLICY_ORACLE_ROUNDS") == "" {
		t.Errorf("%d verdicts of both sides were compared, want %d", all, flows)
	}
}

// flows is how many certain verdicts have to be compared.
const flows = 100_000

// rounds is how many sets of policies to compare: set AUTOPOLICY_ORACLE_ROUNDS for
// more or fewer than are usual.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("AUTOPOLICY_ORACLE_ROUNDS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("AUTOPOLICY_ORACLE_ROUNDS: %v", err)
	}
	return n
}

func testPorts() []engine.Port {
	return []engine.Port{{Protocol: "tcp", Number: 80}, {Protocol: "tcp", Number: 8080}, {Protocol: "udp", Number: 53},
		{Protocol: "tcp", Number: 53}, {Protocol: "udp", Number: 8085}, {Protocol: "tcp", Number: 9999}, {Protocol: "sctp", Number: 80}, {Protocol: "icmp"}, {Protocol: "icmpv6"}}
}

func objectOf(t *testing.T, data []byte) engine.Object {
	t.Helper()
	var head struct {
		APIVersion, Kind string
		Metadata         struct{ Name, Namespace string }
	}
	if err := json.Unmarshal(data, &head); err != nil {
		t.Fatal(err)
	}
	return engine.Object{APIVersion: head.APIVersion, Kind: head.Kind, Namespace: head.Metadata.Namespace, Name: head.Metadata.Name, JSON: data}
}

// generator makes random policies, most of them valid.
type generator struct {
	*rand.Rand
	spoil   bool // the policy at hand may get things that no policy may have
	numbers bool // no names of ports
}

// unless gives the good value, or now and then, in a policy to spoil, the bad.
func (g *generator) unless(bad, good string) string {
	if g.spoil && g.IntN(4) == 0 {
		return bad
	}
	return good
}

// one picks a value.
func one[T any](g *generator, values ...T) T { return values[g.IntN(len(values))] }

// some makes a list of up to n, now and then an empty one.
func some[T any](g *generator, n int, make func() T) []T {
	list := []T{}
	for range g.IntN(n + 1) {
		list = append(list, make())
	}
	return list
}

func (g *generator) policy(i int) object {
	doc := object{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
		"metadata": object{"name": fmt.Sprintf("p%d", i), "namespace": one(g, "shop", "shop", "other")}}
	g.spoil = g.IntN(6) == 0
	if g.IntN(6) == 0 {
		doc["specs"] = some(g, 2, g.rule)
		if g.IntN(2) == 0 {
			return doc
		}
	}
	doc["spec"] = g.rule()
	return doc
}

func (g *generator) rule() object {
	r := object{"endpointSelector": g.selector(false)}
	for _, section := range []string{"ingress", "egress", "ingressDeny", "egressDeny"} {
		deny := strings.HasSuffix(section, "Deny")
		if g.IntN(3) == 0 && !deny || g.IntN(5) != 0 && deny {
			continue
		}
		r[section] = some(g, 4, func() object { return g.entry(strings.HasPrefix(section, "ingress"), deny) })
	}
	if !g.spoil {
		section := one(g, "ingress", "egress")
		r[section] = append([]object{g.entry(section == "ingress", false)}, some(g, 2, func() object { return g.entry(section == "ingress", false) })...)
	}
	if g.IntN(6) == 0 {
		r["enableDefaultDeny"] = object{one(g, "ingress", "egress"): g.IntN(3) == 0}
	}
	return r
}

func (g *generator) selector(peer bool) object {
	s := object{}
	prefix := one(g, "", "", "k8s:", "any:")
	switch g.IntN(6) {
	case 0:
	case 1, 2:
		s["matchLabels"] = object{prefix + "app": one(g, "web", "api", "store")}
	case 3:
		s["matchLabels"] = object{prefix + "tier": one(g, "front", "back"), prefix + "app": one(g, "web", "api", "store")}
	case 4:
		s["matchExpressions"] = []object{{"key": prefix + "app", "operator": one(g, "In", "NotIn"), "values": []string{one(g, "web", "api"), one(g, "store", "api")}}}
	case 5:
		s["matchExpressions"] = []object{{"key": prefix + one(g, "app", "tier", "app", "app", "missing"), "operator": g.unless("Gt", one(g, "Exists", "DoesNotExist", "Exists"))}}
	}
	if peer && g.IntN(3) == 0 {
		m, ok := s["matchLabels"].(object)
		if !ok {
			m = object{}
			s["matchLabels"] = m
		}
		switch g.IntN(5) {
		case 0:
			m["io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name"] = one(g, "shop", "other")
		case 1:
			m["reserved:"+one(g, "host", "world", "kube-apiserver")] = ""
		default:
			m[one(g, "k8s:", "k8s:", "")+"io.kubernetes.pod.namespace"] = one(g, "shop", "other")
		}
	}
	return s
}

func (g *generator) entry(ingress, deny bool) object {
	e := object{}
	prefix := "to"
	if ingress {
		prefix = "from"
	}
	cidr := func() string {
		return g.unless("300.1.1.1", one(g, "203.0.113.0/24", "203.0.113.7", "198.51.100.1/32", "0.0.0.0/0", "::/0", "2001:db8::/64", "10.0.0.0/8", "203.0.113.64/26"))
	}
	peers := func() {
		kinds := 6
		if !ingress && !deny {
			kinds = 7
		}
		switch g.IntN(kinds) {
		case 6:
			e["toFQDNs"] = some(g, 2, func() object {
				n := one(g, nameSelectors()...)
				if n.MatchName != "" {
					return object{"matchName": g.unless("exa mple", n.MatchName)}
				}
				return object{"matchPattern": g.unless("a$b", n.MatchPattern)}
			})
		case 0, 1, 2:
			e[prefix+"Endpoints"] = some(g, 2, func() object { return g.selector(true) })
		case 3:
			e[prefix+"CIDR"] = some(g, 2, cidr)
		case 4:
			e[prefix+"CIDRSet"] = some(g, 2, func() object {
				if g.IntN(2) == 0 {
					return object{"cidr": one(g, "203.0.113.0/24", g.unless("198.51.100.1", "198.51.100.1/32"), "0.0.0.0/0", "::/0")}
				}
				return object{"cidr": one(g, "203.0.113.0/24", "0.0.0.0/0"), "except": []string{g.unless("1.2.3.4/5", one(g, "203.0.113.0/26", "203.0.113.64/26", "203.0.113.7/32"))}}
			})
		case 5:
			e[prefix+"Entities"] = some(g, 2, func() string {
				return g.unless("nobody", one(g, "all", "world", "cluster", "host", "remote-node", "kube-apiserver", "none", "world-ipv4", "init", "cluster-mesh"))
			})
		}
	}
	if g.IntN(5) != 0 {
		peers()
		if g.spoil && g.IntN(4) == 0 {
			peers()
		}
	}
	if g.IntN(3) != 0 {
		e["toPorts"] = some(g, 2, func() object { return g.portRule(ingress, deny) })
	} else if g.IntN(4) == 0 {
		e["icmps"] = some(g, 2, func() object {
			return object{"fields": some(g, 2, func() object {
				if g.IntN(2) == 0 {
					return object{"family": g.unless("IPv5", "IPv6"), "type": one[any](g, 128, "EchoRequest", 129, "EchoReply", "PacketTooBig")}
				}
				return object{"family": "IPv4", "type": one[any](g, 8, "EchoRequest", "Echo", 0, 13, "EchoReply")}
			})}
		})
	}
	return e
}

func (g *generator) portRule(ingress, deny bool) object {
	r := object{}
	if g.IntN(8) != 0 {
		r["ports"] = some(g, 3, func() object {
			p := object{"port": g.unless("99999", one(g, "80", "80", "8080", "53", "8000", "0", "http"))}
			if g.IntN(2) == 0 {
				p["protocol"] = one(g, "TCP", "UDP", "ANY", "SCTP", "TCP")
			}
			if g.IntN(5) == 0 {
				p["endPort"] = one(g, 8090, 100, 65535, 1)
			}
			return p
		})
	}
	if !deny && !ingress && g.IntN(12) == 0 && (g.spoil || r["ports"] != nil) {
		r["ports"] = []object{{"port": "53", "protocol": one(g, "UDP", "TCP", "ANY")}}
		r["rules"] = object{"dns": []object{{"matchPattern": "*"}}}
	}
	if !deny && g.IntN(20) == 0 {
		r["ports"] = []object{{"port": g.unless("0", "80"), "protocol": g.unless("UDP", "TCP")}}
		r["rules"] = object{"http": []object{{"method": "GET"}}}
	}
	return r
}
