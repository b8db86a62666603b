package cilium_test

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// said makes a rule of a request, a question or a connection.
func said(f behavior.Fact, match policy.Match) policy.Rule {
	r := policy.Rule{Kind: f.Kind, Container: "app", Exes: []string{f.Exe}, Direction: f.Direction, Protocol: f.Protocol, Port: f.Port, Peer: f.Peer,
		Name: f.Name, Type: f.Type, Host: policy.HostName(f.Target), Path: f.Path, Match: match, Facts: behavior.Selected(behavior.Observed{Fact: f})}
	if r.Peer.Name != "" {
		r.Peer = behavior.Peer{Kind: r.Peer.Kind, Name: r.Peer.Name}
	}
	return r
}

func render(t *testing.T, o cilium.Options, rules ...policy.Rule) (string, []string) {
	t.Helper()
	s := setOf(nil)
	s.Rules = rules
	out, err := cilium.New(o).Render(s)
	if err != nil {
		t.Fatal(err)
	}
	var notes []string
	for _, n := range out.Notes {
		notes = append(notes, n.Text)
	}
	return string(out.Base), notes
}

func asksDNS(name string) behavior.Fact {
	return behavior.Fact{Kind: behavior.DNS, Protocol: "udp", Port: 53, Name: name, Type: "A", Peer: workload("kube-system", "k8s-app=kube-dns")}
}

func named(address_, name string) behavior.Fact {
	f := network(behavior.Egress, "tcp", 443, address(behavior.PeerOutside, address_))
	f.Peer.Name = name
	return f
}

func requests(method, host, path string) behavior.Fact {
	return behavior.Fact{Kind: behavior.HTTP, Direction: behavior.Egress, Protocol: "tcp", Port: 80, Type: "http", Name: method, Target: host, Path: path,
		Peer: workload("shop", "app=api")}
}

func TestRenderNamesWithTheDNSRuleThatTheyNeed(t *testing.T) {
	base, notes := render(t, cilium.Options{}, said(named("203.0.113.7", "api.example"), ""), said(named("203.0.113.8", "api.example"), ""),
		said(named("203.0.113.9", "cdn.example"), ""), said(asksDNS("api.example"), ""), said(asksDNS("cdn.example"), ""),
		said(behavior.Fact{Kind: behavior.DNS, Protocol: "udp", Port: 53, Name: "*.*.*.*.in-addr.arpa", Peer: asksDNS("").Peer}, policy.Pattern))
	golden(t, "testdata/names.yaml", base)
	for _, n := range notes {
		if strings.Contains(n, "left out") || strings.Contains(n, "DNS") {
			t.Errorf("noted: %s", n)
		}
	}
	judge := parse(t, base)
	for f, want := range map[behavior.Fact]engine.Decision{
		named("198.51.100.1", "api.example"):     engine.Allowed, // it moved
		named("203.0.113.7", "evil.example"):     engine.Denied,
		named("203.0.113.7", "x.api.example"):    engine.Denied,
		asksDNS("api.example"):                   engine.Allowed,
		asksDNS("1.2.0.192.in-addr.arpa"):        engine.Allowed,
		asksDNS("secret.evil.example"):           engine.Denied,
		asksDNS("a.b.c.d.in-addr.arpa.evil.tld"): engine.Denied,
	} {
		if v := judge.Judge(subject(), f); v.Decision != want {
			t.Errorf("%s: %v (%s), want %v", f, v.Decision, v.Reason, want)
		}
	}
}

func TestANameWithoutADNSServerIsItsAddresses(t *testing.T) {
	base, notes := render(t, cilium.Options{}, said(named("203.0.113.7", "api.example"), ""))
	if strings.Contains(base, "toFQDNs") || !strings.Contains(base, "203.0.113.7/32") || len(notes) == 0 || !strings.Contains(notes[0], "no DNS server was seen") {
		t.Errorf("notes %q\n%s", notes, base)
	}
}

func TestRenderRequests(t *testing.T) {
	rules := []policy.Rule{said(network(behavior.Egress, "tcp", 80, workload("shop", "app=api")), ""),
		said(requests("GET", "api:80", "/items/{number}"), policy.Template), said(requests("POST", "api", "/a.b(c)+"), policy.Exact),
		said(requests("HEAD", "", "/"), policy.Recursive)}
	base, _ := render(t, cilium.Options{}, rules...)
	golden(t, "testdata/requests.yaml", base)
	judge := parse(t, base)
	for f, want := range map[behavior.Fact]engine.Decision{
		requests("GET", "api", "/items/17"):         engine.Allowed,
		requests("GET", "api:8080", "/items/17"):    engine.Allowed,
		requests("GET", "api", "/items/17?page=2"):  engine.Allowed,
		requests("GET", "api", "/items/17/x"):       engine.Denied,
		requests("GET", "api", "/items/17\\\\x2fx"): engine.Denied,
		requests("GET", "api.evil", "/items/17"):    engine.Denied,
		requests("GETX", "api", "/items/17"):        engine.Denied,
		requests("POST", "api", "/a.b(c)+"):         engine.Allowed,
		requests("POST", "api", "/axb(c)+"):         engine.Denied,
		requests("POST", "api", "/a.bc"):            engine.Denied,
		requests("HEAD", "whoever", "/what/ever"):   engine.Allowed,
		requests("DELETE", "api", "/items/17"):      engine.Denied,
	} {
		if v := judge.Judge(subject(), f); v.Decision != want {
			t.Errorf("%s: %v (%s), want %v", f, v.Decision, v.Reason, want)
		}
	}
}

