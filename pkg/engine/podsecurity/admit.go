package podsecurity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// rule is one admission policy of ours that denies, as it stands in the tree.
type rule struct {
	name    string
	limits  limits
	unclear string           // why it cannot be told what it would do, in words
	taken   func(check) bool // out of it, by a person
}

func keys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// parseAdmission reads the admission policies that a binding makes deny, by name.
// Those of others are theirs: they hold whatever stage a workload is in.
func parseAdmission(objects []engine.Object) (map[string]rule, error) {
	policies, bound := map[string]object{}, []string{}
	for _, o := range objects {
		if o.Workload != "" || o.APIVersion != admissionVersion || o.Kind != admissionKind && o.Kind != bindingKind {
			continue
		}
		var parsed object
		if err := json.Unmarshal(o.JSON, &parsed); err != nil {
			return nil, &engine.InvalidError{Object: o.Kind + "/" + behavior.Escape(o.Name), Reason: behavior.Escape(err.Error())}
		}
		switch {
		case o.Kind == admissionKind:
			policies[o.Name] = parsed
		case slices.Contains(parsed.Spec.ValidationActions, "Deny"):
			bound = append(bound, parsed.Spec.PolicyName)
		}
	}
	rules := map[string]rule{}
	for _, name := range bound {
		p, ok := policies[name]
		if !ok {
			continue
		}
		r := rule{name: behavior.Escape(name)}
		if err := r.read(p.Spec); err != nil {
			r.unclear = behavior.Escape(err.Error())
		}
		rules[name] = r
	}
	return rules, nil
}

// read takes the limits out of a policy whose validations are those that we write.
func (r *rule) read(spec objectSpec) error {
	fields := map[string]json.RawMessage{}
	for _, v := range spec.Variables {
		switch {
		case v.Name == "containers" && v.Expression == allContainers:
		case v.Name == "containers" || !json.Valid([]byte(v.Expression)):
			return fmt.Errorf("variable %s is not one that autopolicy writes", v.Name)
		default:
			fields[v.Name] = json.RawMessage(v.Expression)
		}
	}
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r.limits); err != nil {
		return err
	}
	for _, v := range spec.Validations {
		if !slices.ContainsFunc(checks(), func(c check) bool { return c.expression == v.Expression }) {
			return errors.New("a validation is not one that autopolicy writes")
		}
	}
	// One that a person took out asks for nothing.
	r.taken = func(c check) bool {
		return !slices.ContainsFunc(spec.Validations, func(v validation) bool { return v.Expression == c.expression })
	}
	return nil
}

// admit tells whether a pod passes the policy.
func (r rule) admit(spec behavior.PodSpec) engine.Verdict {
	is := func(d engine.Decision, reason string) engine.Verdict {
		return engine.Verdict{Decision: d, Object: admissionKind + "/" + r.name, Reason: reason}
	}
	if r.unclear != "" {
		return is(engine.Unknown, r.unclear)
	}
	for _, c := range checks() {
		if !r.taken(c) && c.broken(r.limits, spec) {
			return is(engine.Denied, "a pod "+c.message)
		}
	}
	return is(engine.Allowed, "its pods may be as they are")
}
