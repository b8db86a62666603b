package rollout

import (
	"fmt"
	"iter"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Version is a namespace's tree as one commit left it.
type Version struct {
	Revision string
	Tree     overlay.Tree
}

// NoEarlierStageError is returned when the history holds no version in which a
// workload was at a lower stage than now.
type NoEarlierStageError struct {
	Namespace string
	Versions  int // that were looked at
}

// Error implements error.
func (e *NoEarlierStageError) Error() string {
	return fmt.Sprintf("%s was at no lower stage before (%s)", e.Namespace, count(e.Versions, "version"))
}

// Rollback plans that the tree becomes again, byte for byte, what it was before
// the change that last raised a stage; custom/ and decisions.yaml, which are
// people's, stay. History is the versions of the namespace's folder from the
// newest on, with or without the one that is the tree now; it is read no further
// than needed.
//
// The version taken is the newest in which some workload was at a lower stage
// than now and none at a higher one, so that a second rollback goes on from the
// first. A workload that a version does not have counts for neither: its entry
// at audit is no raise. It is taken away with the rest, and noted.
func Rollback(in Input, history iter.Seq2[Version, error]) (Plan, error) {
	plan := Plan{Namespace: in.Namespace}
	now, err := overlay.Stages(in.Tree)
	if err != nil {
		return plan, fmt.Errorf("read stages: %w", err)
	}
	versions := 0
	var passed []Note
	for v, err := range history {
		if err != nil {
			return plan, fmt.Errorf("read history of %s: %w", in.Namespace, err)
		}
		versions++
		then, err := overlay.Stages(v.Tree)
		if err != nil {
			passed = append(passed, Note{Note: policy.Note{Text: fmt.Sprintf("version %s cannot be read and was passed over: %s", behavior.Escape(v.Revision), err)}})
			continue
		}
		if lowered := lower(v.Tree, then, now); len(lowered) > 0 {
			plan, err := restore(in, v, then, lowered)
			plan.Notes = tidy(append(plan.Notes, passed...))
			return plan, err
		}
	}
	return plan, &NoEarlierStageError{in.Namespace, versions}
}

// lower lists the workloads that were at a lower stage in an earlier version;
// none if another was at a higher one.
func lower(t overlay.Tree, then, now map[string]policy.Stage) []string {
	var lowered []string
	for _, slug := range overlay.Slugs(t) {
		switch d := rank(now[slug]) - rank(then[slug]); {
		case d > 0:
			lowered = append(lowered, slug)
		case d < 0:
			return nil
		}
	}
	return lowered
}

// people tells whether a file is never restored because people own it.
func people(p string) bool {
	return p == DecisionsFile || strings.HasPrefix(p, overlay.Custom+"/")
}

func restore(in Input, v Version, then map[string]policy.Stage, lowered []string) (Plan, error) {
	plan := Plan{Namespace: in.Namespace}
	t := overlay.Tree{}
	for p, data := range v.Tree {
		if !people(p) {
			t[p] = data
		}
	}
	for p, data := range in.Tree {
		if people(p) {
			t[p] = data
		}
	}
	if err := overlay.Check(t); err != nil {
		return plan, fmt.Errorf("restore %s: %w", behavior.Escape(v.Revision), err)
	}
	// What people decided plays no part, so a mistake in it is no reason not to.
	rec, _, err := read(t.With(map[string][]byte{DecisionsFile: nil}), in.Namespace)
	if err != nil {
		return plan, fmt.Errorf("restore %s: %w", behavior.Escape(v.Revision), err)
	}
	plan.Files = changed(in.Tree, t)
	stage := policy.Deny
	var workloads []string
	for _, slug := range lowered {
		if rank(then[slug]) < rank(stage) {
			stage = orObserve(then[slug])
		}
		name := slug
		if s := rec.find(slug); s != nil {
			w := s.workload(in.Namespace)
			name = w.String()
			plan.Summary = append(plan.Summary, Summary{Workload: w, Stage: orObserve(then[slug]), Change: RolledBack,
				Coverage: map[string]behavior.Coverage{}, Facts: map[behavior.Kind]int{}, Rules: map[string]int{}})
		}
		workloads = append(workloads, name)
	}
	files := t.Index()
	for _, slug := range overlay.Slugs(in.Tree) {
		if len(files.Below(overlay.Folder(slug))) == 0 {
			plan.Notes = append(plan.Notes, Note{slug, policy.Note{Text: "was learned later and is taken away: discover learns it again"}})
		}
	}
	plan.Message = stageMessage("Roll back", plan, stage, workloads, []string{"restores the files of " + v.Revision}, rec)
	return plan, nil
}

func orObserve(s policy.Stage) policy.Stage {
	if s == "" {
		return policy.Observe
	}
	return s
}
