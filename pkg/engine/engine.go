// Package engine holds what every enforcement engine has in common: the shape of
// what it renders and of how it judges. The engines themselves are the packages
// below it; they import this one and never a sibling.
package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// ErrNoEvidence is returned by Render for a set that holds no rule the engine
// could render: no evidence is never a policy.
var ErrNoEvidence = errors.New("no evidence to render a policy from")

// Engine turns intent into the objects of one enforcement engine, and reads such
// objects back, whoever wrote them, to judge by them.
type Engine interface {
	// Name is the word for the engine in flags, files and tables.
	Name() string
	// Render gives the files for one workload, the same bytes for the same set.
	// It returns ErrNoEvidence rather than an empty policy.
	Render(policy.Set) (Rendered, error)
	// Parse reads all objects of a namespace, takes those that are the
	// engine's own and refuses those of them that the engine would refuse
	// (InvalidError). Objects of others are passed over.
	Parse([]Object) (Judge, error)
}

// Rendered is what an engine made for one workload.
type Rendered struct {
	// Base is the file with the engine's Kubernetes objects, the same in every
	// stage; empty when the engine needs no object in the cluster.
	Base []byte
	// Stage holds files that differ by stage and that no kustomization lists,
	// by stage and file name, such as a seccomp profile.
	Stage map[policy.Stage]map[string][]byte
	// Component holds, by stage, a strategic merge patch for the workload's own
	// manifest. It is not applied with the tree: the workload's own kustomization
	// includes the Kustomize Component that lists it.
	Component map[policy.Stage][]byte
	// Level is the Pod Security level that the workload's pods could take as they
	// are; empty from an engine that cannot tell.
	Level string
	// Notes are what the engine cannot express.
	Notes []policy.Note
}

// HardeningFile is Object.File of a patch of the Kustomize Component.
const HardeningFile = "hardening.yaml"

// Object is one object as a kustomization builds it, or a file beside one.
type Object struct {
	APIVersion, Kind, Namespace, Name string
	JSON                              []byte // the whole object
	// Workload and File are set for a file of a workload that is not part of
	// what the kustomization builds: the workload's slug and the file's name.
	Workload, File string
}

// Subject is whom a fact is judged for.
type Subject struct {
	behavior.Subject
	Labels map[string]string // of the workload's pods
	// Inside says in which conversations the profile that the fact is from holds
	// what was said: rules about that are judged by those facts, and stand not in
	// the way of the connection's.
	Inside map[Conversation]bool
	// Mounts are what is mounted in the container, by escaped path; nil when that
	// is not known.
	Mounts map[string]behavior.Mount
}

// Conversation is where requests of a kind, HTTP or DNS, were seen.
type Conversation struct {
	Kind      behavior.Kind
	Direction behavior.Direction
	Port      uint16
}

// Inside gives the conversations of which facts show what was said.
func Inside(facts behavior.Facts) map[Conversation]bool {
	var all map[Conversation]bool
	for _, f := range facts.Forms() {
		c := Conversation{f.Kind, f.Direction, f.Port}
		switch {
		case f.Kind == behavior.DNS:
			c.Direction = behavior.Egress
		case f.Kind != behavior.HTTP:
			continue
		}
		if all == nil {
			all = map[Conversation]bool{}
		}
		all[c] = true
	}
	return all
}

// Decision is what an engine would do about a fact.
type Decision int

// Decisions.
const (
	// NotMine: no object of this engine governs facts of that kind for that
	// subject, so the engine would not stand in the way.
	NotMine Decision = iota
	Allowed
	Denied
	// Unknown: an object governs it, but what it asks of the fact is not known,
	// such as a label of the peer's namespace.
	Unknown
)

// String is the decision in one word or two.
func (d Decision) String() string {
	return [...]string{"not governed", "allowed", "denied", "unknown"}[d]
}

// Verdict is a decision with its reason.
type Verdict struct {
	Decision Decision
	Object   string // kind/name of the object that decided it; empty for NotMine
	Reason   string // in words, escaped
}

// Judge decides about facts by the objects that it was made from. It is safe for
// concurrent use.
type Judge interface {
	Judge(Subject, behavior.Fact) Verdict
}

// Admitter is a Judge that also decides which pods may be created.
type Admitter interface {
	// Admit tells whether a pod of the workload with that specification may be.
	Admit(behavior.Workload, behavior.PodSpec) Verdict
}

// InvalidError is an object that the engine would refuse or silently misread.
type InvalidError struct {
	Object string // kind/name
	Reason string
}

// Error implements error.
func (e *InvalidError) Error() string { return e.Object + ": " + e.Reason }

// SeccompObject is the name of a container's SeccompProfile of the Security
// Profiles Operator, which is an object of the whole cluster: two engines have to
// agree on it.
func SeccompObject(w behavior.Workload, container string) string {
	name := "autopolicy-" + w.Namespace + "-" + w.Slug() + "-" + container
	if len(name) <= maxObjectName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxObjectName-17] + "-" + hex.EncodeToString(sum[:8])
}

// maxObjectName leaves room for what the operator adds to make a file of it.
const maxObjectName = 240
