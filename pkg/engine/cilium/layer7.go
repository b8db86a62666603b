package cilium

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// layer7 are the rules about what is inside a connection; of one kind only.
type layer7 struct {
	HTTP    []httpRule        `json:"http,omitempty"`
	DNS     []fqdn            `json:"dns,omitempty"`
	Kafka   []json.RawMessage `json:"kafka,omitempty"`
	L7      []json.RawMessage `json:"l7,omitempty"`
	L7Proto string            `json:"l7proto,omitempty"`
}

// httpRule allows requests by regular expressions, each of which has to match as
// a whole; an empty one matches anything.
type httpRule struct {
	Method        string            `json:"method,omitempty"`
	Host          string            `json:"host,omitempty"`
	Path          string            `json:"path,omitempty"`
	Headers       []string          `json:"headers,omitempty"`
	HeaderMatches []json.RawMessage `json:"headerMatches,omitempty"`
}

// fqdn selects names: one, or those of a pattern.
type fqdn struct {
	MatchName    string `json:"matchName,omitempty"`
	MatchPattern string `json:"matchPattern,omitempty"`
}

// httpOf writes a kind of requests as a rule. Cilium's proxy compares the path
// with its query, of which nothing is recorded: any is allowed. It is false for
// what an expression cannot carry.
func httpOf(r engine.Request) (httpRule, bool) {
	var x httpRule
	for _, part := range []struct {
		text string
		to   *string
		end  string
	}{{r.Method, &x.Method, ""}, {r.Host, &x.Host, "(:[0-9]+)?"}} {
		if part.text == "" {
			continue
		}
		literal, ok := quote(part.text)
		if !ok {
			return x, false
		}
		*part.to = "^" + literal + part.end + "$"
	}
	if r.Match == policy.Recursive {
		return x, true
	}
	parts := strings.Split(r.Path, "/")
	for i, part := range parts {
		if class := policy.Class(part).Expression(); r.Match == policy.Template && class != "" {
			parts[i] = class
			continue
		}
		literal, ok := quote(part)
		if !ok {
			return x, false
		}
		parts[i] = literal
	}
	x.Path = "^" + strings.Join(parts, "/") + `([?].*)?$`
	return x, true
}

