package cilium_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

func update() bool { return flag.Lookup("update").Value.String() == "true" }

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files")
	flag.Parse()
	os.Exit(m.Run())
}

func web() behavior.Workload {
	return behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}
}

// setOf makes the set that allows just the facts.
func setOf(facts []behavior.Fact) policy.Set {
	s := policy.Set{Workload: web(), Labels: map[string]string{"app": "web", "app.kubernetes.io/part-of": "shop"}, Containers: []string{"app"}}
	for _, f := range facts {
		s.Rules = append(s.Rules, policy.Rule{Kind: f.Kind, Container: "app", Exes: []string{f.Exe}, Direction: f.Direction, Protocol: f.Protocol,
			Port: f.Port, Peer: f.Peer, Facts: behavior.Selected(behavior.Observed{Fact: f})})
	}
	return s
}

func subject() engine.Subject {
	s := setOf(nil)
	return engine.Subject{Subject: behavior.Subject{Workload: s.Workload, Container: "app"}, Labels: s.Labels}
}

func goldenFacts(t *testing.T, dir string) []behavior.Fact {
	t.Helper()
	in, err := os.ReadFile(filepath.Join(dir, "in.json"))
	if err != nil {
		t.Fatal(err)
	}
	var facts []behavior.Fact
	if err := json.Unmarshal(in, &facts); err != nil {
		t.Fatal(err)
	}
	return facts
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if update() {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs: run with -update and look at the diff\n%s", file, got)
	}
}

func TestRender(t *testing.T) {
	for _, c := range []string{"web", "database", "cron"} {
		t.Run(c, func(t *testing.T) {
			dir := filepath.Join("testdata", c)
			facts := goldenFacts(t, dir)
			out, err := cilium.New(cilium.Options{}).Render(setOf(facts))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join(dir, "want.yaml"), string(out.Base))
			var notes strings.Builder
			for _, n := range out.Notes {
				fmt.Fprintln(&notes, n.Text)
			}
			golden(t, filepath.Join(dir, "notes.txt"), notes.String())
			for range 20 {
				rand.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
				again, err := cilium.New(cilium.Options{}).Render(setOf(facts))
				if err != nil || string(again.Base) != string(out.Base) || !slices.Equal(again.Notes, out.Notes) {
					t.Fatalf("shuffled facts gave other bytes or notes (%v)\n%s", err, again.Base)
				}
			}
		})
	}
}

func TestRenderInspectsDNSWhenAsked(t *testing.T) {
	facts := goldenFacts(t, "testdata/web")
	out, err := cilium.New(cilium.Options{InspectDNS: true}).Render(setOf(facts))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out.Base), "matchPattern: '*'") {
		t.Errorf("no DNS rule in\n%s", out.Base)
	}
}

func TestRenderSplitsManyPorts(t *testing.T) {
	var facts []behavior.Fact
	for p := range uint16(95) {
		facts = append(facts, network(behavior.Ingress, "tcp", 1000+p, workload("shop", "app=api")))
	}
	out, err := cilium.New(cilium.Options{}).Render(setOf(facts))
	if err != nil {
		t.Fatal(err)
	}
	judge := parse(t, string(out.Base))
	for _, f := range facts {
		if v := judge.Judge(subject(), f); v.Decision != engine.Allowed {
			t.Fatalf("%s: %v", f, v)
		}
	}
}

