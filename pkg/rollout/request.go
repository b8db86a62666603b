package rollout

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Request is what a pull request is made of: a plan, and what the folder is on
// the branch that it is for and would be after the merge. Before and After may
// differ by more than the plan, where the pull request was open already.
type Request struct {
	Plan          Plan
	Before, After overlay.Tree
	// Verdicts are of the promotion that the plan is; nil where nothing was judged.
	Verdicts *Verdicts
}

// Room is what a forge shows of a body.
type Room struct {
	Body  int // characters in all
	Graph int // characters of a Mermaid graph; 0: no graph
	Fold  bool
}

// Title is the pull request's title. It holds names of Kubernetes objects only.
func (r Request) Title() string {
	subject, _, _ := strings.Cut(r.Plan.Message, "\n")
	const most = 250 // GitLab takes 255
	return string([]rune(subject)[:min(most, utf8.RuneCountInString(subject))])
}

// Body tells in Markdown, to a person who reads nothing else, what the merge
// would begin to refuse or to allow, on what evidence, what would break, and how
// to take it back. It is no longer than the room has, in which the diff is cut
// first. Whatever a pod or a person has a say in is set as code, where no forge
// looks for mentions, links or HTML.
func (r Request) Body(room Room) (string, error) {
	then, err := overlay.Stages(r.Before)
	if err != nil {
		return "", fmt.Errorf("read stages: %w", err)
	}
	now, err := overlay.Stages(r.After)
	if err != nil {
		return "", fmt.Errorf("read stages: %w", err)
	}
	moves := r.moves(then, now)
	var b strings.Builder
	r.lead(&b, moves)
	r.changes(&b, moves)
	r.breaks(&b)
	r.gate(&b)
	back := r.back()
	if room.Graph > 0 {
		if g := graph(moves, r.Plan.Namespace, room.Graph); b.Len()+len(g)+len(back) < room.Body/2 {
			b.WriteString(g)
		}
	}
	text := fit(b.String(), room.Body-len(back))
	return text + r.diff(room.Body-utf8.RuneCountInString(text+back), room.Fold) + back, nil
}

// move is a workload whose stage the merge would change, or that it concerns.
type move struct {
	slug     string
	from, to policy.Stage
	summary  *Summary // of the plan; nil if an earlier commit of the branch did it
}

func (r Request) moves(then, now map[string]policy.Stage) []move {
	all := map[string]move{}
	for _, stages := range []map[string]policy.Stage{then, now} {
		for slug := range stages {
			if m := (move{slug: slug, from: orObserve(then[slug]), to: orObserve(now[slug])}); m.from != m.to {
				all[slug] = m
			}
		}
	}
	for i := range r.Plan.Summary {
		s := &r.Plan.Summary[i]
		slug := s.Workload.Slug()
		if s.Change == Unchanged && all[slug].slug == "" {
			continue
		}
		all[slug] = move{slug, orObserve(then[slug]), orObserve(now[slug]), s}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b move) int { return strings.Compare(a.slug, b.slug) })
}

func (r Request) lead(b *strings.Builder, moves []move) {
	denied, lowered := 0, 0
	for _, m := range moves {
		if m.to == policy.Deny && m.from != policy.Deny {
			denied++
		}
		if rank(m.to) < rank(m.from) {
			lowered++
		}
	}
	ns := code(r.Plan.Namespace)
	switch {
	case denied > 0:
		fmt.Fprintf(b, "**Once this is merged and synced, %s of namespace %s may only do what the policies here allow. Everything else is refused.**\n", count(denied, "workload"), ns)
	case lowered > 0:
		fmt.Fprintf(b, "**Once this is merged and synced, %s of namespace %s is refused less than now.**\n", count(lowered, "workload"), ns)
	default:
		fmt.Fprintf(b, "**This changes policies of namespace %s. It begins no stage, so nothing that is not refused already is refused because of it.**\n", ns)
	}
}

func (r Request) changes(b *strings.Builder, moves []move) {
	b.WriteString("\n### What changes\n\n")
	const most, mostRules = 50, 10
	for i, m := range moves {
		if i == most {
			fmt.Fprintf(b, "- and %d more workloads\n", len(moves)-most)
			break
		}
		text := "stays at " + string(m.to)
		if m.from != m.to {
			text = fmt.Sprintf("%s → **%s**", m.from, m.to)
		}
		fmt.Fprintf(b, "- %s: %s", code(m.slug), text)
		if m.summary == nil {
			b.WriteString(" (by an earlier commit of this branch)\n")
			continue
		}
		fmt.Fprintf(b, ", %s\n", m.summary.Change)
		if seen := observedShort(*m.summary); seen != "" {
			fmt.Fprintf(b, "  - on the evidence of %s\n", seen)
		}
		for j, rule := range m.summary.New {
			if j == mostRules {
				fmt.Fprintf(b, "  - and %s more\n", count(len(m.summary.New)-mostRules, "new rule"))
				break
			}
			fmt.Fprintf(b, "  - newly allowed: %s, seen %s\n", code(rule.Container+": "+rule.String()), count(int(min(rule.Count(), 1<<30)), "time"))
		}
	}
	if len(moves) == 0 {
		b.WriteString("- files only; see the diff\n")
	}
}

// observedShort says how much of a workload's life stands behind a plan.
func observedShort(s Summary) string {
	var all behavior.Coverage
	for _, c := range s.Coverage {
		all = behavior.MergeCoverage(all, c)
	}
	if len(all.Pods) == 0 {
		return ""
	}
	facts := 0
	for _, n := range s.Facts {
		facts += n
	}
	var from, to time.Time
	for _, p := range all.Pods {
		if from.IsZero() || p.From.Before(from) {
			from = p.From
		}
		if p.To.After(to) {
			to = p.To
		}
	}
	var lost uint64
	for _, n := range all.Lost {
		lost += n
	}
	return fmt.Sprintf("%s in %d of %s from %s to %s, %s seen, %d lost", count(facts, "distinct fact"), len(all.Pods),
		count(max(all.Replicas, len(all.Pods)), "pod"), from.UTC().Format("2006-01-02 15:04"), to.UTC().Format("2006-01-02 15:04 MST"),
		count(all.Starts(), "start"), lost)
}

