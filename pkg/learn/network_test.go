package learn_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// odd makes facts about peers outside, names and requests, in a small world.
func odd(r *rand.Rand, exe string) behavior.Fact {
	one := func(list ...string) string { return list[r.IntN(len(list))] }
	f := behavior.Fact{Kind: behavior.Network, Exe: exe, Direction: behavior.Egress, Protocol: "tcp", Port: uint16(80 + r.IntN(2))}
	if r.IntN(4) == 0 {
		f.Direction = behavior.Ingress
	}
	f.Peer = behavior.Peer{Kind: behavior.PeerOutside, Service: one("", "", "", "legacy:80"), Name: one("", "", "", "a.example", "b.example"),
		Address: netip.MustParseAddr(fmt.Sprintf(one("203.0.113.%d", "10.9.9.%d", "2001:db8::%x", "::ffff:198.51.100.%d"), r.IntN(30)))}
	switch r.IntN(3) {
	case 0:
		f.Kind, f.Direction, f.Port, f.Type = behavior.DNS, "", 53, one("A", "AAAA")
		f.Name = one("a.example", "b.example", fmt.Sprintf("%d.2.0.192.in-addr.arpa", r.IntN(256)))
	case 1:
		f.Kind, f.Name, f.Type, f.Target = behavior.HTTP, one("GET", "POST"), one("http", "grpc"), one("api", "api:80", "192.0.2.1")
		part := func() string {
			return fmt.Sprintf(one("%d", "user%d", "%08xa1", "%08x-0000-4000-8000-000000000000", "2026-11-%02d", "{number}%d", `\x0a%d`), r.IntN(12))
		}
		f.Path = one("/", "/users/", "/v1/") + part() + one("", "/", "/"+part())
	}
	return f
}

func outside(address string, port uint16) behavior.Fact {
	return behavior.Fact{Kind: behavior.Network, Exe: "/app", Direction: behavior.Egress, Protocol: "tcp", Port: port,
		Peer: behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr(address)}}
}

func TestPeersOutside(t *testing.T) {
	many := func(format string, n int, change func(i int, f *behavior.Fact)) []behavior.Fact {
		var facts []behavior.Fact
		for i := range n {
			f := outside(fmt.Sprintf(format, i+1), 443)
			if change != nil {
				change(i, &f)
			}
			facts = append(facts, f)
		}
		return facts
	}
	named := func(name string) func(int, *behavior.Fact) {
		return func(_ int, f *behavior.Fact) { f.Peer.Name = name }
	}
	for _, tt := range []struct {
		name  string
		facts []behavior.Fact
		want  []string // rules in words
		rules int      // or how many there are
	}{
		{"a name is one rule for all its addresses", many("203.0.113.%d", 20, named("cdn.example")), []string{"connect to cdn.example (outside) on tcp/443, by /app"}, 0},
		{"two names of one address are two rules", append(many("203.0.113.%d", 1, named("a.example")), many("203.0.113.%d", 1, named("b.example"))...), nil, 2},
		{"names below one domain never become a wildcard", many("203.0.113.%d", 20, func(i int, f *behavior.Fact) { f.Peer.Name = fmt.Sprintf("n%d.example", i) }), nil, 20},
		{"seven addresses stay addresses", many("203.0.113.%d", 7, nil), nil, 7},
		{"eight become their /24", many("203.0.113.%d", 8, nil), []string{"connect to 203.0.113.0/24 (outside) on tcp/443, by /app"}, 0},
		{"eight of IPv6 become their /64", many("2001:db8::%x", 8, nil), []string{"connect to 2001:db8::/64 (outside) on tcp/443, by /app"}, 0},
		{"mapped addresses are those of IPv4", many("::ffff:203.0.113.%d", 8, nil), []string{"connect to 203.0.113.0/24 (outside) on tcp/443, by /app"}, 0},
		{"addresses of two ranges are not joined", append(many("203.0.113.%d", 7, nil), many("198.51.100.%d", 7, nil)...), nil, 14},
		{"private addresses are never joined", many("10.0.0.%d", 30, nil), nil, 30},
		{"nor are those of a carrier", many("100.64.1.%d", 30, nil), nil, 30},
		{"nor unique local ones", many("fd12::%x", 30, nil), nil, 30},
		{"nor documented special ones", many("64:ff9b::%x", 30, nil), nil, 30},
		{"ports count apart", many("203.0.113.%d", 8, func(i int, f *behavior.Fact) { f.Port += uint16(i % 2) }), nil, 8},
		{"executables count apart", many("203.0.113.%d", 8, func(i int, f *behavior.Fact) { f.Exe += fmt.Sprint(i % 2) }), nil, 8},
		{"directions count apart", many("203.0.113.%d", 8, func(i int, f *behavior.Fact) {
			if i%2 == 0 {
				f.Direction = behavior.Ingress
			}
		}), nil, 8},
		{"endpoints of a Service are not joined", many("203.0.113.%d", 20, func(_ int, f *behavior.Fact) { f.Peer.Service = "legacy:443" }), nil, 20},
		{"link-local addresses are never joined", many("169.254.169.%d", 20, func(_ int, f *behavior.Fact) { f.Peer.Kind = behavior.PeerLinkLocal }), nil, 20},
		{"nodes are never joined", many("203.0.113.%d", 20, func(_ int, f *behavior.Fact) { f.Peer.Kind = behavior.PeerNode }), nil, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := learn.Rules([]behavior.Profile{profile("web", tt.facts...)}, learn.Options{})
			if err != nil {
				t.Fatal(err)
			}
			got := describe(set.Rules)
			if tt.want != nil && !slices.Equal(got, tt.want) || tt.want == nil && len(got) != tt.rules {
				t.Errorf("got %d: %q", len(got), got)
			}
			for _, r := range set.Rules {
				if r.Prefix.IsValid() != strings.Contains(r.Why, "addresses in "+r.Prefix.String()) {
					t.Errorf("%s says why: %q", r, r.Why)
				}
			}
		})
	}
}

