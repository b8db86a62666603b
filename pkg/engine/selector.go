package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Truth is the answer to a question about something that is only partly known.
type Truth int8

// Answers, in an order that makes And the smaller and Or the greater of two.
const (
	No Truth = iota
	Maybe
	Yes
)

// TruthOf is Yes or No.
func TruthOf(b bool) Truth {
	if b {
		return Yes
	}
	return No
}

// And is Yes when both are.
func (t Truth) And(o Truth) Truth { return min(t, o) }

// Or is Yes when one is.
func (t Truth) Or(o Truth) Truth { return max(t, o) }

// Not swaps Yes and No.
func (t Truth) Not() Truth { return Yes - t }

// Selector is a Kubernetes label selector. The zero Selector selects everything.
type Selector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []Requirement     `json:"matchExpressions,omitempty"`
}

// Requirement is one expression of a Selector.
type Requirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"` // In, NotIn, Exists, DoesNotExist
	Values   []string `json:"values,omitempty"`
}

// Lookup tells a label's value by its key: Yes with the value, No when the label
// is known not to be there, Maybe when it is not known.
type Lookup func(key string) (value string, known Truth)

// StableLabels is a Lookup in the labels by which a workload's pods are told. A
// pod may carry others, so what is missing here is not known.
func StableLabels(labels map[string]string) Lookup {
	return func(key string) (string, Truth) {
		if v, ok := labels[key]; ok {
			return v, Yes
		}
		return "", Maybe
	}
}

// Match tells whether the selector selects what has those labels.
func (s Selector) Match(lookup Lookup) Truth {
	t := Yes
	for k, want := range s.MatchLabels {
		v, known := lookup(k)
		t = t.And(known.And(TruthOf(known != Yes || v == want)))
	}
	for _, r := range s.MatchExpressions {
		t = t.And(r.match(lookup))
	}
	return t
}

func (r Requirement) match(lookup Lookup) Truth {
	v, known := lookup(r.Key)
	in := known.And(TruthOf(known != Yes || slices.Contains(r.Values, v)))
	switch r.Operator {
	case "In":
		return in
	case "NotIn":
		return in.Not()
	case "Exists":
		return known
	case "DoesNotExist":
		return known.Not()
	}
	return No
}

// Empty tells whether the selector selects everything.
func (s Selector) Empty() bool { return len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0 }

// Keys are the keys that the selector asks for, sorted and without doubles.
func (s Selector) Keys() []string {
	keys := slices.Collect(maps.Keys(s.MatchLabels))
	for _, r := range s.MatchExpressions {
		keys = append(keys, r.Key)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Validate tells whether the API server would take the selector's values and
// operators; keys are the caller's to check, since engines put prefixes before
// them.
func (s Selector) Validate() error {
	for k, v := range s.MatchLabels {
		if k == "" || !validLabelValue(v) {
			return fmt.Errorf("selector label %q: bad value %q", k, v)
		}
	}
	for _, r := range s.MatchExpressions {
		switch r.Operator {
		case "In", "NotIn":
			if len(r.Values) == 0 {
				return fmt.Errorf("selector expression on %q: %s needs values", r.Key, r.Operator)
			}
		case "Exists", "DoesNotExist":
			if len(r.Values) > 0 {
				return fmt.Errorf("selector expression on %q: %s takes no values", r.Key, r.Operator)
			}
		default:
			return fmt.Errorf("selector expression on %q: unknown operator %q", r.Key, r.Operator)
		}
		for _, v := range r.Values {
			if r.Key == "" || !validLabelValue(v) {
				return fmt.Errorf("selector expression on %q: bad value %q", r.Key, v)
			}
		}
	}
	return nil
}

// ValidLabels tells whether labels could be those of an object in the API. A
// policy is never made with others: they could select what nobody meant.
func ValidLabels(labels map[string]string) bool {
	for k, v := range labels {
		if !validLabelKey(k) || !validLabelValue(v) {
			return false
		}
	}
	return true
}

// validLabelKey takes a name, or a DNS subdomain, a slash and a name.
func validLabelKey(k string) bool {
	prefix, name, ok := strings.Cut(k, "/")
	if !ok {
		return k != "" && validLabelValue(k)
	}
	if prefix == "" || len(prefix) > 253 {
		return false
	}
	for i := range len(prefix) {
		c := prefix[i]
		inner := i > 0 && i < len(prefix)-1 && (c == '-' || c == '.')
		if !inner && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name != "" && validLabelValue(name)
}

func validLabelValue(v string) bool {
	if len(v) > 63 {
		return false
	}
	for i := range len(v) {
		c := v[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if letter || i > 0 && i < len(v)-1 && (c == '-' || c == '_' || c == '.') {
			continue
		}
		return false
	}
	return true
}

// Ask is Match with what the answer hangs on; whose names the pods in words.
func (s Selector) Ask(lookup Lookup, whose string) Answer {
	t := s.Match(lookup)
	if t != Maybe {
		return Answer{Truth: t}
	}
	for _, k := range s.Keys() {
		if _, known := lookup(k); known == Maybe {
			return Unsure("label %s of %s", k, whose)
		}
	}
	return Unsure("the labels of %s", whose)
}
