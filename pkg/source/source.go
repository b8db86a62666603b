// Package source is where profiles come from, behind one small interface. A
// source knows clusters and files, and no policy: it never leaves out, widens or
// judges what was observed.
package source

import (
	"context"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// Source gives what was observed so far.
type Source interface {
	Pull(context.Context) (Result, error)
}

// Result is what a source observed.
type Result struct {
	Profiles behavior.Profiles
	// Nodes are those that could not be observed, or not in full. They stand in
	// the Coverage of every workload that had pods there, too.
	Nodes []NodeError
	// Unattributed counts what was seen in containers of an unknown pod.
	Unattributed uint64
	// Topology is the cluster that the profiles were resolved with; nil for a
	// source that has none.
	Topology *topology.Cluster
	// Denials in the order of their subjects and facts, where the source sees them.
	Denials []Denial
	// Passed counts, by reason, what a source was told that makes no fact and is no
	// loss, such as an answer whose question was seen.
	Passed map[string]uint64
}

// NodeError is a node of which something is missing.
type NodeError struct {
	Node   string
	Reason string // in words, escaped
}

// Error implements error.
func (e NodeError) Error() string { return "node " + e.Node + ": " + e.Reason }

// Denial is something that a workload tried and that its policies denied, or would
// have in deny. It is no fact: what is denied is not learned.
type Denial struct {
	Subject behavior.Subject
	Fact    behavior.Fact
	// Evidence says how often, when and by which source.
	Evidence behavior.Evidence
	// Policy that denied it, escaped, as NAMESPACE/NAME; empty where the source does
	// not say.
	Policy string
	// Audited: it went through, since the policy only audits. It is a fact as well.
	Audited bool
}

// PlainLabel tells whether s has only what a label's key or value can have. A source
// that was told labels by others lets no other in.
func PlainLabel(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_./", r))
	}) < 0
}
