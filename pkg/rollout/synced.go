package rollout

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Synced is what a cluster runs of a namespace's tree.
type Synced struct {
	// By is who applies the tree, in words, such as a Kustomization of Flux.
	// Empty when neither Argo CD nor Flux does.
	By string
	// Revision is the commit that the cluster runs, Tree the namespace's files in
	// it; nil when that is not known.
	Revision string
	Tree     overlay.Tree
	// Obstacles say why what is committed does not come to be applied, or is not
	// healthy, or why nothing is known.
	Obstacles []string
	// Objects are those of Tree, and others of ours, as the cluster has them.
	Objects []LiveObject
	// Since is when By applied Tree, Now the cluster's clock; zero when unknown.
	Since, Now time.Time
}

// LiveObject is an object of ours in the cluster.
type LiveObject struct {
	Kind, Name string
	State      string // same, changed, missing, extra, or no kind
	Detail     string // what differs
	// Since is when anybody last changed it but for its status.
	Since time.Time
}

// States of live objects.
const (
	liveSame    = "same"
	liveChanged = "changed"
	liveMissing = "missing"
	liveExtra   = "extra"
	liveNoKind  = "no kind"
)

// ObjectPrefix begins the names of the objects that the engines render; the
// workload's slug follows.
const ObjectPrefix = "autopolicy-"

// of gives the live objects of a workload: those named after it and not, longer,
// after another of slugs.
func (s *Synced) of(slug string, slugs []string) []LiveObject {
	var list []LiveObject
	for _, o := range s.Objects {
		if ownerOf(o.Name, slugs) == slug {
			list = append(list, o)
		}
	}
	return list
}

// ownerOf is the workload that an object is named after, or empty.
func ownerOf(name string, slugs []string) string {
	rest, ok := strings.CutPrefix(name, ObjectPrefix)
	if !ok {
		return ""
	}
	owner := ""
	for _, slug := range slugs {
		if (rest == slug || strings.HasPrefix(rest, slug+"-")) && len(slug) > len(owner) {
			owner = slug
		}
	}
	return owner
}

// String says what is wrong with the object, if anything is.
func (o LiveObject) String() string {
	name := o.Kind + "/" + o.Name
	switch o.State {
	case liveChanged:
		return fmt.Sprintf("%s was changed in the cluster: %s differs", name, behavior.Escape(o.Detail))
	case liveMissing:
		return name + " is not in the cluster"
	case liveExtra:
		return name + " is in the cluster and not in the commit"
	case liveNoKind:
		return name + " cannot be in the cluster: " + behavior.Escape(o.Detail)
	}
	return name
}

// check says whether the cluster runs a workload's policies as the tree has
// them, and since when: on the cluster's clock, where that is known.
func (s *Synced) check(t overlay.Tree, st state, slugs []string) (Check, time.Time) {
	c := Check{Gate: GateSynced}
	about := s.By
	if about == "" {
		about = "the cluster"
	}
	for _, o := range s.Obstacles {
		c.Reasons = append(c.Reasons, about+": "+behavior.Escape(o))
	}
	if s.Tree == nil {
		if len(c.Reasons) == 0 {
			c.Reasons = []string{about + ": which commit it runs is not known"}
		}
		return c, time.Time{}
	}
	stages, err := overlay.Stages(s.Tree)
	if err != nil {
		return c.closed(fmt.Sprintf("%s runs %s, which cannot be read: %s", about, short(s.Revision), err)), time.Time{}
	}
	switch runs := orObserve(stages[st.Slug]); {
	case runs != st.Stage:
		c = c.closed(fmt.Sprintf("%s runs %s, in which %s is at %s, not %s", about, short(s.Revision), st.workload(""), runs, st.Stage))
	case !samePolicies(t, s.Tree, st):
		c = c.closed(fmt.Sprintf("%s runs %s, in which %s has other policies", about, short(s.Revision), st.workload("")))
	}
	since, objects := time.Time{}, s.of(st.Slug, slugs)
	for _, o := range objects {
		if o.State != liveSame {
			c = c.closed(o.String())
		}
		if o.Since.After(since) {
			since = o.Since
		}
	}
	if since.IsZero() {
		since = s.Since
	}
	// The record is by the clock of who promoted: of use only where it is not ahead.
	if st.Since.After(since) && !st.Since.After(s.Now) {
		since = st.Since
	}
	if c.Open = len(c.Reasons) == 0; c.Open {
		c.Evidence = fmt.Sprintf("%s runs %s since %s, %s as committed", about, short(s.Revision), moment(since), count(len(objects), "object"))
	}
	return c, since
}

// Unsynced says in words why the cluster does not run the policies of workloads,
// given by slug, as the tree has them; nothing when it does.
func Unsynced(in Input, slugs []string) ([]string, error) {
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return nil, err
	}
	g := newGates(in, newCandidate(in, rec, false), nil)
	var reasons []string
	for _, slug := range slugs {
		st := rec.find(slug)
		if st == nil {
			return nil, &UnknownWorkloadError{slug, g.slugs}
		}
		c, _ := in.Synced.check(in.Tree, *st, g.slugs)
		for _, reason := range c.Reasons {
			if !slices.Contains(reasons, reason) {
				reasons = append(reasons, reason)
			}
		}
	}
	return reasons, nil
}

// samePolicies tells whether a workload's policies at its stage are the same in
// two trees. Its evidence is not applied and does not count.
func samePolicies(a, b overlay.Tree, st state) bool {
	x, y := a.Index(), b.Index()
	for _, folder := range []string{overlay.BaseFolder(st.Slug), overlay.StageFolder(st.Slug, orObserve(st.Stage))} {
		if st.Stage == policy.Observe {
			return true
		}
		if !slices.Equal(x.Below(folder), y.Below(folder)) {
			return false
		}
		for _, p := range x.Below(folder) {
			if !bytes.Equal(a[p], b[p]) {
				return false
			}
		}
	}
	return true
}

// Drift lists what the cluster has of ours that is not as committed, and the
// generated files that people edited in git, in words.
func Drift(in Input) ([]string, error) {
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return nil, err
	}
	var list []string
	if in.Synced != nil {
		for _, o := range in.Synced.Objects {
			if o.State != liveSame {
				list = append(list, o.String())
			}
		}
	}
	files := in.Tree.Index()
	for _, s := range rec.Workloads {
		var found []string
		folder := overlay.Folder(s.Slug)
		for _, p := range files.Below(folder) {
			if file := strings.TrimPrefix(p, folder+"/"); file != evidenceName && s.Files[file] == "" {
				found = append(found, p+" was added to git by hand")
			}
		}
		for _, file := range slices.Sorted(maps.Keys(s.Files)) {
			p := where(s.Slug, file)
			switch data, exists := in.Tree[p]; {
			case !exists:
				found = append(found, p+" was deleted in git by hand")
			case digest(data) != s.Files[file]:
				found = append(found, p+" was edited in git by hand")
			}
		}
		slices.Sort(found)
		list = append(list, found...)
	}
	return list, nil
}

// short is a commit id as people read it.
func short(revision string) string {
	if revision == "" {
		return "no commit"
	}
	return "commit " + revision[:min(len(revision), 12)]
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}