// quote makes a POSIX extended regular expression that matches just the bytes that
// the escaped text stands for. Only printable ASCII has one meaning to every
// implementation.
func quote(escaped string) (string, bool) {
	raw, err := behavior.Unescape(escaped)
	if err != nil {
		return "", false
	}
	var b strings.Builder
	for i := range len(raw) {
		c := raw[i]
		switch {
		case c <= ' ' || c > '~':
			return "", false
		case strings.IndexByte(`.[]()*+?{}|^$\`, c) >= 0:
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String(), true
}

// validate refuses what Cilium's own Sanitize refuses.
func (r *layer7) validate() error {
	for _, h := range r.HTTP {
		for _, expression := range []string{h.Path, h.Method} {
			if _, err := regexp.Compile(expression); err != nil {
				return fmt.Errorf("HTTP rule: %w", err)
			}
		}
	}
	for _, n := range r.DNS {
		if err := n.validate(); err != nil {
			return err
		}
	}
	return nil
}

// kinds counts the kinds of rules that are there.
func (r *layer7) kinds() int {
	n := 0
	for _, length := range []int{len(r.HTTP), len(r.DNS), len(r.Kafka), len(r.L7)} {
		if length > 0 {
			n++
		}
	}
	return n
}

func (n fqdn) validate() error {
	for _, r := range n.MatchName {
		if !strings.ContainsRune("-_.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", r) {
			return fmt.Errorf("name %q", n.MatchName)
		}
	}
	for _, r := range n.MatchPattern {
		if !strings.ContainsRune("-_.*abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", r) {
			return fmt.Errorf("pattern of names %q", n.MatchPattern)
		}
	}
	if len(strings.TrimSpace(n.MatchPattern)) > 255 {
		return fmt.Errorf("pattern of names %q: longer than 255", n.MatchPattern)
	}
	return nil
}

// matches tells whether a name, escaped and without its last dot, is selected, as
// Cilium's matchpattern decides it.
func (n fqdn) matches(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, ".")) + "."
	text := strings.ToLower(n.MatchName)
	if text == "" {
		text = strings.ToLower(strings.TrimSpace(n.MatchPattern))
		if text == "" {
			return false
		}
		if strings.Trim(strings.TrimSuffix(text, "."), "*") == "" {
			return engine.ValidName(strings.TrimSuffix(name, "."))
		}
	}
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return n.expression(text).MatchString(name)
}

func (n fqdn) expression(text string) *regexp.Regexp {
	const char = "[-a-zA-Z0-9_]"
	var b strings.Builder
	b.WriteString("^")
	if rest := strings.TrimLeft(text, "*"); len(text)-len(rest) >= 2 && strings.HasPrefix(rest, ".") {
		b.WriteString("(" + char + "+([.]" + char + "+)*)[.]")
		text = rest[1:]
	}
	for text != "" {
		rest := strings.TrimLeft(text, "*")
		switch {
		case len(rest) < len(text):
			b.WriteString(char + "*")
		default:
			b.WriteString(regexp.QuoteMeta(text[:1]))
			rest = text[1:]
		}
		text = rest
	}
	return regexp.MustCompile(b.String() + "$") // of quoted text and known parts
}

// inside tells whether what is inside a connection passes the rules about it. A
// fact of the connection itself says nothing of that: it passes where such facts
// were seen, which are then judged for themselves.
func (r *layer7) inside(s engine.Subject, f behavior.Fact) engine.Answer {
	switch {
	case r == nil || r.kinds() == 0:
		return engine.Certain(true)
	case len(r.HTTP) > 0 && f.Kind == behavior.HTTP:
		any := engine.Certain(false)
		for _, h := range r.HTTP {
			any = any.Or(h.passes(f))
		}
		return any
	case len(r.DNS) > 0 && f.Kind == behavior.DNS:
		return engine.Certain(slices.ContainsFunc(r.DNS, func(n fqdn) bool { return n.matches(f.Name) }))
	case len(r.HTTP) > 0 && slices.ContainsFunc(r.HTTP, httpRule.all):
		return engine.Certain(true)
	case len(r.HTTP) > 0 && f.Kind == behavior.Network && s.Inside[engine.Conversation{Kind: behavior.HTTP, Direction: f.Direction, Port: f.Port}]:
		return engine.Certain(true)
	case len(r.HTTP) > 0:
		return engine.Unsure("HTTP requests")
	case len(r.DNS) > 0 && slices.ContainsFunc(r.DNS, func(n fqdn) bool { return n.MatchPattern == "*" || n.MatchPattern == "**" }):
		return engine.Certain(true)
	case len(r.DNS) > 0 && f.Kind == behavior.Network && s.Inside[engine.Conversation{Kind: behavior.DNS, Direction: f.Direction, Port: f.Port}]:
		return engine.Certain(true)
	case len(r.DNS) > 0:
		return engine.Unsure("DNS requests")
	}
	return engine.Unsure("requests of another protocol")
}

// all tells whether the rule lets every request pass.
func (h httpRule) all() bool {
	return h.Method == "" && h.Host == "" && h.Path == "" && len(h.Headers) == 0 && len(h.HeaderMatches) == 0
}

// passes tells whether a request passes the rule. The expressions are RE2's, which
// Cilium's proxy uses, and have to match as a whole.
func (h httpRule) passes(f behavior.Fact) engine.Answer {
	a := engine.Certain(true)
	for _, x := range []struct{ expression, escaped string }{{h.Method, f.Name}, {h.Path, f.Path}, {h.Host, f.Target}} {
		if x.expression == "" {
			continue
		}
		re, err := regexp.Compile(`\A(?:` + x.expression + `)\z`)
		raw, malformed := behavior.Unescape(x.escaped)
		if err != nil || malformed != nil {
			return engine.Unsure("an expression that is none")
		}
		a = a.And(engine.Certain(re.MatchString(raw)))
	}
	if len(h.Headers)+len(h.HeaderMatches) > 0 {
		a = a.And(engine.Unsure("the headers of a request"))
	}
	return a
}