func TestRenderWithoutEvidence(t *testing.T) {
	for name, facts := range map[string][]behavior.Fact{
		"no facts":               nil,
		"facts of another kind":  {{Kind: behavior.File, Path: "/x", Access: behavior.Read}},
		"listening":              {network(behavior.Listen, "tcp", 80, behavior.Peer{})},
		"only itself":            {network(behavior.Egress, "tcp", 80, behavior.Peer{Kind: behavior.PeerSelf})},
		"a peer nobody knows":    {network(behavior.Egress, "tcp", 80, behavior.Peer{Address: netip.MustParseAddr("10.1.1.1")})},
		"a peer without labels":  {network(behavior.Egress, "tcp", 80, workload("shop", ""))},
		"labels that cannot be":  {network(behavior.Egress, "tcp", 80, workload("shop", "a b=c"))},
		"a namespace that is no": {network(behavior.Egress, "tcp", 80, workload("Shop/../x", "a=c"))},
	} {
		if out, err := cilium.New(cilium.Options{}).Render(setOf(facts)); !errors.Is(err, engine.ErrNoEvidence) || out.Base != nil {
			t.Errorf("%s: got %v\n%s", name, err, out.Base)
		}
	}
	s := setOf([]behavior.Fact{network(behavior.Egress, "tcp", 80, workload("shop", "app=api"))})
	s.Labels = nil
	out, err := cilium.New(cilium.Options{}).Render(s)
	if err != nil || out.Base != nil || len(out.Notes) != 1 {
		t.Errorf("a workload without labels: %v, notes %v\n%s", err, out.Notes, out.Base)
	}
}

func network(d behavior.Direction, protocol string, port uint16, p behavior.Peer) behavior.Fact {
	return behavior.Fact{Kind: behavior.Network, Direction: d, Protocol: protocol, Port: port, Peer: p}
}

func workload(namespace, labels string) behavior.Peer {
	return behavior.Peer{Kind: behavior.PeerWorkload, Namespace: namespace, Workload: "deployment-x", Labels: labels}
}

func address(kind behavior.PeerKind, addr string) behavior.Peer {
	return behavior.Peer{Kind: kind, Address: netip.MustParseAddr(addr)}
}

// parse reads a policy, or several, each after a line of dashes.
func parse(t *testing.T, text string) engine.Judge {
	t.Helper()
	var objects []engine.Object
	for doc := range strings.SplitSeq(text, "\n---\n") {
		objects = append(objects, object(t, doc))
	}
	j, err := cilium.New(cilium.Options{}).Parse(objects)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func object(t *testing.T, doc string) engine.Object {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	var head struct {
		APIVersion, Kind string
		Metadata         struct{ Name, Namespace string }
	}
	if err := json.Unmarshal(data, &head); err != nil {
		t.Fatal(err)
	}
	return engine.Object{APIVersion: head.APIVersion, Kind: head.Kind, Name: head.Metadata.Name, Namespace: head.Metadata.Namespace, JSON: data}
}

// TestRenderedPoliciesAllowTheirFacts is the property that learning rests on.
func TestRenderedPoliciesAllowTheirFacts(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 1))
	peers := []behavior.Peer{workload("shop", "app=api"), workload("other", "app=api"), workload("shop", "app=web,app.kubernetes.io/part-of=shop"),
		address(behavior.PeerNode, "10.0.0.1"), address(behavior.PeerNode, "10.0.0.2"), address(behavior.PeerAPIServer, "10.0.0.1"),
		address(behavior.PeerOutside, "203.0.113.9"), address(behavior.PeerOutside, "::ffff:203.0.113.10"), address(behavior.PeerOutside, "2001:db8::1")}
	for range 300 {
		var facts []behavior.Fact
		for range 1 + g.IntN(8) {
			facts = append(facts, network([]behavior.Direction{behavior.Ingress, behavior.Egress}[g.IntN(2)], []string{"tcp", "udp"}[g.IntN(2)],
				[]uint16{53, 80, 443, 8080}[g.IntN(4)], peers[g.IntN(len(peers))]))
		}
		out, err := cilium.New(cilium.Options{}).Render(setOf(facts))
		if err != nil {
			t.Fatal(err)
		}
		judge := parse(t, string(out.Base))
		for _, f := range facts {
			if v := judge.Judge(subject(), f); v.Decision != engine.Allowed || v.Object != "CiliumNetworkPolicy/autopolicy-deployment-web" {
				t.Fatalf("%s: %+v\n%s", f, v, out.Base)
			}
		}
		stranger := network(behavior.Egress, "tcp", 4444, address(behavior.PeerOutside, "198.51.100.66"))
		if v := judge.Judge(subject(), stranger); v.Decision != engine.Denied {
			t.Fatalf("a stranger is %v\n%s", v, out.Base)
		}
	}
}
