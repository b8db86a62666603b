package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// tell says what the status is made from.
func (r statusReport) tell(p *progress) {
	switch {
	case r.Git.Repository == "":
		p.say("git: not asked: %s", errNoRepository)
	case !r.Git.Used:
		p.say("git: nothing of namespace %s on branch %s of %s", r.Namespace, r.Git.Branch, r.Git.Repository)
	default:
		p.say("git: %s on branch %s of %s, at %s", r.Git.Folder, r.Git.Branch, r.Git.Repository, short(r.Git.Revision))
	}
	switch {
	case r.Synced.Asked && r.Synced.By != "":
		p.say("synced: %s runs %s", r.Synced.By, shortOrNone(r.Synced.Revision))
	case r.Synced.Asked:
		p.say("synced: neither Argo CD nor Flux applies the folder; the live objects are compared with it")
	case r.Git.Used:
		p.say("synced: %s", r.Synced.Reason)
	}
	if !r.Live.Used {
		p.say("live: %s", r.Live.Reason)
		return
	}
	text := "live: collectors on " + number(r.Live.Nodes, "node")
	if r.Live.By != "" {
		text += " of " + r.Live.By
	}
	p.say("%s, since %s", text, stamp(r.Live.Since))
	for _, n := range r.Live.Failing {
		p.say("warning: %s", n)
	}
}

// print shows a row for each container, and below what does not fit into one.
func (r statusReport) print(w io.Writer, wide bool, curve []rune) error {
	headings := []string{"WORKLOAD", "CONTAINER", "STAGE", "SEEN", "PODS", "OBSERVED", "FACTS", "LOST", "NEW/MIN", "CURVE", "NEXT"}
	if wide {
		headings = append(headings, "FROM", "TO", "NODES", "BY KIND", "SNAPSHOT", "ENTERED", "NO POD", "HOOKS", "MAPS", "SOURCE", "IMAGE")
	}
	var rows [][]string
	for _, x := range r.Workloads {
		for _, c := range x.Containers {
			row := []string{x.Workload, c.Container, string(x.Stage), c.Seen.words(), fmt.Sprintf("%d/%d", c.Pods, c.Replicas), c.To.Sub(c.From).Round(time.Second).String(),
				strconv.Itoa(total(c.Facts)), fmt.Sprint(c.lost()), strconv.FormatFloat(c.Curve.PerMinute, 'f', -1, 64), drawn(c.Curve.New, curve), x.next()}
			if wide {
				row = append(row, c.wide()...)
			}
			rows = append(rows, row)
		}
	}
	if err := table(w, headings, rows); err != nil {
		return err
	}
	r.printBelow(w, wide)
	r.PodSecurity.print(w, wide)
	return nil
}

// printBelow shows what was lost, what the next stages wait for, and what to do,
// each once for all whom it is about. What a stage waits for is not said twice,
// but with the moments of losses if wide.
func (r statusReport) printBelow(w io.Writer, wide bool) {
	var lost, gaps, fill, advice gathered
	obstacles := map[policy.Stage]*gathered{policy.Audit: {}, policy.Deny: {}}
	for _, x := range r.Workloads {
		for _, o := range x.Obstacles {
			about, text, ok := strings.Cut(o, ": ")
			if !ok || !strings.HasPrefix(about, x.Workload+"/") {
				about, text = x.Workload, strings.TrimPrefix(strings.TrimPrefix(o, x.Workload), " ")
			}
			obstacles[x.Next].add(about, text)
		}
		for _, a := range x.Advice {
			advice.add(x.Workload, a)
		}
		for _, c := range x.Containers {
			about := x.Workload + "/" + c.Container
			said := func(text string) bool {
				return !wide && slices.ContainsFunc(x.Obstacles, func(o string) bool { return strings.HasPrefix(o, about+": ") && strings.Contains(o, text) })
			}
			for _, l := range c.Lost {
				if !said("(" + l.What + ")") {
					lost.add(about, l.words())
				}
			}
			for _, gap := range c.Gaps {
				if !said(gap) {
					gaps.add(about, gap)
				}
			}
			if wide {
				for _, name := range slices.Sorted(maps.Keys(c.Maps)) {
					fill.add(about, fmt.Sprintf("%s held %d of %d entries at most", name, c.Maps[name].High, c.Maps[name].Size))
				}
			}
		}
	}
	var drift, open gathered
	for _, d := range r.Drift {
		drift.add(r.Namespace, d)
	}
	if wide {
		for _, x := range r.Workloads {
			for _, g := range x.Gates {
				if g.Open {
					open.add(x.Workload, g.Gate+": "+g.Evidence)
				}
			}
		}
	}
	lost.print(w, "lost")
	gaps.print(w, "gap")
	fill.print(w, "map")
	drift.print(w, "drift")
	open.print(w, "open")
	for _, stage := range []policy.Stage{policy.Audit, policy.Deny} {
		obstacles[stage].print(w, string(stage))
	}
	advice.print(w, "do")
}

