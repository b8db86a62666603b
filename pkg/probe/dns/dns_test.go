package dns

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func header(name string, kind dnsmessage.Type) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET, TTL: 60}
}

func a(name string, last byte) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(name, dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, last}}}
}

func cname(name, target string) dnsmessage.Resource {
	return dnsmessage.Resource{Header: header(name, dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(target)}}
}

// message asks for the address of www.test and answers with records.
func message(t testing.TB, records ...dnsmessage.Resource) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("WWW.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers:   records,
	}
	raw, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func answer(name string, last byte) Answer {
	return Answer{Name: name, Type: "A", Address: netip.AddrFrom4([4]byte{192, 0, 2, last}), TTL: time.Minute}
}

func alias(name, target string) Answer {
	return Answer{Name: name, Type: "CNAME", Target: target, TTL: time.Minute}
}

func TestParse(t *testing.T) {
	whole := message(t, a("www.test.", 1), a("www.test.", 2))
	cases := []struct {
		name    string
		raw     []byte
		answers []Answer
		targets []string
		cut     bool
	}{
		{"several addresses", whole, []Answer{answer("www.test", 1), answer("www.test", 2)}, nil, false},
		{"bytes that end within a record", whole[:len(whole)-1], []Answer{answer("www.test", 1)}, nil, true},
		{
			"a chain of aliases leads to its end, in whatever order", message(t, cname("b.test.", "c.test."), a("c.test.", 3), cname("WWW.TEST.", "B.test.")),
			[]Answer{alias("b.test", "c.test"), answer("c.test", 3), alias("www.test", "b.test")}, []string{"c.test"}, false,
		},
		{
			"aliases that lead in a circle", message(t, cname("www.test.", "b.test."), cname("b.test.", "www.test.")),
			[]Answer{alias("www.test", "b.test"), alias("b.test", "www.test")}, []string{"b.test"}, false,
		},
		{"an alias of itself", message(t, cname("www.test.", "www.test.")), []Answer{alias("www.test", "www.test")}, nil, false},
		{"the address of a name that nobody asked for", message(t, a("bank.test.", 66), a("www.test.", 1)), []Answer{answer("www.test", 1)}, nil, false},
		{"an address for any name", message(t, a("*.test.", 1)), nil, nil, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse(c.raw)
			if err != nil {
				t.Fatal(err)
			}
			if m.ID != 7 || !m.Response || m.Question != (Question{"www.test", "A"}) || m.Cut != c.cut || !slices.Equal(m.Answers, c.answers) {
				t.Errorf("got %+v", m)
			}
			if got := m.Targets(); !slices.Equal(got, c.targets) {
				t.Errorf("targets %q, want %q", got, c.targets)
			}
		})
	}
}

