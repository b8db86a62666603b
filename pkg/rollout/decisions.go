package rollout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// DecisionsFile is where what people accepted, declined or postponed stands. It is
// theirs: they may edit it, and the tool only adds to its end.
const DecisionsFile = "decisions.yaml"

const (
	decisionsKind   = "Decisions"
	decisionsHeader = `# What people accepted, declined or postponed; not applied to the cluster. Edit it
# as you like: kubectl autopolicy adds to its end and leaves the rest alone. Of two
# decisions about the same behaviour the newer one counts.
apiVersion: ` + recordVersion + `
kind: ` + decisionsKind + `
namespace: %s
decisions: []
`
	// Undecided stands in a file of proposals where somebody has yet to decide.
	Undecided policy.Decision = "undecided"
)

// Decision is what somebody said about a behaviour.
type Decision struct {
	Decision  policy.Decision `json:"decision"`
	Workload  string          `json:"workload,omitempty"`  // kind/name; none: all of the namespace
	Container string          `json:"container,omitempty"` // none: all of the workload
	Class     string          `json:"class,omitempty"`     // of the suspicion, for readers; nothing is matched by it
	By        string          `json:"by,omitempty"`
	When      time.Time       `json:"when,omitzero"`
	Reason    string          `json:"reason,omitempty"`
	What      []Matcher       `json:"what"`
}

// Matcher tells which facts are meant. A field that is left out is not looked at;
// one that is there has to be equal, but for Path where Match says otherwise.
type Matcher struct {
	Kind behavior.Kind `json:"kind"`
	Exe  string        `json:"exe,omitempty"`
	// Parent of a process; "" (and not left out) is the container's runtime.
	Parent *string      `json:"parent,omitempty"`
	Path   string       `json:"path,omitempty"`
	Match  policy.Match `json:"match,omitempty"` // of Path: exact unless said otherwise
	// Access: what is accepted covers less than it too; what is declined or
	// postponed, whatever has a part of it.
	Access    behavior.Access    `json:"access,omitempty"`
	Direction behavior.Direction `json:"direction,omitempty"`
	Protocol  string             `json:"protocol,omitempty"`
	Port      uint16             `json:"port,omitempty"`
	Peer      *behavior.Peer     `json:"peer,omitempty"` // its labels, Service and, where it has a name, address are not looked at
	Name      string             `json:"name,omitempty"`
	Arch      string             `json:"arch,omitempty"`
	Type      string             `json:"type,omitempty"`
	Target    string             `json:"target,omitempty"`
}

// Exactly is the matcher of one fact.
func Exactly(f behavior.Fact) Matcher {
	m := Matcher{Kind: f.Kind, Exe: f.Exe, Path: f.Path, Access: f.Access, Direction: f.Direction, Protocol: f.Protocol, Port: f.Port, Name: f.Name, Arch: f.Arch}
	switch f.Kind {
	case behavior.Process:
		m.Exe, m.Parent = "", &f.Parent
	case behavior.Network, behavior.HTTP, behavior.Kafka:
		if f.Direction != behavior.Listen {
			peer := f.Peer
			peer.Labels, peer.Service = "", ""
			if peer.Name != "" {
				peer = behavior.Peer{Kind: peer.Kind, Name: peer.Name}
			}
			m.Peer = &peer
		}
		m.Type, m.Target = f.Type, f.Target
	case behavior.DNS, behavior.Socket:
		m.Type = f.Type
	}
	return m
}

// Matches tells whether a fact is meant by a decision of that kind.
func (m Matcher) Matches(f behavior.Fact, d policy.Decision) bool {
	equal := func(want, have string) bool { return want == "" || want == have }
	access := m.Access == 0 || m.Access.Has(f.Access)
	if d != policy.Accepted {
		access = m.Access == 0 || m.Access&f.Access != 0
	}
	return m.Kind == f.Kind && access && equal(m.Exe, f.Exe) && (m.Parent == nil || *m.Parent == f.Parent) && m.path(f.Path) &&
		equal(string(m.Direction), string(f.Direction)) && equal(m.Protocol, f.Protocol) && (m.Port == 0 || m.Port == f.Port) &&
		(m.Peer == nil || samePeer(*m.Peer, f.Peer)) && equal(m.Name, f.Name) && equal(m.Arch, f.Arch) && equal(m.Type, f.Type) && equal(m.Target, f.Target)
}

