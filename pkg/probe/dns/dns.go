// Package dns reads messages of DNS that the kernel saw a container send or get,
// and puts those of a TCP connection together. It believes nothing: a message is
// at most 64 KiB, names follow at most a bounded number of pointers, records at
// most MaxAnswers, and what is malformed is an error, never a part of a fact. It
// asks no server.
package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// ErrMalformed is returned for bytes that are no message with one question.
var ErrMalformed = errors.New("malformed DNS message")

// MaxAnswers bounds the records of a message that are read; a message of 64 KiB
// could hold 4,000.
const MaxAnswers = 512

// Question is a name that was asked for. Names are in lower case, without the last
// dot ("." is the root) and in the form of behavior.Escape.
type Question struct {
	Name string
	Type string // A, AAAA, SRV, ...; TYPE65280 where it has no name
}

// Answer is a record of an answer that leads from the name asked for to an address
// or to another name.
type Answer struct {
	Name    string // whose record it is: the name asked for, or one that it led to
	Type    string
	Address netip.Addr    // of A and AAAA
	Target  string        // of CNAME, DNAME, SRV, MX, NS and PTR
	TTL     time.Duration // how long it may be believed
}

// Message is a question, or the answer to one.
type Message struct {
	ID       uint16
	Response bool
	Question Question
	// Answers are in the message's order. Records that have nothing to do with the
	// question are left out.
	Answers []Answer
	// Cut: the server left out answers, or the bytes end within one.
	Cut bool
}

// Parse reads a message of which raw may be but the beginning. Its errors are
// ErrMalformed.
func Parse(raw []byte) (Message, error) {
	var p dnsmessage.Parser
	header, err := p.Start(raw)
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	m := Message{ID: header.ID, Response: header.Response, Cut: header.Truncated}
	question, err := p.Question()
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return Message{}, fmt.Errorf("%w: not one question", ErrMalformed)
	}
	m.Question = Question{Name: name(question.Name), Type: typeName(question.Type)}
	if !m.Response {
		return m, nil
	}
	answers, whole := records(&p)
	m.Answers, m.Cut = reached(m.Question.Name, answers), m.Cut || !whole
	return m, nil
}

// records reads the answers, and then the additional records, in which a server
// gives the addresses of an SRV's targets. False if they do not end well.
func records(p *dnsmessage.Parser) (list []Answer, whole bool) {
	sections := []struct {
		header func() (dnsmessage.ResourceHeader, error)
		skip   func() error
	}{
		{p.AnswerHeader, p.SkipAnswer},
		{p.AuthorityHeader, p.SkipAuthority},
		{p.AdditionalHeader, p.SkipAdditional},
	}
	n := 0
	for _, section := range sections {
		for {
			header, err := section.header()
			if errors.Is(err, dnsmessage.ErrSectionDone) {
				break
			}
			if n++; err != nil || n > MaxAnswers {
				return list, false
			}
			answer, ok, err := record(p, header)
			if err != nil {
				return list, false
			}
			if ok {
				list = append(list, answer)
			} else if err := section.skip(); err != nil {
				return list, false
			}
		}
	}
	return list, true
}

// record reads the body of a record; false if it is of a type that leads nowhere,
// and still to be skipped.
func record(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) (a Answer, ok bool, err error) {
	a = Answer{Name: name(h.Name), Type: typeName(h.Type), TTL: time.Duration(h.TTL) * time.Second}
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		a.Address = netip.AddrFrom4(r.A)
		return a, true, err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		a.Address = netip.AddrFrom16(r.AAAA).Unmap()
		return a, true, err
	case dnsmessage.TypeCNAME:
		r, err := p.CNAMEResource()
		a.Target = name(r.CNAME)
		return a, true, err
	case dnsmessage.TypeSRV:
		r, err := p.SRVResource()
		a.Target = name(r.Target)
		return a, true, err
	case dnsmessage.TypeMX:
		r, err := p.MXResource()
		a.Target = name(r.MX)
		return a, true, err
	case dnsmessage.TypeNS:
		r, err := p.NSResource()
		a.Target = name(r.NS)
		return a, true, err
	case dnsmessage.TypePTR:
		r, err := p.PTRResource()
		a.Target = name(r.PTR)
		return a, true, err
	}
	return a, false, nil
}

// reached keeps the records of names that the question leads to, so that a server
// cannot name addresses for what nobody asked. Every pass adds a name or ends.
func reached(asked string, all []Answer) []Answer {
	names := map[string]bool{asked: true}
	for range all {
		before := len(names)
		for _, a := range all {
			if names[a.Name] && a.Target != "" {
				names[a.Target] = true
			}
		}
		if len(names) == before {
			break
		}
	}
	var list []Answer
	for _, a := range all {
		if names[a.Name] {
			list = append(list, a)
		}
	}
	return list
}

// Targets are the names that the answer leads to: the end of the chain of CNAMEs,
// and those of SRV records. Each is there once.
func (m Message) Targets() []string {
	var list []string
	seen := map[string]bool{"": true, m.Question.Name: true}
	at := m.Question.Name
	for range m.Answers { // a loop of CNAMEs ends with them
		next := ""
		for _, a := range m.Answers {
			if a.Type == "CNAME" && a.Name == at {
				next = a.Target
				break
			}
		}
		if next == "" || next == m.Question.Name {
			break
		}
		at = next
	}
	if !seen[at] {
		seen[at] = true
		list = append(list, at)
	}
	for _, a := range m.Answers {
		if a.Type == "SRV" && !seen[a.Target] {
			seen[a.Target] = true
			list = append(list, a.Target)
		}
	}
	return list
}

// name makes text of a name: of labels without dots, as dnsmessage makes sure.
func name(n dnsmessage.Name) string {
	raw := n.Data[:n.Length]
	for i, c := range raw { // a copy's: names are passed by value
		if 'A' <= c && c <= 'Z' {
			raw[i] = c + 'a' - 'A'
		}
	}
	if text := strings.TrimSuffix(string(raw), "."); text != "" {
		return behavior.Escape(text)
	}
	return "."
}

// typeName names a type of record as zone files do.
func typeName(t dnsmessage.Type) string {
	switch t {
	case 35:
		return "NAPTR"
	case 39:
		return "DNAME"
	case 64:
		return "SVCB"
	case 65:
		return "HTTPS"
	case 257:
		return "CAA"
	}
	if word, ok := strings.CutPrefix(t.String(), "Type"); ok {
		if word == "ALL" {
			return "ANY"
		}
		return word
	}
	return "TYPE" + strconv.Itoa(int(t))
}
