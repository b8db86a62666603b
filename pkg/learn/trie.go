package learn

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// folder is a folder in which files were used.
type folder struct {
	parts []string // nil for a path that is not to be generalised
	// tree is the folder of code or shared data that it belongs to; -1 for none.
	tree int
	// kept: its files are told by their names, whatever they are.
	kept bool
	// processes: parts of its path may be numbers of processes.
	processes bool
	cells     int // the first one's place plus one
}

// pattern is a folder, or many that differ in parts that are asterisks. Why says
// why they are.
type pattern struct {
	path  string
	parts []string
	why   []string
	stars bool
}

// names are distinct names of files or folders, by kind, as far as they have to be
// counted.
type names struct {
	kinds map[string]map[string]struct{}
	ends  map[string]map[string]struct{} // all names, by what they end in
}

// thresholds are how many distinct names show that names vary.
type thresholds struct{ few, some, many int }

// add counts a name, and tells whether the names vary: because there are enough
// generated ones of a kind, or very many of one ending.
func (n *names) add(name, kind string, sure certainty, t thresholds, folders bool) (generated, all bool) {
	if strings.Contains(name, `\`) {
		return false, false // nobody's counter, and nobody's choice
	}
	if n.ends == nil {
		n.kinds, n.ends = map[string]map[string]struct{}{}, map[string]map[string]struct{}{}
	}
	enough := t.some
	switch {
	case sure == renewed:
		enough = 1
	case sure == random, folders && kind == "#":
		enough = t.few
	}
	if sure != given {
		generated = note(n.kinds, kind, name, enough)
	}
	end := ""
	if !folders {
		end = name[extension(name):]
	}
	return generated, note(n.ends, end, name, t.many)
}

// note adds a name to a set until there are enough, and tells whether there are.
func note(sets map[string]map[string]struct{}, key, name string, enough int) bool {
	set := sets[key]
	if set == nil {
		set = map[string]struct{}{}
		sets[key] = set
	}
	if len(set) < enough {
		set[name] = struct{}{}
	}
	return len(set) >= enough
}

// lane is what one executable does with files to one end: what varies is looked
// for in each lane by itself, so that names that are written open nothing to
// readers, nor to other executables.
type lane struct {
	exe    string
	access behavior.Access
}

const stampWhy = "the kubelet names the folder anew for each pod and each change, so the same file in any of them is newly allowed"

// grow walks down the folders of a lane, level by level, and replaces the parts
// that vary by an asterisk: then the folders below are looked at together. It fills
// the pattern of every folder. Folders are a list that begins at the first and goes
// on in l.next.
func (l *learner) grow(la lane, first int32, prefix pattern, depth int, found []*pattern) {
	var children []child
	at := map[string]int{} // in children
	var own *pattern
	for d := first; d >= 0; {
		next := l.next[d]
		if parts := l.folders[d].parts; len(parts) > depth {
			n, ok := at[parts[depth]]
			if !ok {
				n, at[parts[depth]] = len(children), len(children)
				children = append(children, child{part: parts[depth], first: -1})
			}
			l.next[d], children[n].first = children[n].first, d
		} else {
			if own == nil {
				own = &pattern{}
				*own = prefix
			}
			found[d] = own
		}
		d = next
	}
	if len(children) == 0 {
		return
	}
	why := l.stars(la, prefix, children)
	together := int32(-1)
	for _, c := range children {
		if !c.star {
			l.grow(la, c.first, prefix.below(c.part), depth+1, found)
			continue
		}
		for d := c.first; d >= 0; {
			next := l.next[d]
			l.next[d], together = together, d
			d = next
		}
	}
	if together >= 0 {
		next := prefix.below("*")
		next.stars, next.why = true, append(slices.Clip(prefix.why), why)
		l.grow(la, together, next, depth+1, found)
	}
}

func (p pattern) below(part string) pattern {
	return pattern{p.path + part + "/", append(slices.Clip(p.parts), part), p.why, p.stars}
}

// child is a part of paths directly below a prefix, with the list of their folders.
type child struct {
	part  string
	first int32
	sure  certainty
	star  bool // it varies
}

// stars marks those of the folders directly below a prefix that vary, and says why.
func (l *learner) stars(la lane, prefix pattern, children []child) string {
	var n names
	generated, all, why := false, false, ""
	t := l.folderThresholds()
	for i := range children {
		c := &children[i]
		if c.star = isVolume(c.part) || isProcess(prefix.parts, c.part); c.star {
			if !isVolume(c.part) {
				why = "process numbers change, so the same file of any process is newly allowed"
			} else if why == "" {
				why = stampWhy
			}
			continue
		}
		kind, sure := l.clock.kindOf(c.part)
		if c.sure = sure; !generated && sure != given || !all && len(children) >= t.many {
			g, a := n.add(c.part, kind, sure, t, true)
			generated, all = generated || g, all || a
		}
	}
	if !generated && !all || policy.Boundary(prefix.path, la.access) != "" {
		return why
	}
	var low lowest
	varying := 0
	for i := range children {
		if c := &children[i]; all || c.sure != given {
			low.add(c.part)
			varying, c.star = varying+1, true
		}
	}
	return fmt.Sprintf("%s in %s, such as %s; any other is newly allowed there", counted(varying, "folder"), prefix.path, examples(low))
}

// folderThresholds are those for folders, of which fewer are ever seen than of
// files, and whose names are hardly ever numbers that somebody chose.
func (l *learner) folderThresholds() thresholds { return l.thresholds(behavior.Write) }

// thresholds for names of files. A folder with many names of one ending that are
// only read opens sooner than one that is written.
func (l *learner) thresholds(a behavior.Access) thresholds {
	t := thresholds{few: max(1, (l.options.Siblings+1)/3), some: l.options.Siblings, many: 4 * l.options.Siblings}
	if a == behavior.Read {
		t.many = 2 * l.options.Siblings
	}
	return t
}

// examples names up to three.
func examples(list []string) string { return strings.Join(list[:min(3, len(list))], ", ") }

func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