func (m Matcher) path(path string) bool {
	return m.Path == "" || policy.Rule{Path: m.Path, Match: m.Match}.Covers(path)
}

func samePeer(want, have behavior.Peer) bool {
	if want.Name != "" {
		return want.Name == have.Name && (want.Kind == "" || want.Kind == have.Kind)
	}
	return want.Kind == have.Kind && want.Namespace == have.Namespace && want.Workload == have.Workload && want.Address == have.Address
}

// check refuses what would mean more than anybody who wrote it meant.
func (m Matcher) check() error {
	if !slices.Contains(behavior.Kinds(), m.Kind) {
		return fmt.Errorf("kind %q: want one of %s", m.Kind, list(behavior.Kinds(), len(behavior.Kinds())))
	}
	for _, s := range []string{m.Exe, m.Path, m.Protocol, m.Name, m.Arch, m.Type, m.Target} {
		if !behavior.IsEscaped(s) {
			return fmt.Errorf("%s: write a backslash as \\\\, and what cannot be printed as \\xNN", behavior.Escape(s))
		}
	}
	if m.Path == "" && m.Name == "" && m.Port == 0 && m.Peer == nil && m.Exe == "" && m.Type == "" {
		return fmt.Errorf("%s and nothing else would mean all of them: name a path, a name, a port, a peer or an executable", m.Kind)
	}
	folder := strings.HasSuffix(m.Path, "/")
	switch m.Match {
	case "", policy.Exact, policy.Pattern:
		if folder && len(m.Path) > 1 {
			return fmt.Errorf("path %s is a folder: say match: directory or recursive", m.Path)
		}
	case policy.Directory, policy.Recursive:
		if !folder {
			return fmt.Errorf("path %s: with match: %s it ends in a slash", m.Path, m.Match)
		}
	default:
		return fmt.Errorf("match %q: want exact, directory, recursive or pattern", m.Match)
	}
	return nil
}

// decisionList is decisions.yaml.
type decisionList struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Namespace  string     `json:"namespace"`
	Decisions  []Decision `json:"decisions"`
}

// DecodeDecisions reads decisions of a namespace, as decisions.yaml has them or as
// a person filled them in, and refuses what it does not know, with the file and the
// line. Undecided ones are refused too, unless open is set.
func DecodeDecisions(file string, data []byte, namespace string, open bool) ([]Decision, error) {
	var all decisionList
	if err := overlay.Strict(file, data, &all); err != nil {
		return nil, err
	}
	if all.APIVersion != recordVersion || all.Kind != decisionsKind {
		return nil, &overlay.InvalidError{File: file, Reason: fmt.Sprintf("is %q %q, want %s %s", all.APIVersion, all.Kind, recordVersion, decisionsKind)}
	}
	if all.Namespace != namespace {
		return nil, &overlay.InvalidError{File: file, Reason: fmt.Sprintf("is about namespace %q, want %q", all.Namespace, namespace)}
	}
	lines := overlay.Lines(data, "decisions")
	for i, d := range all.Decisions {
		if err := d.check(open); err != nil {
			e := &overlay.InvalidError{File: file, Reason: err.Error()}
			if i < len(lines) {
				e.Line = lines[i]
			}
			return nil, e
		}
	}
	return all.Decisions, nil
}

func (d Decision) check(open bool) error {
	switch d.Decision {
	case policy.Accepted, policy.Declined, policy.Postponed:
	case Undecided, "":
		if !open {
			return fmt.Errorf("decision %q: want accepted, declined or postponed", d.Decision)
		}
	default:
		return fmt.Errorf("decision %q: want accepted, declined or postponed", d.Decision)
	}
	if kind, name, ok := strings.Cut(d.Workload, "/"); d.Workload != "" && (!ok || kind == "" || name == "" || strings.ToLower(kind) != kind) {
		return fmt.Errorf("workload %q: want kind/name, such as deployment/web", d.Workload)
	}
	if len(d.What) == 0 {
		return fmt.Errorf("%s, and nothing is named below what", d.Decision)
	}
	for _, m := range d.What {
		if err := m.check(); err != nil {
			return err
		}
	}
	return nil
}

