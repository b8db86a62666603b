package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
)

// podSecurity is the Pod Security level that the namespace could take today, as far
// as pods of it were observed.
type podSecurity struct {
	Level podsecurity.Level `json:"level"`
	// Obstacles are what stands in the way of the next level, by workload.
	Obstacles map[string][]string `json:"obstacles,omitempty"`
	// Unknown are workloads of whose pods' specification nothing is known.
	Unknown []string `json:"unknown,omitempty"`
}

// podSecurityOf gives the level for workloads by name, each with the coverage of
// its containers; nil where the specification of none is known.
func podSecurityOf(workloads map[string][]behavior.Coverage) *podSecurity {
	levels, obstacles := map[string]podsecurity.Level{}, map[string][]string{}
	var p podSecurity
	for _, name := range slices.Sorted(maps.Keys(workloads)) {
		var cover behavior.Coverage
		for _, c := range workloads[name] {
			cover = behavior.MergeCoverage(behavior.Coverage{Spec: cover.Spec}, behavior.Coverage{Spec: c.Spec})
		}
		if cover.Spec == nil || cover.Spec.Cut {
			p.Unknown = append(p.Unknown, name)
			continue
		}
		levels[name], obstacles[name] = podsecurity.LevelOf(cover.Spec.Pod)
	}
	if len(levels) == 0 {
		return nil
	}
	p.Level = podsecurity.Lowest(slices.Collect(maps.Values(levels))...)
	p.Obstacles = map[string][]string{}
	for name, level := range levels {
		if level == p.Level && len(obstacles[name]) > 0 {
			p.Obstacles[name] = obstacles[name]
		}
	}
	return &p
}

// print shows the level and, where that is wanted, what stands in the way of the
// next: four lines a container as a rule.
func (p *podSecurity) print(w io.Writer, wide bool) {
	if p == nil {
		return
	}
	text := fmt.Sprintf("pod security: pods like those observed could live with level %s", p.Level)
	if i := slices.Index(podsecurity.Levels(), p.Level) + 1; i < len(podsecurity.Levels()) {
		count := 0
		for _, list := range p.Obstacles {
			count += len(list)
		}
		if text += fmt.Sprintf("; in the way of %s:", podsecurity.Levels()[i]); !wide {
			text += " " + number(count, "thing") + " (shown with -o wide)"
		}
	}
	fmt.Fprintln(w, text)
	if !wide {
		return
	}
	var all gathered
	for _, name := range slices.Sorted(maps.Keys(p.Obstacles)) {
		for _, o := range p.Obstacles[name] {
			all.add(name, o)
		}
	}
	all.print(w, "pod security")
	for _, name := range p.Unknown {
		fmt.Fprintln(w, printable("pod security: "+name+": its pods' specification is not known"))
	}
}