// question is a message that asks for a name given by its bytes.
func question(name string, kind byte) []byte {
	return []byte("\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + "\x00" + string([]byte{kind}) + "\x00\x01")
}

func TestNamesAreEscapedAndLowered(t *testing.T) {
	cases := []struct {
		name, raw string
		kind      byte
		want      Question
	}{
		{"upper case", "\x03WwW\x04TEST\x00", 1, Question{"www.test", "A"}},
		{"the root", "\x00", 2, Question{".", "NS"}},
		{"a wildcard", "\x01*\x04test\x00", 16, Question{"*.test", "TXT"}},
		{"bytes that are no text", "\x05\x1b[2J\n\x00", 1, Question{`\x1b[2j\x0a`, "A"}},
		{"bytes that are not UTF-8", "\x02\xff\\\x00", 1, Question{`\xff\\`, "A"}},
		{"a type with no name", "\x01a\x00", 199, Question{"a", "TYPE199"}},
		{"a newer type", "\x01a\x00", 65, Question{"a", "HTTPS"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m, err := Parse(question(c.raw, c.kind))
			if err != nil || m.Response || m.Question != c.want {
				t.Errorf("got %+v, %v", m, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	bomb := append(question("\xc0\x0c", 1), 0)        // a name that points to itself
	pair := question("\x01a\xc0\x10\x01b\xc0\x0c", 1) // two that point to each other
	long := question(strings.Repeat("\x3f"+strings.Repeat("n", 63), 5)+"\x00", 1)
	two := question("\x01a\x00", 1)
	two[5] = 2
	for name, raw := range map[string][]byte{
		"nothing": nil, "half a header": question("", 1)[:6], "a name that points to itself": bomb, "names that point to each other": pair,
		"a name of more than 255 bytes": long, "two questions": append(two, "\x01b\x00\x00\x01\x00\x01"...), "no question": make([]byte, 12),
		"a label with a dot": question("\x03a.b\x00", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := Parse(raw); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %+v, %v", m, err)
			}
		})
	}
}

func TestManyRecordsAreBounded(t *testing.T) {
	var records []dnsmessage.Resource
	for i := range 3000 {
		records = append(records, cname(fmt.Sprintf("n%d.test.", i), fmt.Sprintf("n%d.test.", i+1)))
	}
	m, err := Parse(message(t, append([]dnsmessage.Resource{cname("www.test.", "n0.test.")}, records...)...))
	if err != nil || !m.Cut || len(m.Answers) != MaxAnswers || len(m.Targets()) != 1 {
		t.Errorf("%d answers, cut %t, %v", len(m.Answers), m.Cut, err)
	}
}

// framed are messages as they are sent over TCP.
func framed(messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = append(append(b, byte(len(m)>>8), byte(len(m))), m...)
	}
	return b
}

// However a stream is cut, and in whatever order and how often its segments come:
// it gives the same messages, each once.
func TestStreamGivesEachMessageOnceInOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var messages [][]byte
		for i := range 1 + random.IntN(4) {
			messages = append(messages, bytes.Repeat([]byte{byte('a' + i)}, random.IntN(200)))
		}
		all, base := framed(messages...), random.Uint32()
		type segment struct{ from, to int }
		var segments []segment
		for at := 0; at < len(all); {
			n := min(at+1+random.IntN(40), len(all))
			segments = append(segments, segment{at, n})
			at = n
		}
		for range random.IntN(4) { // sent again, cut otherwise
			from := random.IntN(len(all))
			segments = append(segments, segment{from, min(len(all), from+random.IntN(60))})
		}
		// At most a few overtake each other.
		for i := range segments {
			j := min(len(segments)-1, i+random.IntN(4))
			segments[i], segments[j] = segments[j], segments[i]
		}
		var s Stream
		s.Begin(base)
		var got [][]byte
		for _, part := range segments {
			list, ok := s.Add(base+uint32(part.from), all[part.from:part.to])
			if !ok {
				t.Fatal("given up")
			}
			for _, m := range list {
				got = append(got, bytes.Clone(m))
			}
		}
		if !slices.EqualFunc(got, messages, bytes.Equal) || s.Size() > 0 {
			t.Fatalf("got %q of %q, %d bytes left", got, messages, s.Size())
		}
	}
}

func TestStreamIsBounded(t *testing.T) {
	cases := map[string]func(*Stream) bool{
		"segments that never join": func(s *Stream) bool {
			for i := range 1000 {
				if _, ok := s.Add(uint32(2*i+10), []byte("x")); !ok {
					return true
				}
			}
			return false
		},
		"a segment far ahead": func(s *Stream) bool {
			_, ok := s.Add(1<<30, []byte("x"))
			return !ok
		},
	}
	for name, do := range cases {
		t.Run(name, func(t *testing.T) {
			var s Stream
			s.Begin(1)
			if !do(&s) {
				t.Error("kept")
			}
			if s.Size() > 0 {
				t.Errorf("holds %d bytes", s.Size())
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message(f, cname("www.test.", "b.test."), a("b.test.", 1)))
	f.Add(question("\x03WwW\x04TEST\x00", 1))
	f.Add(question("\xc0\x0c", 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Parse(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error is not ErrMalformed: %v", err)
			}
			return
		}
		again, err := Parse(raw)
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Errorf("parsed again: %+v, %v", again, err)
		}
		names := append(m.Targets(), m.Question.Name)
		for _, a := range m.Answers {
			names = append(names, a.Name, a.Target)
		}
		for _, name := range names {
			if !behavior.IsEscaped(name) || strings.ContainsAny(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") {
				t.Errorf("%q is not an escaped name", name)
			}
		}
		if len(m.Answers) > MaxAnswers || m.Question.Name == "" || m.Question.Type == "" {
			t.Errorf("got %+v", m)
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add(uint32(5), uint32(5), []byte("\x00\x02hi\x00"), uint32(10), []byte("\x01x"))
	f.Fuzz(func(t *testing.T, base, at uint32, first []byte, then uint32, second []byte) {
		var s Stream
		s.Begin(base)
		total := 0
		for _, part := range []struct {
			at   uint32
			data []byte
		}{{at, first}, {then, second}, {at, first}} {
			messages, ok := s.Add(part.at, part.data)
			for _, m := range messages {
				total += 2 + len(m)
			}
			if !ok && s.Size() > 0 {
				t.Errorf("holds %d bytes of a stream that was given up", s.Size())
			}
		}
		if total+s.Size() > len(first)+len(second)+len(first) {
			t.Errorf("%d bytes came of fewer", total+s.Size())
		}
	})
}