// EncodeDecisions writes decisions of a namespace as DecodeDecisions reads them.
func EncodeDecisions(namespace string, all []Decision) ([]byte, error) {
	return appendDecisions(nil, namespace, all)
}

// appendDecisions adds to the end of decisions.yaml, which may not be there yet.
func appendDecisions(data []byte, namespace string, more []Decision) ([]byte, error) {
	if data == nil {
		data = fmt.Appendf(nil, decisionsHeader, strconv.Quote(namespace))
	}
	var entries [][]byte
	for _, d := range more {
		entry, err := d.encode()
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	if len(entries) == 0 {
		return data, nil
	}
	return overlay.Append(DecisionsFile, data, "decisions", entries...)
}

// encode is the YAML of one decision, in which each matcher is one line.
func (d Decision) encode() ([]byte, error) {
	var b bytes.Buffer
	for _, field := range []struct{ key, value string }{
		{"decision", string(d.Decision)}, {"workload", d.Workload}, {"container", d.Container}, {"class", d.Class}, {"by", oneLine(d.By)},
		{"when", stamp(d.When)}, {"reason", oneLine(d.Reason)},
	} {
		if field.value == "" {
			continue
		}
		quoted, err := yaml.Marshal(field.value)
		if err != nil {
			return nil, fmt.Errorf("write decision: %w", err)
		}
		b.WriteString(field.key + ": " + string(quoted))
	}
	b.WriteString("what:\n")
	for _, m := range d.What {
		b.WriteString("- " + m.line() + "\n")
	}
	return b.Bytes(), nil
}

// line is the matcher as JSON on one line, which is YAML too.
func (m Matcher) line() string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return fmt.Sprintf("%q", err) // nothing in a matcher lacks a form
	}
	return strings.TrimSpace(b.String())
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return behavior.Second(t).Format(time.RFC3339)
}

// verdicts are the decisions about one workload, so that one about a fact is found
// without going through all of them.
type verdicts map[verdictKey][]verdict

type verdictKey struct {
	kind behavior.Kind
	word string // path or name that the fact has to have; none where the matcher asks for more or less
}

type verdict struct {
	Matcher
	container string
	decision  policy.Decision
	when      time.Time
	at        int // place in the file
}

// about gives what was decided about a workload; nil where nothing was.
func about(all []Decision, w behavior.Workload) policy.Decided {
	known := verdicts{}
	for at, d := range all {
		if d.Workload != "" && d.Workload != w.String() {
			continue
		}
		for _, m := range d.What {
			k := verdictKey{kind: m.Kind}
			if k.word = m.Name; m.Match == "" || m.Match == policy.Exact {
				k.word += m.Path
			}
			known[k] = append(known[k], verdict{m, d.Container, d.Decision, d.When, at})
		}
	}
	if len(known) == 0 {
		return nil
	}
	return known.decided
}

// decided gives the newest decision about a fact, of equally new ones the last.
func (v verdicts) decided(container string, f behavior.Fact) policy.Decision {
	var found *verdict
	words := []string{"", f.Path, f.Name, f.Name + f.Path}
	for i, word := range words {
		if slices.Contains(words[:i], word) {
			continue
		}
		list := v[verdictKey{f.Kind, word}]
		for i := range list {
			d := &list[i]
			if (d.container == "" || d.container == container) && d.Matches(f, d.decision) &&
				(found == nil || d.when.After(found.when) || d.when.Equal(found.when) && d.at > found.at) {
				found = d
			}
		}
	}
	if found == nil {
		return ""
	}
	return found.decision
}

// decisionsDigest names what was decided about a workload; empty where nothing was.
func decisionsDigest(all []Decision, w behavior.Workload) string {
	var lines []string
	for _, d := range all {
		if d.Workload != "" && d.Workload != w.String() {
			continue
		}
		for _, m := range d.What {
			lines = append(lines, fmt.Sprintf("%s %s %s %s\n", d.Decision, d.Container, stamp(d.When), m.line()))
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return digest([]byte(strings.Join(lines, "")))
}
