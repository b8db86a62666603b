package learn

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// learner puts the file facts of one container into rules. A path is allowed
// exactly, but for what is bound to be another one the next time:
//   - what one executable did to one end with enough names of one kind in a folder
//     shows that they vary: the folder's files are allowed to it to that end;
//   - a part in the middle of a path that varies is an asterisk;
//   - a folder of code or of data that images share, of which enough was read, may
//     be read by those who read in it.
//
// All of it looks at sets that further facts can only make larger, and each looks
// at its own, which is what makes learning monotone.
type learner struct {
	facts   behavior.Facts
	options Options
	clock   clock

	folders []folder
	byPath  map[string]int
	trees   []tree
	byRoot  map[string]int
	lanes   []lane
	byLane  map[lane]int
	laneOf  []int // by form; -1 for forms of other kinds
	cells   []cell
	cellOf  []int32 // by number of the file fact in at
	at      []int32
	next    []int32 // of a folder, in the list that it is in while patterns are looked for
}

// cell is what one lane did in one folder.
type cell struct {
	lane, folder int
	next         int // the folder's next one's place plus one; 0 is none
	pattern      *pattern
	leaves       *leaves
}

// tree is a folder of code or shared data.
type tree struct {
	path      string
	recursive bool
	names     map[string]struct{} // that were read, until they are enough
	open      bool
	low       lowest
	distinct  counter
}

// leaves are the names that a lane used directly in the folders of one pattern.
type leaves struct {
	names
	open, closed bool
	low          lowest
	distinct     counter
	why          string
}

// lowest keeps the three names that come first.
type lowest []string

func (l *lowest) add(name string) {
	if len(*l) == 3 && name >= (*l)[2] || slices.Contains(*l, name) {
		return
	}
	*l = append(*l, name)
	slices.Sort(*l)
	*l = (*l)[:min(3, len(*l))]
}

// counter counts distinct strings by their hashes: it may miss one of a million
// million.
type counter []uint64

func (c *counter) add(s string) {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	*c = append(*c, h)
}

func (c counter) count() int {
	slices.Sort(c)
	return len(slices.Compact(c))
}

func newLearner(facts behavior.Facts, o Options, c clock) *learner {
	return &learner{facts: facts, options: o, clock: c, byPath: map[string]int{}, byRoot: map[string]int{}, byLane: map[lane]int{}}
}

// rules makes the rules of file facts, which are given by their numbers.
func (l *learner) rules(at []int32) []policy.Rule {
	if len(at) == 0 {
		return nil
	}
	l.at = at
	l.place()
	l.patterns()
	l.count()
	return l.assign()
}

// cut parts a path after its last slash.
func cut(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i+1], path[i+1:]
}

// place puts each fact into the cell of its lane and folder.
func (l *learner) place() {
	for _, f := range l.facts.Forms() {
		la := lane{f.Exe, f.Access}
		if f.Kind != behavior.File {
			l.laneOf = append(l.laneOf, -1)
			continue
		}
		n, ok := l.byLane[la]
		if !ok {
			n = len(l.lanes)
			l.lanes, l.byLane[la] = append(l.lanes, la), n
		}
		l.laneOf = append(l.laneOf, n)
	}
	l.cellOf = make([]int32, len(l.at))
	last, dir := cell{lane: -1, folder: -1}, ""
	at := 0
	for i, number := range l.at {
		form, path := l.facts.Form(number)
		d, _ := cut(path)
		folder := last.folder
		if d != dir || folder < 0 {
			folder = l.folder(d)
		}
		if lane := l.laneOf[form]; lane != last.lane || folder != last.folder {
			at = l.cell(lane, folder)
			last, dir = l.cells[at], d
		}
		l.cellOf[i] = int32(at)
	}
}

// cell gives the place of a cell; few lanes meet in one folder.
func (l *learner) cell(lane, folder int) int {
	first := l.folders[folder].cells
	for at := first; at > 0; at = l.cells[at-1].next {
		if l.cells[at-1].lane == lane {
			return at - 1
		}
	}
	l.cells = append(l.cells, cell{lane: lane, folder: folder, next: first})
	l.folders[folder].cells = len(l.cells)
	return len(l.cells) - 1
}

