package engine_test

import (
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

func TestSelectorMatch(t *testing.T) {
	labels := map[string]string{"app": "web", "tier": ""}
	expr := func(key, op string, values ...string) engine.Selector {
		return engine.Selector{MatchExpressions: []engine.Requirement{{Key: key, Operator: op, Values: values}}}
	}
	for _, c := range []struct {
		name         string
		s            engine.Selector
		whole, known engine.Truth // when labels are all there are, and when there may be more
	}{
		{"the empty selector selects everything", engine.Selector{}, engine.Yes, engine.Yes},
		{"an equal label matches", engine.Selector{MatchLabels: map[string]string{"app": "web"}}, engine.Yes, engine.Yes},
		{"an empty value is a value", engine.Selector{MatchLabels: map[string]string{"tier": ""}}, engine.Yes, engine.Yes},
		{"another value never matches", engine.Selector{MatchLabels: map[string]string{"app": "api"}}, engine.No, engine.No},
		{"a label that is missing may be there", engine.Selector{MatchLabels: map[string]string{"x": "y"}}, engine.No, engine.Maybe},
		{"a missing label cannot save a wrong one", engine.Selector{MatchLabels: map[string]string{"x": "y", "app": "api"}}, engine.No, engine.No},
		{"In matches one of its values", expr("app", "In", "api", "web"), engine.Yes, engine.Yes},
		{"In refuses the others", expr("app", "In", "api"), engine.No, engine.No},
		{"NotIn refuses its values", expr("app", "NotIn", "web"), engine.No, engine.No},
		{"NotIn matches the others", expr("app", "NotIn", "api"), engine.Yes, engine.Yes},
		{"NotIn matches what has no such label", expr("x", "NotIn", "y"), engine.Yes, engine.Maybe},
		{"Exists matches whatever the value", expr("tier", "Exists"), engine.Yes, engine.Yes},
		{"Exists refuses what has no such label", expr("x", "Exists"), engine.No, engine.Maybe},
		{"DoesNotExist refuses what has it", expr("app", "DoesNotExist"), engine.No, engine.No},
		{"DoesNotExist matches what lacks it", expr("x", "DoesNotExist"), engine.Yes, engine.Maybe},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.s.Match(engine.Labels(labels)); got != c.whole {
				t.Errorf("with all labels known: got %d, want %d", got, c.whole)
			}
			if got := c.s.Match(engine.StableLabels(labels)); got != c.known {
				t.Errorf("with stable labels known: got %d, want %d", got, c.known)
			}
			if err := c.s.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSelectorValidateRefuses(t *testing.T) {
	for _, s := range []engine.Selector{
		{MatchLabels: map[string]string{"app": "a b"}},
		{MatchLabels: map[string]string{"app": "-a"}},
		{MatchLabels: map[string]string{"": "a"}},
		{MatchExpressions: []engine.Requirement{{Key: "app", Operator: "In"}}},
		{MatchExpressions: []engine.Requirement{{Key: "app", Operator: "Exists", Values: []string{"x"}}}},
		{MatchExpressions: []engine.Requirement{{Key: "app", Operator: "Gt", Values: []string{"1"}}}},
	} {
		if s.Validate() == nil {
			t.Errorf("%+v passed", s)
		}
	}
}

func TestValidLabels(t *testing.T) {
	for _, good := range []string{"app", "app.kubernetes.io/name", "A_b", "k"} {
		if !engine.ValidLabels(map[string]string{good: "x"}) {
			t.Errorf("%q was refused", good)
		}
	}
	for _, bad := range []string{"", "k8s:app", "a b", "a/b/c", "a\nb", `a\x0a`, "-a"} {
		if engine.ValidLabels(map[string]string{bad: "x"}) {
			t.Errorf("%q passed", bad)
		}
	}
	if engine.ValidLabels(map[string]string{"app": "x: y"}) {
		t.Error("a value with a colon passed")
	}
}