func (r Request) breaks(b *strings.Builder) {
	if r.Verdicts == nil {
		return
	}
	b.WriteString("\n### What would break\n\n")
	v := r.Verdicts
	if len(v.Violations) == 0 {
		fmt.Fprintf(b, "Nothing that was seen: %s judged by the policies as they stand here, hand edits included; none would be refused. What was never seen cannot be judged.\n", count(v.Facts, "fact"))
		return
	}
	fmt.Fprintf(b, "**%s of %d judged would be refused or cannot be judged:**\n\n", count(len(v.Violations), "fact"), v.Facts)
	const most = 30
	for i, x := range v.Violations {
		if i == most {
			fmt.Fprintf(b, "- and %d more\n", len(v.Violations)-most)
			break
		}
		fmt.Fprintf(b, "- %s: %s by %s, seen %s in %s\n", code(x.Subject.Workload.String()+"/"+x.Subject.Container+": "+x.Fact.String()),
			x.Decision, code(x.Engine+" "+x.Object), count(int(min(x.Evidence.Count(), 1<<30)), "time"), count(len(x.Evidence.Pods), "pod"))
	}
}

func (r Request) gate(b *strings.Builder) {
	var lines []string
	for _, s := range r.Plan.Summary {
		for _, container := range slices.Sorted(maps.Keys(s.Coverage)) {
			for _, text := range s.Coverage[container].Shortfalls() {
				lines = append(lines, "not complete: "+s.Workload.String()+"/"+container+": "+text)
			}
		}
	}
	lines = append(lines, r.Plan.Reasons...)
	for _, n := range r.Plan.Notes {
		lines = append(lines, "note: "+strings.Trim(n.Workload+"/"+n.Container+"/"+n.Engine, "/")+": "+n.Text)
	}
	if len(lines) == 0 {
		return
	}
	b.WriteString("\n### Gate and remarks\n\n")
	const most = 30
	for i, line := range lines {
		if i == most {
			fmt.Fprintf(b, "- and %d more\n", len(lines)-most)
			break
		}
		fmt.Fprintf(b, "- %s\n", code(line))
	}
}

func (r Request) back() string {
	return fmt.Sprintf("\n### If it is wrong\n\nBefore the merge: close this pull request; nothing has changed. After it: revert the merge, or run `kubectl autopolicy rollback -n %s`, "+
		"which restores the files as they were, byte for byte, with a commit of its own. What was refused in the meantime is shown by `kubectl autopolicy status -n %[1]s`.\n", plain(r.Plan.Namespace))
}

// diff shows all that the merge changes, as far as there is room.
func (r Request) diff(room int, fold bool) string {
	text := Plan{Files: changed(r.Before, r.After)}.Diff(r.Before, nil)
	if text == "" {
		return ""
	}
	fence := strings.Repeat("`", max(3, longestRun(text, '`')+1))
	head, tail := "\n### Diff\n\n"+fence+"diff\n", fence+"\n"
	if fold {
		head, tail = "\n<details><summary>Diff</summary>\n\n"+fence+"diff\n", fence+"\n\n</details>\n"
	}
	const cut = "... more is in the files\n"
	left := room - len(head) - len(tail) - len(cut)
	if left < 200 {
		return ""
	}
	if utf8.RuneCountInString(text) > left {
		var kept strings.Builder
		for line := range strings.Lines(text) {
			if left -= utf8.RuneCountInString(line); left < 0 {
				break
			}
			kept.WriteString(line)
		}
		text = kept.String() + cut
	}
	return head + text + tail
}

// graph draws each workload's way through the stages; "" if it would take more
// than most characters.
func graph(moves []move, namespace string, most int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n```mermaid\nflowchart LR\n  subgraph %s\n", "namespace[\""+plain(namespace)+"\"]")
	drawn := 0
	for i, m := range moves {
		if m.from == m.to {
			continue
		}
		drawn++
		fmt.Fprintf(&b, "    w%d[\"%s\"] -- %s --> s%d([%s])\n", i, plain(m.slug), m.from, i, m.to)
	}
	b.WriteString("  end\n```\n")
	if drawn == 0 || b.Len() > most {
		return ""
	}
	return b.String()
}

// plain keeps of a name what the names of Kubernetes objects consist of.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
}

// code sets a text as a code span of one line, which no character of it ends.
func code(s string) string {
	const most = 400
	s = strings.Map(func(r rune) rune {
		if hidden(r) || r == '\t' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	if strings.TrimSpace(s) == "" {
		return "` `"
	}
	fence := strings.Repeat("`", longestRun(s, '`')+1)
	if strings.HasPrefix(s, "`") || strings.HasSuffix(s, "`") || strings.HasPrefix(s, " ") && strings.HasSuffix(s, " ") {
		s = " " + s + " "
	}
	return fence + s + fence
}

func longestRun(s string, c rune) int {
	longest, run := 0, 0
	for _, r := range s {
		if r != c {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}

// fit cuts a text after a line, so that it has at most so many characters.
func fit(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	const cut = "\n... there is more than fits here; see the files\n"
	var kept strings.Builder
	most -= len(cut)
	for line := range strings.Lines(text) {
		if most -= utf8.RuneCountInString(line); most < 0 {
			break
		}
		kept.WriteString(line)
	}
	return kept.String() + cut
}
