package policy

import "github.com/autopolicy/kubectl-autopolicy/pkg/behavior"

// Decision is what a person said about a behaviour.
type Decision string

// Decisions. The empty one is none: nobody said anything yet.
const (
	Accepted  Decision = "accepted"  // may be learned
	Declined  Decision = "declined"  // stays out, and is denied where an engine can
	Postponed Decision = "postponed" // stays out until somebody looks again
)

// Decided tells what a person said about a fact of a container; empty where
// nobody said anything. A nil Decided stands for nothing decided.
type Decided func(container string, f behavior.Fact) Decision

// Suspicion is behaviour that no policy should bless without a person, such as a
// shell that a server ran. It is set aside while learning.
type Suspicion struct {
	Container string
	// Class is the kind of suspicion in one or two words with dashes, such as
	// shell or binary-written; it never changes its meaning.
	Class string
	// Why says in one sentence what is suspicious about it; escaped.
	Why string
	// Facts are what was seen, in order of behavior.Compare; never empty. They are
	// what a person decides about.
	Facts []behavior.Observed
	// With is what was done only by programs that Facts started. It stays out as
	// long as they do, and is learned with them.
	With []behavior.Observed
	// Decision is what a person said about all of Facts; never Accepted, since what
	// is accepted is learned.
	Decision Decision
}
