// Package rollout decides what happens next to the policies of one namespace:
// what newly learned behaviour changes in its tree (Discover), what people decide
// about behaviour (Review), whether a stage may begin (Promote), what the tree was
// before the last one (Rollback), and which evidence a rule stands on (Explain).
//
// It is pure: the tree, the profiles and the time are arguments, and the result
// is a Plan, or the reasons to wait. It never calls git or a cluster, and never
// says that something is safe because nothing was seen.
package rollout

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// ErrNothingObserved is returned by Discover when no container of the namespace
// was observed doing anything: no evidence is never a rule.
var ErrNothingObserved = errors.New("nothing was observed")

// Learner makes the rules of one workload from its profiles and what people decided
// about them (may be nil): learn.Rules with its other options bound. It must be a
// pure function.
type Learner func([]behavior.Profile, policy.Decided) (policy.Set, error)

// Input is what every decision is made from. Nothing in it is written to.
type Input struct {
	Namespace string
	Tree      overlay.Tree
	// Fresh are the profiles of the observation that the decision is for; those
	// of other namespaces are passed over.
	Fresh   behavior.Profiles
	Engines []engine.Engine
	Learn   Learner
	Now     time.Time
	By      string // who asked for it, as rollout.yaml shall name them
	// Synced is what the cluster runs of the tree; nil when it was not asked, and
	// then no gate asks for it.
	Synced *Synced
	// Topology is the cluster as the observation saw it, by which Discover checks
	// what labels select; nil when it is not known.
	Topology *topology.Cluster
}

// Plan is a change of a namespace's tree. It is carried out by others.
type Plan struct {
	Namespace string
	// Files are the files that change: their new bytes by path in the
	// namespace's folder, nil for those to delete.
	Files map[string][]byte
	// Message is the commit message: subject, body and trailers. It is empty
	// when the plan is.
	Message string
	// Reasons say why something stays as it is, or is done in spite of a gate.
	Reasons []string
	Notes   []Note
	Summary []Summary
}

// Empty tells whether there is nothing to change.
func (p Plan) Empty() bool { return len(p.Files) == 0 }

// Note is something about a workload that a person should know and that stops
// nothing.
type Note struct {
	Workload string // slug; empty when it is about the namespace
	policy.Note
}

// Summary is what is known of one workload after the plan.
type Summary struct {
	Workload behavior.Workload
	Stage    policy.Stage
	Change   Change
	// Containers were observed, sorted; Coverage is theirs, by name, of the
	// fresh profiles.
	Containers []string
	Coverage   map[string]behavior.Coverage
	Facts      map[behavior.Kind]int // distinct facts of all containers
	Rules      map[string]int        // by engine: rules that it would enforce in stage deny
	New        []policy.Rule         // rules that the tree did not hold before
	// More of its life was observed than ever before, and that is recorded though
	// no rule changed.
	More bool
	// Suspicions were seen, now or before, and are in no rule. Those that are not
	// declined wait for a person.
	Suspicions []policy.Suspicion
	// Weak counts the rules that stand on thin evidence; explain says which.
	Weak int
	// Entered counts the fresh facts of processes that entered a container from
	// outside and that were left out.
	Entered int
}

// Change is what a plan does to a workload.
type Change string

// Changes.
const (
	Unchanged  Change = "unchanged"
	Added      Change = "new"
	Updated    Change = "updated"
	Covered    Change = "seen more" // no rule changed, but more of its life was observed than ever before
	Promoted   Change = "promoted"
	RolledBack Change = "rolled back"
	Held       Change = "held" // learned something, and is not changed because it is in deny
)

// names lists the engines, sorted.
func names(engines []engine.Engine) []string {
	list := make([]string, 0, len(engines))
	for _, e := range engines {
		list = append(list, e.Name())
	}
	slices.Sort(list)
	return list
}

// changed gives the files by which a tree differs from what it was.
func changed(old, now overlay.Tree) map[string][]byte {
	files := map[string][]byte{}
	for p, data := range now {
		if was, ok := old[p]; !ok || !bytes.Equal(was, data) {
			if data == nil {
				data = []byte{}
			}
			files[p] = data
		}
	}
	for p := range old {
		if _, ok := now[p]; !ok {
			files[p] = nil
		}
	}
	return files
}

func (in Input) check() error {
	if in.Namespace == "" {
		return errors.New("plan: no namespace is given")
	}
	if len(in.Engines) == 0 {
		return errors.New("plan: no engine is given")
	}
	if all := names(in.Engines); len(slices.Compact(slices.Clone(all))) != len(all) {
		return fmt.Errorf("plan: an engine is given twice: %q", all)
	}
	return nil
}