// folder gives the place of a folder.
func (l *learner) folder(path string) int {
	n, ok := l.byPath[path]
	if ok {
		return n
	}
	n = len(l.folders)
	f := folder{tree: -1, kept: policy.Sensitive(path) != "", processes: strings.HasPrefix(path, "/proc/") || strings.Contains(path, "/hsperfdata_")}
	if parts := strings.Split(path, "/"); len(parts) > 1 && parts[0] == "" {
		f.parts = parts[1 : len(parts)-1]
		if slices.ContainsFunc(f.parts, func(part string) bool { return part == "" || part == "." || part == ".." || part == "*" }) {
			f.parts, f.kept = nil, true
		}
	} else {
		f.kept = true
	}
	if root, recursive := treeOf(path); root != "" && !f.kept {
		at, ok := l.byRoot[root]
		if !ok {
			at = len(l.trees)
			l.trees, l.byRoot[root] = append(l.trees, tree{path: root, recursive: recursive, names: map[string]struct{}{}}), at
		}
		f.tree = at
	}
	l.folders, l.byPath[path] = append(l.folders, f), n
	return n
}

// patterns finds, for every lane, which folders stand for many.
func (l *learner) patterns() {
	byLane := make([][]int, len(l.lanes))
	for n, c := range l.cells {
		byLane[c.lane] = append(byLane[c.lane], n)
	}
	found := make([]*pattern, len(l.folders))
	l.next = make([]int32, len(l.folders))
	for n, cells := range byLane {
		first := int32(-1)
		for _, c := range cells {
			if d := int32(l.cells[c].folder); !l.folders[d].kept {
				l.next[d], first = first, d
			}
		}
		l.grow(l.lanes[n], first, pattern{path: "/"}, 0, found)
		byPattern := map[*pattern]*leaves{}
		for _, n := range cells {
			c := &l.cells[n]
			if f := &l.folders[c.folder]; f.kept {
				c.pattern = stamped(f.parts)
				continue
			}
			if c.pattern = found[c.folder]; byPattern[c.pattern] == nil {
				byPattern[c.pattern] = &leaves{closed: policy.Boundary(c.pattern.path, l.lanes[c.lane].access) != ""}
			}
			c.leaves = byPattern[c.pattern]
		}
	}
}

// stamped is the pattern of a folder whose files are told by their names: only
// what the kubelet names anew is left open. Nil where it named nothing.
func stamped(parts []string) *pattern {
	p := pattern{path: "/", stars: slices.ContainsFunc(parts, isVolume)}
	if !p.stars {
		return nil
	}
	for _, part := range parts {
		if isVolume(part) {
			part = "*"
		}
		p = p.below(part)
	}
	p.why = []string{stampWhy}
	return &p
}

// count opens the folders and trees of which enough names were used.
func (l *learner) count() {
	for i, number := range l.at {
		c := &l.cells[l.cellOf[i]]
		_, path := l.facts.Form(number)
		dir, name := cut(path)
		if t := l.folders[c.folder].tree; t >= 0 && l.lanes[c.lane].access == behavior.Read && policy.SensitiveName(name) == "" {
			l.trees[t].count(path, l.options.Siblings)
		}
		if c.leaves == nil || c.leaves.open || c.leaves.closed || l.literal(dir, name) {
			continue
		}
		kind, sure := l.clock.kindOf(name)
		if f := &l.folders[c.folder]; f.processes && isProcess(f.parts, name) {
			kind, sure = "a process", renewed
		}
		generated, all := c.leaves.names.add(name, kind, sure, l.thresholds(l.lanes[c.lane].access), false)
		c.leaves.open = generated || all
		if c.leaves.open {
			c.leaves.names = names{}
		}
	}
}

func (t *tree) count(path string, enough int) {
	if t.open {
		return
	}
	t.names[path] = struct{}{}
	if t.open = len(t.names) >= enough; t.open {
		t.names = nil
	}
}

// literal tells whether a file is told by its name whatever happens: it is a
// secret, or its name would mean something else in a rule.
func (l *learner) literal(dir, name string) bool {
	return name == "" || name == "*" || name == "." || name == ".." || policy.SensitiveName(name) != "" ||
		strings.HasPrefix(dir, "/proc/") && policy.Sensitive(dir+name) != ""
}

// target is the rule that a fact belongs to, without who and to what end.
type target struct {
	match policy.Match
	path  string
}

// share is what one executable has of a target.
type share struct {
	target
	exe string
}

// pile collects the facts of a share.
type pile struct {
	access behavior.Access
	at     []int32
	why    string // of a wide one
}

