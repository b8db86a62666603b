// Package source is where profiles come from, behind one small interface. A
// source knows clusters and files, and no policy: it never leaves out, widens or
// judges what was observed.
package source

import (
	"context"

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
}

// NodeError is a node of which something is missing.
type NodeError struct {
	Node   string
	Reason string // in words, escaped
}

// Error implements error.
func (e NodeError) Error() string { return "node " + e.Node + ": " + e.Reason }
