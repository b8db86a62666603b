package cli

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// filter chooses proposals. The zero filter fits all.
type filter struct {
	text     string
	parts    []filterPart
	decision policy.Decision
}

type filterPart struct{ key, pattern string }

func filterKeys() []string {
	return []string{"id", "workload", "container", "class", "kind", "exe", "path", "peer", "name"}
}

// parseFilter reads all, an ID, or KEY=PATTERN pairs joined by commas.
func parseFilter(namespace, text string) (filter, error) {
	f := filter{text: text}
	if text == "all" {
		return f, nil
	}
	if text == "" {
		return f, hinted(fmt.Errorf("an empty filter"), "write all where all is meant")
	}
	for part := range strings.SplitSeq(text, ",") {
		key, pattern, ok := strings.Cut(part, "=")
		if !ok {
			key, pattern = "id", part
		}
		if !slices.Contains(filterKeys(), key) || pattern == "" {
			return f, hinted(fmt.Errorf("filter %q: %q is no KEY=PATTERN", text, part), "keys are "+strings.Join(filterKeys(), ", "))
		}
		if key == "workload" && !strings.ContainsAny(pattern, "*?") {
			w, err := parseWorkload(namespace, pattern)
			if err != nil {
				return f, err
			}
			pattern = w.String()
		}
		if !ok && (len(pattern) != 8 || strings.Trim(pattern, "0123456789abcdef") != "") {
			return f, hinted(fmt.Errorf("filter %q: %q is neither all nor an ID nor KEY=PATTERN", text, part), "keys are "+strings.Join(filterKeys(), ", "))
		}
		f.parts = append(f.parts, filterPart{key, pattern})
	}
	return f, nil
}

// decide is the filter's decision about each proposal that it fits and of which
// something else was said before.
func (f filter) decide(list []rollout.Proposal, reason string) []rollout.Decision {
	var all []rollout.Decision
	for _, p := range list {
		fits := func(part filterPart) bool { return part.fits(p) }
		if p.Decision == f.decision || slices.ContainsFunc(f.parts, func(part filterPart) bool { return !fits(part) }) {
			continue
		}
		d := p.Decide(f.decision)
		d.Reason = reason
		all = append(all, d)
	}
	return all
}

// fits looks at the proposal, or at its facts: all of them have to fit, since one
// decision is about all.
func (x filterPart) fits(p rollout.Proposal) bool {
	switch x.key {
	case "id":
		return p.ID() == x.pattern
	case "workload":
		return glob(x.pattern, p.Workload.String())
	case "container":
		return glob(x.pattern, p.Container)
	case "class":
		return glob(x.pattern, p.Class)
	}
	return !slices.ContainsFunc(p.Facts, func(o behavior.Observed) bool { return !x.fitsFact(o.Fact) })
}

func (x filterPart) fitsFact(f behavior.Fact) bool {
	switch x.key {
	case "kind":
		return glob(x.pattern, string(f.Kind))
	case "exe":
		if f.Kind == behavior.Process {
			return glob(x.pattern, f.Parent)
		}
		return glob(x.pattern, f.Exe)
	case "path":
		return glob(x.pattern, f.Path)
	case "peer":
		return glob(x.pattern, f.Peer.String()) || f.Peer.Name != "" && glob(x.pattern, f.Peer.Name) || f.Peer.Address.IsValid() && glob(x.pattern, f.Peer.Address.String())
	}
	return glob(x.pattern, f.Name)
}

// glob matches * and ? against anything, slashes included.
func glob(pattern, text string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "\x00"), strings.ReplaceAll(text, "/", "\x00"))
	return err == nil && ok
}
