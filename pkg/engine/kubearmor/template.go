package kubearmor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// HardeningLabel is on policies that were made of templates. Its value is the
// action in stage deny; while a workload is in audit they report only.
const HardeningLabel = "autopolicy.dev/hardening"

// Template is a policy of one action that is not yet for anybody.
type Template struct {
	Action string // Block or Audit
	spec   spec
}

// ErrAllowList is returned by ParseTemplate for a policy that allows: that makes
// the container's class an allow list, which is learned and not taken from a
// template.
var ErrAllowList = errors.New("it has Allow rules, which would deny everything else")

// ErrNoRules is returned by ParseTemplate for a policy without a rule that the
// enforcer looks at.
var ErrNoRules = errors.New("it has no rule that KubeArmor enforces or reports")

// ParseTemplate reads the spec of a KubeArmorPolicy, as YAML or JSON, and parts
// it by action. Its selector is left away. What the API server would prune is an
// error, and so is what the enforcer would never match.
func ParseTemplate(data []byte) ([]Template, error) {
	raw, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	var s spec
	if err := strict(raw, &s); err != nil {
		return nil, fmt.Errorf("read template: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	var all []Template
	for _, act := range []string{"Block", "Audit", "Allow"} {
		part, any := s.only(act)
		if !any {
			continue
		}
		if act == "Allow" {
			return nil, ErrAllowList
		}
		all = append(all, Template{act, part})
	}
	if len(all) == 0 {
		return nil, ErrNoRules
	}
	return all, nil
}

// Patterns tells whether the template has patterns, which the enforcer ignores.
func (t Template) Patterns() bool {
	return t.spec.Process != nil && len(t.spec.Process.MatchPatterns) > 0 || t.spec.File != nil && len(t.spec.File.MatchPatterns) > 0
}

// For makes the policy that holds one container of a workload to the template,
// as YAML and as the object that it builds to.
func (t Template) For(w behavior.Workload, labels map[string]string, container, name string) ([]byte, engine.Object, error) {
	p := object{APIVersion: apiVersion, Kind: kind, Spec: t.spec,
		Metadata: metadata{Name: objectName(w, container+"--"+name), Namespace: w.Namespace, Labels: map[string]string{HardeningLabel: strings.ToLower(t.Action)}}}
	p.Spec.Selector.MatchLabels = map[string]string{containerLabel: containerSelector(container)}
	for k, v := range labels {
		p.Spec.Selector.MatchLabels[k] = v
	}
	data, err := yaml.Marshal(p)
	if err != nil {
		return nil, engine.Object{}, fmt.Errorf("marshal %s/%s: %w", kind, p.Metadata.Name, err)
	}
	raw, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil, engine.Object{}, fmt.Errorf("marshal %s/%s: %w", kind, p.Metadata.Name, err)
	}
	return data, engine.Object{APIVersion: apiVersion, Kind: kind, Namespace: w.Namespace, Name: p.Metadata.Name, JSON: raw}, nil
}

// OfTemplate tells whether a policy was made by Template.For.
func OfTemplate(o engine.Object) bool {
	var p struct {
		Metadata metadata `json:"metadata"`
	}
	return kjson.UnmarshalCaseSensitivePreserveInts(o.JSON, &p) == nil && p.Metadata.Labels[HardeningLabel] != ""
}

// Room counts the keys that policies take of one container.
type Room struct {
	subject  engine.Subject
	policies []object
}

// NewRoom counts the policies that j, which the engine's Parse made, has for the
// container.
func NewRoom(j engine.Judge, s engine.Subject) (*Room, error) {
	all, ok := j.(*judge)
	if !ok {
		return nil, fmt.Errorf("count keys of %s: not a judge of %s", s.Container, Name)
	}
	r := &Room{subject: s}
	for _, p := range all.policies {
		if cluster, elsewhere := p.selects(s); cluster || elsewhere {
			r.policies = append(r.policies, p)
		}
	}
	return r, nil
}

// Take adds policies if the container has keys enough for them. Used is how many
// keys that takes, or would take, of limit.
func (r *Room) Take(objects []engine.Object) (used, limit int, err error) {
	more := slices.Clip(r.policies)
	for _, o := range objects {
		p, err := decode(o)
		if err != nil {
			return 0, maxKeys, err
		}
		more = append(more, p)
	}
	t := newTable()
	for _, p := range more {
		t.add(p)
	}
	if t.size() <= maxKeys {
		r.policies = more
	}
	return t.size(), maxKeys, nil
}

// only keeps the rules of one action, which stands once for all of them, and
// tells whether there is any. Syscall rules are audited whatever they say;
// DNS rules and presets are not the enforcer's.
func (s spec) only(act string) (spec, bool) {
	part := spec{report: s.report}
	part.Action = act
	of := func(inner, class report) bool { return action(inner.Action, class.Action, s.Action) == act }
	if s.Process != nil {
		part.Process = s.Process.only(of)
	}
	if s.File != nil {
		part.File = s.File.only(of)
	}
	if s.Network != nil {
		n := network{report: s.Network.report}
		n.Action = ""
		for _, r := range s.Network.MatchProtocols {
			if of(r.report, s.Network.report) {
				r.Action = ""
				n.MatchProtocols = append(n.MatchProtocols, r)
			}
		}
		if len(n.MatchProtocols) > 0 {
			part.Network = &n
		}
	}
	if s.Capabilities != nil {
		c := capabilities{report: s.Capabilities.report}
		c.Action = ""
		for _, r := range s.Capabilities.MatchCapabilities {
			if of(r.report, s.Capabilities.report) {
				r.Action = ""
				c.MatchCapabilities = append(c.MatchCapabilities, r)
			}
		}
		if len(c.MatchCapabilities) > 0 {
			part.Capabilities = &c
		}
	}
	if len(s.Syscalls) > 0 && act == "Audit" {
		part.Syscalls = s.Syscalls
	}
	return part, part.Process != nil || part.File != nil || part.Network != nil || part.Capabilities != nil || part.Syscalls != nil
}

func (p paths) only(of func(inner, class report) bool) *paths {
	part := paths{report: p.report}
	part.Action = ""
	for _, r := range p.MatchPaths {
		if of(r.report, p.report) {
			r.Action = ""
			part.MatchPaths = append(part.MatchPaths, r)
		}
	}
	for _, r := range p.MatchDirectories {
		if of(r.report, p.report) {
			r.Action = ""
			part.MatchDirectories = append(part.MatchDirectories, r)
		}
	}
	for _, r := range p.MatchPatterns {
		if of(r.report, p.report) {
			r.Action = ""
			part.MatchPatterns = append(part.MatchPatterns, r)
		}
	}
	if len(part.MatchPaths)+len(part.MatchDirectories)+len(part.MatchPatterns) == 0 {
		return nil
	}
	return &part
}

// CompareTemplates orders templates by how severe they say that they are, the
// most severe first, and Block before Audit.
func CompareTemplates(a, b Template) int {
	return cmp.Or(cmp.Compare(b.spec.Severity, a.spec.Severity), cmp.Compare(slices.Index([]string{"Block", "Audit"}, a.Action), slices.Index([]string{"Block", "Audit"}, b.Action)))
}
