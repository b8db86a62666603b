//go:build linux

package probe

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func asked(name, kind, protocol, server string) behavior.Fact {
	return behavior.Fact{
		Kind: behavior.DNS, Exe: "/bin/app", Name: name, Type: kind, Protocol: protocol, Port: 53,
		Peer: behavior.Peer{Address: netip.MustParseAddr(server)},
	}
}

func leads(f behavior.Fact, target string) behavior.Fact {
	f.Target = target
	return f
}

func TestQuestionsAndAnswers(t *testing.T) {
	alias := func(name string) Answer {
		return Answer{Name: name, Type: "CNAME", Target: "real." + name, TTL: 30 * time.Second}
	}
	v4 := func(name string) Answer {
		return Answer{Name: "real." + name, Type: "A", Address: netip.MustParseAddr("192.0.2.1"), TTL: 30 * time.Second}
	}
	v6 := func(name string) Answer {
		return Answer{Name: "real." + name, Type: "AAAA", Address: netip.MustParseAddr("2001:db8::1"), TTL: 30 * time.Second}
	}
	cases := []struct {
		name    string
		action  string
		want    behavior.Fact
		target  string
		answers []Answer
		dropped uint64
	}{
		{
			name: "an address over UDP, in any case", action: "ask 127.0.0.1 WWW.Example.Test A",
			want: asked("www.example.test", "A", "udp", "127.0.0.1"), target: "real.www.example.test",
			answers: []Answer{alias("www.example.test"), v4("www.example.test")},
		},
		{
			name: "an IPv6 address, from an IPv6 server, on a connected socket", action: "ask ::1 six.test AAAA connected",
			want: asked("six.test", "AAAA", "udp", "::1"), target: "real.six.test", answers: []Answer{alias("six.test"), v6("six.test")},
		},
		{
			name: "a service and the address of its target", action: "ask 127.0.0.1 _db._tcp.test SRV",
			want: asked("_db._tcp.test", "SRV", "udp", "127.0.0.1"), target: "real._db._tcp.test",
			answers: []Answer{{Name: "_db._tcp.test", Type: "SRV", Target: "real._db._tcp.test", TTL: 30 * time.Second}, v4("_db._tcp.test")},
		},
		{name: "a question of another type", action: "ask 127.0.0.1 1.2.0.192.in-addr.arpa PTR", want: asked("1.2.0.192.in-addr.arpa", "PTR", "udp", "127.0.0.1")},
		{name: "mail", action: "ask 127.0.0.1 mail.test MX", want: asked("mail.test", "MX", "udp", "127.0.0.1")},
		{name: "text", action: "ask 127.0.0.1 *.text.test TXT", want: asked("*.text.test", "TXT", "udp", "127.0.0.1")},
		{
			name: "forged answers are dropped, and the right one is taken", action: "ask 127.0.0.1 forged.test A forged",
			want: asked("forged.test", "A", "udp", "127.0.0.1"), target: "real.forged.test", answers: []Answer{alias("forged.test"), v4("forged.test")}, dropped: 2,
		},
		{
			name: "an answer that the server cut", action: "ask 127.0.0.1 cut.test A cut",
			want: asked("cut.test", "A", "udp", "127.0.0.1"), target: "real.cut.test", answers: []Answer{alias("cut.test"), v4("cut.test")},
		},
		{
			name: "over TCP", action: "ask 127.0.0.1 tcp.test A tcp",
			want: asked("tcp.test", "A", "tcp", "127.0.0.1"), target: "real.tcp.test", answers: []Answer{alias("tcp.test"), v4("tcp.test")},
		},
		{
			name: "over TCP and IPv6, byte by byte", action: "ask ::1 pieces.test AAAA pieces",
			want: asked("pieces.test", "AAAA", "tcp", "::1"), target: "real.pieces.test", answers: []Answer{alias("pieces.test"), v6("pieces.test")},
		},
	}
	p := requireProbe(t, Options{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before, err := p.Stats()
			if err != nil {
				t.Fatal(err)
			}
			_, records := observe(t, p, actions(c.action)...)
			wantFact(t, records, c.want)
			if c.target != "" {
				wantFact(t, records, leads(c.want, c.target))
			}
			found := c.answers == nil
			for _, r := range records {
				found = found || r.Fact == c.want && slices.Equal(r.Answers, c.answers)
				if r.Fact.Kind == behavior.DNS && r.Fact != c.want && r.Fact != leads(c.want, c.target) {
					t.Errorf("recorded: %+v", r)
				}
			}
			if !found {
				t.Errorf("answers are not %v in %+v", c.answers, records)
			}
			after, err := p.Stats()
			const unasked = "answer that nobody asked for"
			if err != nil || after.Dropped[unasked]-before.Dropped[unasked] != c.dropped {
				t.Errorf("dropped %v, before %v, %v", after.Dropped, before.Dropped, err)
			}
		})
	}
	for reason, n := range allLost(t, p) {
		if strings.Contains(reason, "dns") || strings.Contains(reason, "owner") {
			t.Errorf("lost %d: %s", n, reason)
		}
	}
}

// A question that was asked before costs no record, and is counted.
func TestAQuestionIsToldOnce(t *testing.T) {
	p := requireProbe(t, Options{})
	again := "ask 127.0.0.1 again.test A"
	_, records := observe(t, p, actions(again, again, again)...)
	r := wantFact(t, records, asked("again.test", "A", "udp", "127.0.0.1"))
	questions, answers := 0, 0
	for _, r := range records {
		switch {
		case r.Fact != asked("again.test", "A", "udp", "127.0.0.1"):
		case r.Answers == nil:
			questions++
		default:
			answers++
		}
	}
	if questions != 1 || answers == 0 {
		t.Errorf("%d questions and %d answers are told", questions, answers)
	}
	var counted uint64
	err := p.Counts(func(id, count uint64, _, _ time.Time) {
		if id == r.ID {
			counted = count
		}
	})
	if err != nil || counted != 3 {
		t.Errorf("counted %d times, %v; want 3", counted, err)
	}
}

// What translates Services may send a question to another port: it is read there.
func TestQuestionsAreReadWhereTheyAreTranslatedTo(t *testing.T) {
	p := requireProbe(t, Options{})
	translateDNS(t)
	_, records := observe(t, p, actions("send-dns 127.96.0.10:53", "connect-dns 127.96.0.10:53")...)
	want := asked("elsewhere.test", "A", "udp", "127.0.0.1")
	want.Port = 5353
	wantFact(t, records, want)
	want.Name = "connected.test"
	wantFact(t, records, want)
}

// However many names a container asks for: it is bounded, and counted.
func TestTenThousandNamesAreToldOrCounted(t *testing.T) {
	const names = 10_000
	p := requireProbe(t, Options{})
	_, records := observe(t, p, "ask-many", "127.0.0.1", "10000")
	told := map[string]bool{}
	for _, r := range records {
		if r.Fact.Kind == behavior.DNS {
			told[r.Fact.Name] = true
		}
	}
	lost := uint64(0)
	for reason, n := range allLost(t, p) {
		if strings.HasSuffix(reason, ": dns") {
			lost += n
		}
	}
	t.Logf("%d told, %d lost: %v", len(told), lost, allLost(t, p))
	if uint64(len(told))+lost < names || len(told) < 100 {
		t.Errorf("of %d names %d are told and %d counted as lost", names, len(told), lost)
	}
}