func TestQuestionsAreRulesOfTheirNames(t *testing.T) {
	ask := func(name, kind string) behavior.Fact {
		return behavior.Fact{Kind: behavior.DNS, Exe: "/app", Protocol: "udp", Port: 53, Name: name, Type: kind}
	}
	set, err := learn.Rules([]behavior.Profile{profile("web", ask("a.example", "A"), ask("a.example", "AAAA"), ask("b.a.example", "A"),
		ask("7.2.0.192.in-addr.arpa", "PTR"), ask("8.2.0.192.in-addr.arpa", "PTR"), ask("2.0.192.in-addr.arpa", "NS"))}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ask for the name *.*.*.*.in-addr.arpa, by /app", "ask for the name 2.0.192.in-addr.arpa, by /app",
		"ask for the name a.example, by /app", "ask for the name b.a.example, by /app"}
	if got := describe(set.Rules); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func request(method, host, path string) behavior.Fact {
	return behavior.Fact{Kind: behavior.HTTP, Exe: "/app", Direction: behavior.Ingress, Protocol: "tcp", Port: 8080, Type: "http",
		Name: method, Target: host, Path: path, Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-web", Labels: "app=web"}}
}

func TestPathsAreTemplatedOnEvidence(t *testing.T) {
	uuid := "%08x-0000-4000-8000-000000000000"
	paths := names
	for _, tt := range []struct {
		name  string
		paths []string
		want  []string // of the rules
	}{
		{"three numbers stay numbers", []string{"/v/1", "/v/2", "/v/3"}, []string{"/v/1", "/v/2", "/v/3"}},
		{"four become a class", paths("/orders/%d", 4), []string{"/orders/{number}"}},
		{"UUIDs do", paths("/orders/"+uuid, 4), []string{"/orders/{uuid}"}},
		{"dates do", []string{"/d/2026-01-01", "/d/2026-01-02", "/d/2026-01-03", "/d/2026-01-04"}, []string{"/d/{date}"}},
		{"hexadecimal names do", paths("/blob/a%08x", 4), []string{"/blob/{hex}"}},
		{"words stay words beside them", append(paths("/users/%d", 4), "/users/admin", "/users/me"), []string{"/users/admin", "/users/me", "/users/{number}"}},
		{"many words stay words", []string{"/a", "/b", "/c", "/d", "/e", "/admin"}, []string{"/a", "/admin", "/b", "/c", "/d", "/e"}},
		{"words of hexadecimal letters stay words", []string{"/facade/deadbeef", "/facade/effaced", "/facade/defaced", "/facade/acceded"},
			[]string{"/facade/acceded", "/facade/deadbeef", "/facade/defaced", "/facade/effaced"}},
		{"what follows a class is told together", []string{"/u/1/a", "/u/2/a", "/u/3/b", "/u/4/b"}, []string{"/u/{number}/a", "/u/{number}/b"}},
		{"two places of one path", []string{"/u/1/o/11", "/u/2/o/12", "/u/3/o/13", "/u/4/o/14"}, []string{"/u/{number}/o/{number}"}},
		{"two kinds in one place count apart", append(paths("/x/%d", 3), paths("/x/"+uuid, 4)...), []string{"/x/13", "/x/15851", "/x/7932", "/x/{uuid}"}},
		{"versions stay", []string{"/v1/a", "/v2/a", "/v3/a", "/v4/a"}, []string{"/v1/a", "/v2/a", "/v3/a", "/v4/a"}},
		{"what looks like a class already stands for itself", append(paths("/x/%d", 3), "/x/{number}"), []string{"/x/13", "/x/15851", "/x/7932", "/x/{number}"}},
		{"what is no path stands for itself", []string{"*"}, []string{"*"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var facts []behavior.Fact
			for _, p := range tt.paths {
				facts = append(facts, request("GET", "api", p))
			}
			set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, learn.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range set.Rules {
				got = append(got, r.Path)
				if (r.Match == policy.Template) != (r.Why != "") {
					t.Errorf("%s says why: %q", r, r.Why)
				}
				if slash := strings.ReplaceAll(r.Path, "{number}", "1/2"); slash != r.Path && r.Covers(slash) {
					t.Errorf("%s covers %s", r, slash)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMethodsAndHostsOfRequests(t *testing.T) {
	facts := []behavior.Fact{request("GET", "api:8080", "/a"), request("POST", "api", "/b")}
	set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[behavior.Fact]bool{
		facts[0]: true, facts[1]: true, request("POST", "api", "/a"): false, request("GET", "other", "/a"): false, request("GET", "api", "/a/"): false,
	} {
		if set.Allows("web", f) != want {
			t.Errorf("%s: allowed is %t", f, !want)
		}
	}
	set, err = learn.Rules([]behavior.Profile{profile("web", append(facts, request("GET", "api.shop", "/a"))...)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !set.Allows("web", request("GET", "third", "/a")) {
		t.Error("a host is asked for though there were two")
	}
}

func TestTenThousandPathsAreBoundedAndSaid(t *testing.T) {
	var facts []behavior.Fact
	for i := range 10_000 {
		facts = append(facts, request("GET", "api", fmt.Sprintf("/word-%d", i)))
	}
	facts = append(facts, request("POST", "api", "/one"))
	set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(set.Rules); len(got) != 2 || !strings.Contains(got[0], "GET api anything") {
		t.Errorf("got %d rules, first %q", len(got), got[0])
	}
	if len(set.Notes) != 1 || !strings.Contains(set.Notes[0].Text, "10001 kinds of requests") {
		t.Errorf("notes are %v", set.Notes)
	}
	if set.Allows("web", request("DELETE", "api", "/one")) {
		t.Error("a method that was never used is allowed")
	}
	var calls []behavior.Fact
	for i := range 10_000 {
		calls = append(calls, request(fmt.Sprintf("M%d", i), "api", "/"))
	}
	if set, err = learn.Rules([]behavior.Profile{profile("web", calls...)}, learn.Options{}); err != nil || len(set.Rules) != 1 {
		t.Errorf("ten thousand methods make %d rules (%v)", len(set.Rules), err)
	}
}