func TestRenderWhatElseAPeerCanBe(t *testing.T) {
	legacy := network(behavior.Egress, "tcp", 5432, behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.7"), Service: "data/legacy:5432"})
	ranged := said(network(behavior.Egress, "tcp", 443, behavior.Peer{Kind: behavior.PeerOutside}), "")
	ranged.Prefix = netip.MustParsePrefix("203.0.113.0/24")
	rules := []policy.Rule{said(legacy, ""), ranged, said(network(behavior.Egress, "tcp", 80, address(behavior.PeerLinkLocal, "169.254.169.254")), ""),
		said(network(behavior.Egress, "icmp", 0, workload("shop", "app=api")), ""), said(network(behavior.Ingress, "tcp", 80, workload("shop", "app=front")), "")}
	for p := range uint16(6) {
		rules = append(rules, said(network(behavior.Egress, "udp", 7000+p, workload("shop", "app=api")), ""))
	}
	base, _ := render(t, cilium.Options{MutualAuth: true}, rules...)
	golden(t, "testdata/peers.yaml", base)
	data, err := cilium.New(cilium.Options{MutualAuth: true}).Parse([]engine.Object{object(t, base)})
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[behavior.Fact]engine.Decision{
		legacy: engine.Allowed,
		network(behavior.Egress, "tcp", 443, address(behavior.PeerOutside, "203.0.113.200")): engine.Allowed,
		network(behavior.Egress, "tcp", 443, address(behavior.PeerOutside, "203.0.114.1")):   engine.Denied,
		network(behavior.Egress, "icmp", 0, workload("shop", "app=api")):                     engine.Allowed,
		network(behavior.Egress, "udp", 7005, workload("shop", "app=api")):                   engine.Allowed,
		network(behavior.Egress, "udp", 7006, workload("shop", "app=api")):                   engine.Denied,
	} {
		if v := data.Judge(subject(), f); v.Decision != want {
			t.Errorf("%s: %v (%s), want %v", f, v.Decision, v.Reason, want)
		}
	}
}

// FuzzRequestsEndUpLiteral gives names, hosts and paths that a pod chose: what is
// rendered is a POSIX expression that matches them, and nothing else of theirs.
func FuzzRequestsEndUpLiteral(f *testing.F) {
	f.Add("GET", "api", "/a", "/b")
	f.Add(".*", "(a|b)$", `/[^x]{2,}\^|?*+`, "/x")
	f.Add("G\x00T", "\xff", "/a\nb", "/{number}")
	f.Fuzz(func(t *testing.T, method, host, path, other string) {
		e := behavior.Escape
		own := requests(e("M"+method), e("h"+host), e("/"+path))
		if strings.Contains(own.Target, ":") {
			return // has a port, which is left out
		}
		base, notes := render(t, cilium.Options{}, said(own, policy.Exact))
		var doc struct {
			Spec struct {
				Egress []struct {
					ToPorts []struct {
						Rules struct {
							HTTP []struct{ Method, Host, Path string }
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal([]byte(base), &doc); err != nil {
			t.Fatalf("%v\n%s", err, base)
		}
		http := doc.Spec.Egress[0].ToPorts[0].Rules.HTTP
		if len(http) == 0 {
			if !strings.Contains(strings.Join(notes, ";"), "are not restricted: no expression can carry them") {
				t.Errorf("nothing is said of %s", own)
			}
			return
		}
		for _, expression := range []string{http[0].Method, http[0].Host, http[0].Path} {
			if _, err := regexp.CompilePOSIX(expression); err != nil {
				t.Errorf("%s: %v", expression, err)
			}
		}
		judge := parse(t, base)
		if v := judge.Judge(subject(), own); v.Decision != engine.Allowed {
			t.Errorf("%s: %v\n%s", own, v, base)
		}
		another := own
		if another.Path = e("/" + other); another.Path != own.Path && !strings.HasPrefix(other, path+"?") {
			if v := judge.Judge(subject(), another); v.Decision != engine.Denied {
				t.Errorf("%s: %v\n%s", another, v, base)
			}
		}
	})
}

// FuzzNamesEndUpLiteral gives names that a pod asked for: each is carried as it is,
// or left out with a note.
func FuzzNamesEndUpLiteral(f *testing.F) {
	f.Add("api.example", "apixexample")
	f.Add("*", "anything")
	f.Add("a.*.example", "a.b.example")
	f.Add("x\ny: z", "..")
	f.Fuzz(func(t *testing.T, name, other string) {
		e := func(s string) string { return strings.ToLower(behavior.Escape(s)) }
		own, stranger := named("203.0.113.7", e(name)), named("203.0.113.7", e(other))
		if own.Peer.Name == "" || stranger.Peer.Name == "" {
			return
		}
		base, notes := render(t, cilium.Options{}, said(network(behavior.Ingress, "tcp", 1, workload("shop", "app=x")), ""),
			said(asksDNS("known.example"), ""), said(asksDNS(own.Peer.Name), ""), said(own, ""))
		judge := parse(t, base)
		left := strings.Contains(strings.Join(notes, "\n"), "left out: connect to")
		if v := judge.Judge(subject(), own); (v.Decision == engine.Allowed) == left {
			t.Errorf("%s: %v, left out: %v\n%s", own, v, left, base)
		}
		if strings.TrimSuffix(own.Peer.Name, ".") == strings.TrimSuffix(stranger.Peer.Name, ".") {
			return
		}
		if v := judge.Judge(subject(), stranger); v.Decision != engine.Denied && stranger.Peer.Name != "known.example" {
			t.Errorf("%s: %v\n%s", stranger, v, base)
		}
	})
}
