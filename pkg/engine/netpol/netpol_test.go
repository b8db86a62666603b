package netpol_test

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
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden files")
	flag.Parse()
	os.Exit(m.Run())
}

// setOf makes the set that allows just the facts.
func setOf(facts []behavior.Fact) policy.Set {
	s := policy.Set{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"},
		Labels: map[string]string{"app": "web"}, Containers: []string{"app"}}
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

func golden(t *testing.T, file, got string) {
	t.Helper()
	if flag.Lookup("update").Value.String() == "true" {
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
			in, err := os.ReadFile(filepath.Join(dir, "in.json"))
			if err != nil {
				t.Fatal(err)
			}
			var facts []behavior.Fact
			if err := json.Unmarshal(in, &facts); err != nil {
				t.Fatal(err)
			}
			out, err := netpol.New().Render(setOf(facts))
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
				again, err := netpol.New().Render(setOf(facts))
				if err != nil || string(again.Base) != string(out.Base) || !slices.Equal(again.Notes, out.Notes) {
					t.Fatalf("shuffled facts gave other bytes or notes (%v)\n%s", err, again.Base)
				}
			}
		})
	}
}

func TestRenderWithoutEvidenceOrLabels(t *testing.T) {
	if out, err := netpol.New().Render(setOf(nil)); !errors.Is(err, engine.ErrNoEvidence) || out.Base != nil {
		t.Errorf("no facts: got %v\n%s", err, out.Base)
	}
	s := setOf([]behavior.Fact{network(behavior.Egress, "tcp", 80, workload("shop", "app=api"))})
	s.Labels = nil
	if out, err := netpol.New().Render(s); err != nil || out.Base != nil || len(out.Notes) != 1 {
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

func parse(t *testing.T, text string) engine.Judge {
	t.Helper()
	j, err := netpol.New().Parse([]engine.Object{object(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestRenderedPoliciesAllowTheirFacts(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 1))
	peers := []behavior.Peer{workload("shop", "app=api"), workload("other", "app=api"), workload("shop", "app=web"),
		address(behavior.PeerNode, "10.0.0.1"), address(behavior.PeerNode, "fd00::1"), address(behavior.PeerAPIServer, "10.0.0.1"),
		address(behavior.PeerOutside, "203.0.113.9"), address(behavior.PeerOutside, "::ffff:203.0.113.10"), address(behavior.PeerOutside, "2001:db8::1")}
	for range 300 {
		var facts []behavior.Fact
		for range 1 + g.IntN(8) {
			facts = append(facts, network([]behavior.Direction{behavior.Ingress, behavior.Egress}[g.IntN(2)], []string{"tcp", "udp"}[g.IntN(2)],
				[]uint16{53, 80, 443, 8080}[g.IntN(4)], peers[g.IntN(len(peers))]))
		}
		out, err := netpol.New().Render(setOf(facts))
		if err != nil {
			t.Fatal(err)
		}
		judge := parse(t, string(out.Base))
		for _, f := range facts {
			if v := judge.Judge(subject(), f); v.Decision != engine.Allowed || v.Object != "NetworkPolicy/autopolicy-deployment-web" {
				t.Fatalf("%s: %+v\n%s", f, v, out.Base)
			}
		}
		stranger := network(behavior.Egress, "tcp", 4444, address(behavior.PeerOutside, "198.51.100.66"))
		if v := judge.Judge(subject(), stranger); v.Decision != engine.Denied {
			t.Fatalf("a stranger is %v\n%s", v, out.Base)
		}
	}
}

// TestWhatItCannotSayIsNotedAndNeverWidens lists what a NetworkPolicy has no words
// for, each of which is a note.
func TestWhatItCannotSayIsNotedAndNeverWidens(t *testing.T) {
	outside := behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("203.0.113.7")}
	api := behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-api", Labels: "app=api"}
	fact := func(protocol string, port uint16, p behavior.Peer) behavior.Fact {
		return behavior.Fact{Kind: behavior.Network, Direction: behavior.Egress, Protocol: protocol, Port: port, Peer: p}
	}
	named := fact("tcp", 443, outside)
	named.Peer.Name = "api.example"
	request := behavior.Fact{Kind: behavior.HTTP, Direction: behavior.Egress, Protocol: "tcp", Port: 80, Type: "http", Name: "GET", Path: "/", Peer: api}
	question := behavior.Fact{Kind: behavior.DNS, Protocol: "udp", Port: 53, Name: "api.example", Type: "A", Peer: api}
	for name, tc := range map[string]struct {
		facts []behavior.Fact
		note  string
		types string // that the policy is about; empty: there is none
	}{
		"a name":                    {[]behavior.Fact{named, fact("tcp", 80, api)}, "every public address is allowed on its ports", "Ingress,Egress"},
		"a ping":                    {[]behavior.Fact{fact("icmp", 0, api), fact("tcp", 80, api)}, "left out: ICMP, egress", "Ingress,Egress"},
		"requests":                  {[]behavior.Fact{fact("tcp", 80, api), request}, "HTTP requests are not restricted", "Ingress,Egress"},
		"names that are asked for":  {[]behavior.Fact{fact("udp", 53, api), question}, "names that are asked for are not restricted", "Ingress,Egress"},
		"a direction without facts": {[]behavior.Fact{fact("tcp", 80, api)}, "no ingress was observed, so all ingress is refused", "Ingress,Egress"},
	} {
		t.Run(name, func(t *testing.T) {
			s := setOf(tc.facts)
			for i := range s.Rules {
				f := tc.facts[i]
				s.Rules[i].Name, s.Rules[i].Type, s.Rules[i].Path, s.Rules[i].Match = f.Name, f.Type, f.Path, policy.Exact
				if f.Peer.Name != "" {
					s.Rules[i].Peer = behavior.Peer{Kind: behavior.PeerOutside, Name: f.Peer.Name}
				}
			}
			out, err := netpol.New().Render(s)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(out.Notes, func(n policy.Note) bool { return strings.Contains(n.Text, tc.note) }) {
				t.Errorf("no note says %q: %v", tc.note, out.Notes)
			}
			var doc struct {
				Spec struct{ PolicyTypes []string }
			}
			if err := yaml.Unmarshal(out.Base, &doc); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(doc.Spec.PolicyTypes, ","); got != tc.types {
				t.Errorf("policy types are %q\n%s", got, out.Base)
			}
			if strings.Contains(string(out.Base), "203.0.113") {
				t.Errorf("an address of now stands for a name\n%s", out.Base)
			}
		})
	}
}

// A name stands for any public address on its ports: what it leads to tomorrow passes,
// and neither another port nor anything within the cluster does.
func TestANameOpensPublicAddressesOnItsPortsAndNoOthers(t *testing.T) {
	to := func(address string, port uint16) behavior.Fact {
		return network(behavior.Egress, "tcp", port, behavior.Peer{Kind: behavior.PeerOutside, Name: "api.example", Address: netip.MustParseAddr(address)})
	}
	seen := []behavior.Fact{to("203.0.113.7", 443), to("10.20.0.9", 443)}
	s := setOf(seen[:1])
	s.Rules[0].Facts = behavior.Selected(behavior.Observed{Fact: seen[0]}, behavior.Observed{Fact: seen[1]})
	s.Rules[0].Peer.Address = netip.Addr{}
	out, err := netpol.New().Render(s)
	if err != nil {
		t.Fatal(err)
	}
	j, err := netpol.New().Parse([]engine.Object{object(t, string(out.Base))})
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[behavior.Fact]engine.Decision{
		seen[0]:                    engine.Allowed,
		seen[1]:                    engine.Allowed, // private, and where the name led
		to("198.51.100.4", 443):    engine.Allowed, // tomorrow
		to("198.51.100.4", 80):     engine.Denied,
		to("10.20.0.8", 443):       engine.Denied,
		to("169.254.169.254", 443): engine.Denied,
		to("2001:db8::1", 443):     engine.Denied, // a family that it never led to
	} {
		if got := j.Judge(subject(), f).Decision; got != want {
			t.Errorf("%s: %s, want %s", f, got, want)
		}
	}
}