func shortOrNone(revision string) string {
	if revision == "" {
		return "no commit"
	}
	return short(revision)
}

// next says in a cell whether the next stage could begin.
func (x workloadStatus) next() string {
	switch {
	case x.Next == "":
		return "-"
	case len(x.Obstacles) == 0:
		return string(x.Next)
	}
	return fmt.Sprintf("%s: %s", x.Next, number(len(x.Obstacles), "obstacle"))
}

// words are the parts of a life that were seen, in their order.
func (l lifeStatus) words() string {
	var list []string
	for _, x := range []struct {
		seen bool
		name string
	}{{l.Start, "start"}, {l.Readiness, "ready"}, {l.SteadyState, "steady"}, {l.Restarts > 0, number(l.Restarts, "restart")}, {l.Termination, "end"}} {
		if x.seen {
			list = append(list, x.name)
		}
	}
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ",")
}

func (l lossStatus) words() string {
	text := fmt.Sprintf("%d (%s)", l.Count, l.What)
	switch {
	case l.First.IsZero():
		return text
	case l.First.Equal(l.Last):
		return text + " at " + stamp(l.First)
	}
	return text + " from " + stamp(l.First) + " to " + stamp(l.Last)
}

func (c containerStatus) lost() uint64 {
	var n uint64
	for _, l := range c.Lost {
		n += l.Count
	}
	return n
}

// wide are the cells that only -o wide shows.
func (c containerStatus) wide() []string {
	var kinds, hooks []string
	for _, k := range behavior.Kinds() {
		if n := c.Facts[k]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%s:%d", kindShort(k), n))
		}
		if len(c.Hooks[k]) > 0 {
			hooks = append(hooks, kindShort(k)+":"+strings.Join(c.Hooks[k], "+"))
		}
	}
	var sources []string
	if c.Committed {
		sources = append(sources, "git")
	}
	if c.Live {
		sources = append(sources, "live")
	}
	return []string{stamp(c.From), stamp(c.To), cell(c.Nodes, ","), cell(kinds, " "), strconv.Itoa(total(c.Snapshot)), strconv.Itoa(c.Entered), fmt.Sprint(c.NoPod),
		cell(hooks, " "), c.fullest(), cell(sources, "+"), cell(c.Images, ",")}
}

// fullest is how full the fullest of the kernel's maps has been.
func (c containerStatus) fullest() string {
	most, found := 0.0, false
	for _, use := range c.Maps {
		if use.Size > 0 {
			most, found = max(most, float64(use.High)/float64(use.Size)), true
		}
	}
	if !found {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", 100*most)
}

func cell(list []string, by string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, by)
}

func total(counts map[behavior.Kind]int) int {
	n := 0
	for _, c := range counts {
		n += c
	}
	return n
}

// signs are what a curve is drawn with, from nothing to the most: blocks where the
// locale says that the terminal has them, else ASCII.
func signs(getenv func(string) string) []rune {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := getenv(name); value != "" {
			if upper := strings.ToUpper(value); strings.Contains(upper, "UTF-8") || strings.Contains(upper, "UTF8") {
				return []rune("▁▂▃▄▅▆▇█")
			}
			break
		}
	}
	return []rune("_.:-=+*#")
}

// drawn draws counts as signs. Only a count of nothing has the lowest sign.
func drawn(counts []int, signs []rune) string {
	if len(counts) == 0 {
		return "-"
	}
	most := slices.Max(counts)
	var b strings.Builder
	for _, n := range counts {
		level := 0
		if n > 0 {
			level = 1 + (n-1)*(len(signs)-1)/max(most, 1)
		}
		b.WriteRune(signs[level])
	}
	return b.String()
}