// assign puts every fact into its rule.
func (l *learner) assign() []policy.Rule {
	piles := map[share]*pile{}
	wide := make([]*pile, len(l.cells)) // what a cell's facts mostly go to
	var exact []int32
	for i, number := range l.at {
		c := &l.cells[l.cellOf[i]]
		_, path := l.facts.Form(number)
		dir, name := cut(path)
		la := l.lanes[c.lane]
		kept, t := l.folders[c.folder].kept, l.folders[c.folder].tree
		switch {
		case !kept && l.literal(dir, name), kept && c.pattern == nil, name == "*":
			exact = append(exact, number)
			continue
		case t >= 0 && l.trees[t].open && la.access == behavior.Read:
			tr := &l.trees[t]
			tr.low.add(path)
			tr.distinct.add(path)
			if wide[l.cellOf[i]] == nil {
				wide[l.cellOf[i]] = pileOf(piles, share{tr.target(), la.exe}, la.access)
			}
		case c.leaves != nil && c.leaves.open:
			c.leaves.low.add(name)
			c.leaves.distinct.add(name)
			if wide[l.cellOf[i]] == nil {
				wide[l.cellOf[i]] = pileOf(piles, share{c.open(), la.exe}, la.access)
			}
		case c.pattern.stars:
			p := pileOf(piles, share{target{policy.Pattern, c.pattern.path + name}, la.exe}, la.access)
			p.at, p.why = append(p.at, number), strings.Join(c.pattern.why, "; ")
			continue
		default:
			exact = append(exact, number)
			continue
		}
		p := wide[l.cellOf[i]]
		p.at = append(p.at, number)
	}
	l.explain(piles)
	l.exact(exact, piles)
	return l.join(piles)
}

func pileOf(piles map[share]*pile, s share, a behavior.Access) *pile {
	p := piles[s]
	if p == nil {
		p = &pile{}
		piles[s] = p
	}
	p.access |= a
	return p
}

func (t *tree) target() target {
	if t.recursive {
		return target{policy.Recursive, t.path}
	}
	return target{policy.Directory, t.path}
}

// open is the rule for the files of a folder whose names vary.
func (c *cell) open() target {
	if c.pattern.stars {
		return target{policy.Pattern, c.pattern.path + "*"}
	}
	return target{policy.Directory, c.pattern.path}
}

// explain says why the wide rules are as wide as they are.
func (l *learner) explain(piles map[share]*pile) {
	for n := range l.cells {
		c := &l.cells[n]
		if c.leaves == nil || !c.leaves.open || len(c.leaves.low) == 0 {
			continue
		}
		if c.leaves.why == "" {
			c.leaves.why = fmt.Sprintf("%s, such as %s; any other file directly in it is newly allowed",
				counted(c.leaves.distinct.count(), "name"), examples(c.leaves.low))
		}
		p := piles[share{c.open(), l.lanes[c.lane].exe}]
		p.why = longest(p.why, strings.Join(append(slices.Clip(c.pattern.why), c.leaves.why), "; "))
	}
	trees := map[target]string{}
	for _, t := range l.trees {
		if what := "anything else below it"; t.open {
			if !t.recursive {
				what = "any other file directly in it"
			}
			trees[t.target()] = fmt.Sprintf("code or shared data: %s, such as %s; %s may newly be read", counted(t.distinct.count(), "file"), examples(t.low), what)
		}
	}
	for s, p := range piles {
		p.why = longest(p.why, trees[s.target])
	}
}

// exact puts facts that are told by their path into piles.
func (l *learner) exact(at []int32, piles map[share]*pile) {
	for _, number := range at {
		form, path := l.facts.Form(number)
		la := l.lanes[l.laneOf[form]]
		p := pileOf(piles, share{target{policy.Exact, path}, la.exe}, la.access)
		p.at = append(p.at, number)
	}
}

// join makes one rule of the piles of executables that may do the same.
func (l *learner) join(piles map[share]*pile) []policy.Rule {
	type key struct {
		target
		access behavior.Access
	}
	shares := make([]share, 0, len(piles))
	for s := range piles {
		shares = append(shares, s)
	}
	slices.SortFunc(shares, func(a, b share) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.match, b.match), cmp.Compare(piles[a].access, piles[b].access), cmp.Compare(a.exe, b.exe))
	})
	var rules []policy.Rule
	var facts []int32
	var last key
	finish := func() {
		if len(rules) > 0 {
			rules[len(rules)-1].Facts = l.facts.Select(facts)
		}
	}
	for _, s := range shares {
		p := piles[s]
		if k := (key{s.target, p.access}); len(rules) == 0 || k != last {
			finish()
			last, facts = k, nil
			rules = append(rules, policy.Rule{Kind: behavior.File, Path: s.path, Match: s.match, Access: p.access})
		}
		r := &rules[len(rules)-1]
		r.Exes, r.Why = append(r.Exes, s.exe), longest(r.Why, p.why)
		if facts == nil {
			facts = p.at
		} else {
			facts = append(facts, p.at...)
		}
	}
	finish()
	return rules
}

// longest takes the reason that names more.
func longest(a, b string) string {
	if len(a) > len(b) || len(a) == len(b) && a > b {
		return a
	}
	return b
}
