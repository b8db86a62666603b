// Package policy is the intent between what was seen and what an engine
// enforces: rules that any engine may render, each with the evidence that it
// came from. It knows no engine's syntax and decides nothing.
package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Stage is how far a workload's policies have come.
type Stage string

// The stages, in order.
const (
	Observe Stage = "observe" // nothing applied
	Audit   Stage = "audit"   // applied, reports what it would deny
	Deny    Stage = "deny"    // applied and enforced
)

// ParseStage reads a stage as people write it.
func ParseStage(s string) (Stage, error) {
	switch stage := Stage(s); stage {
	case Observe, Audit, Deny:
		return stage, nil
	}
	return "", fmt.Errorf("stage %q: want observe, audit or deny", s)
}

// Match says which paths a rule's Path covers.
type Match string

// Ways to cover paths.
const (
	Exact     Match = "exact"     // the path itself
	Directory Match = "directory" // files directly in it; Path ends in a slash
	Recursive Match = "recursive" // everything below it; Path ends in a slash
	// Pattern covers every path that differs from Path only in its parts that
	// are a lone asterisk: names that change with every start, such as process
	// numbers below /proc. Of a name that DNS is asked for, an asterisk stands for
	// one label.
	Pattern Match = "pattern"
	// Template covers every HTTP path that differs from Path only in its parts
	// that are written as a Class.
	Template Match = "template"
)

// Rule allows one thing to one container. Which fields mean something depends on
// Kind, as in behavior.Fact.
type Rule struct {
	Kind      behavior.Kind
	Container string
	// Exes are the executables that may do it, sorted. For a process they are
	// the parents that may run it, where the empty string stands for the
	// container's runtime: its entrypoint, probes and exec sessions.
	Exes []string

	Path   string // process, file, HTTP
	Match  Match  // of Path; for DNS of Name
	Access behavior.Access

	Direction behavior.Direction // network, HTTP
	Protocol  string
	Port      uint16
	// Peer of a network rule; of a DNS rule the server, and nobody where it could
	// not be told. A peer outside is told by its Name alone where it has one, else
	// by its address, or the Prefix.
	Peer behavior.Peer
	// Prefix stands for many addresses outside the cluster, of which Peer.Address
	// is then none; invalid for a rule of one address or name.
	Prefix netip.Prefix

	Name string // capability, syscall, DNS, HTTP method (empty: any), Kafka topic
	Type string // HTTP: http or grpc; Kafka: the API in words
	Host string // HTTP, without a port; empty: any
	Arch string // syscall

	// Why says in words how the rule came to be as wide as it is; empty for a
	// rule that allows just what was seen.
	Why string
	// Weak says in words why the evidence is thin, such as that it was seen once in
	// one of three pods; empty for a rule that stands on more.
	Weak string
	// Facts are what the rule came from; never none.
	Facts behavior.Selection
}

// Evidence joins the evidence of all the rule's facts, but for parents.
func (r Rule) Evidence() behavior.Evidence { return r.Facts.Evidence() }

// Count is how often the rule's facts were seen, at least.
func (r Rule) Count() uint64 { return r.Facts.Count() }

// String says in words what the rule allows.
func (r Rule) String() string {
	switch r.Kind {
	case behavior.Process:
		return "run " + r.path() + r.by()
	case behavior.File:
		verb := "read "
		if r.Access&(behavior.Write|behavior.Create) != 0 {
			verb = "write "
			if r.Access.Has(behavior.Read) {
				verb = "read and write "
			}
		}
		return verb + r.path() + r.by()
	case behavior.Network:
		switch r.Direction {
		case behavior.Listen:
			return fmt.Sprintf("listen on %s/%d%s", r.Protocol, r.Port, r.by())
		case behavior.Ingress:
			return fmt.Sprintf("be reached on %s/%d by %s", r.Protocol, r.Port, r.peer())
		}
		return fmt.Sprintf("connect to %s on %s/%d%s", r.peer(), r.Protocol, r.Port, r.by())
	case behavior.DNS:
		return "ask for the name " + r.Name + r.by()
	case behavior.HTTP:
		what := strings.TrimSpace(r.Name+" "+r.Host) + r.Path
		if r.Match == Recursive {
			what = strings.TrimSpace(r.Name + " " + r.Host + " anything")
		}
		if r.Direction == behavior.Ingress {
			return fmt.Sprintf("be asked for %s on port %d by %s", what, r.Port, r.peer())
		}
		return fmt.Sprintf("ask %s for %s on port %d%s", r.peer(), what, r.Port, r.by())
	case behavior.Capability:
		return "use capability " + r.Name + r.by()
	case behavior.Syscall:
		return "call " + r.Name
	}
	return string(r.Kind)
}

func (r Rule) peer() string {
	if r.Prefix.IsValid() {
		return r.Prefix.String() + " (outside)"
	}
	return r.Peer.String()
}

func (r Rule) path() string {
	switch r.Match {
	case Directory:
		return "files in " + r.Path
	case Recursive:
		return "anything below " + r.Path
	}
	return r.Path
}

func (r Rule) by() string {
	exes := slices.Clone(r.Exes)
	for i, e := range exes {
		if e == "" {
			exes[i] = "the container's runtime"
			if r.Kind == behavior.Network {
				exes[i] = "a program that was not seen"
			}
		}
	}
	if len(exes) == 0 {
		return ""
	}
	return ", by " + strings.Join(exes, ", ")
}

// Compare orders rules totally, as far as they differ in what they allow.
func Compare(a, b Rule) int {
	return cmp.Or(
		cmp.Compare(a.Container, b.Container),
		behavior.Compare(a.fact(), b.fact()),
		cmp.Compare(a.Match, b.Match),
		slices.Compare(a.Exes, b.Exes),
		a.Prefix.Compare(b.Prefix),
	)
}

func (r Rule) fact() behavior.Fact {
	return behavior.Fact{Kind: r.Kind, Path: r.Path, Access: r.Access, Direction: r.Direction, Protocol: r.Protocol,
		Port: r.Port, Peer: r.Peer, Name: r.Name, Type: r.Type, Target: r.Host, Arch: r.Arch}
}

// Note is something that could not be learned or expressed, and so is not in a
// policy although a person might expect it.
type Note struct {
	Engine    string `json:"engine,omitempty"` // empty when it holds for every engine
	Container string `json:"container,omitempty"`
	Text      string `json:"text"` // escaped, one sentence
}

// Set is everything that one workload may do.
type Set struct {
	Workload behavior.Workload
	// Labels select the workload's pods, and no others as far as is known.
	Labels map[string]string
	// Containers are the containers that were observed, sorted.
	Containers []string
	Rules      []Rule // in order of Compare
	// Coverage says, by container, how much of the truth the rules can claim to
	// hold, and what its pod may do by its specification.
	Coverage map[string]behavior.Coverage
	Notes    []Note
	// Suspicions were seen and are in no rule until a person accepts them.
	Suspicions []Suspicion
}

// Of gives the rules of one container and kind, in order. An empty container
// means every container.
func (s Set) Of(container string, kind behavior.Kind) []Rule {
	var rules []Rule
	for _, r := range s.Rules {
		if r.Kind == kind && (container == "" || r.Container == container) {
			rules = append(rules, r)
		}
	}
	return rules
}
