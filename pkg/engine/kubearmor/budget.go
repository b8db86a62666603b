package kubearmor

import (
	"cmp"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// fit brings the draft within the keys that a container may have. It gives up
// what protects least first: who may run a program and use a capability, then
// single files for their folder (libraries and shared data that are only read,
// then other folders that are only read, then folders that are written), then
// which executable may open a file, and at last a whole class of rules. Each step
// is noted, and none crosses a boundary of policy.Boundary.
func (d *draft) fit() {
	before := d.size()
	if before <= maxKeys {
		return
	}
	d.dropSources(d.process, "who may run %s is not restricted")
	d.dropSources(d.capabilities, "who may use capability %s is not restricted")
	for d.size() > maxKeys {
		if !d.widen() {
			break
		}
	}
	d.dropSources(d.file, "which executable may open %s is not restricted")
	if d.size() > maxKeys {
		d.note("the rules for files are left out: with them the container needs %d of KubeArmor's %d keys", d.size(), maxKeys)
		d.file = nil
	}
	if n := d.size(); n > maxKeys {
		d.note("the rules for processes are left out: with them the container needs %d of KubeArmor's %d keys", n, maxKeys)
		d.process = nil
	}
	d.note("it took %d of KubeArmor's %d keys for a container as it was learned, and takes %d as rendered", before, maxKeys, d.size())
}

// size is the number of keys that the draft takes.
func (d *draft) size() int {
	t := newTable()
	t.add(d.object())
	return t.size()
}

// dropSources frees entries of their executables, those that cost most first,
// until the draft fits.
func (d *draft) dropSources(entries []entry, text string) {
	order := make([]*entry, 0, len(entries))
	for i := range entries {
		if len(entries[i].from) > 1 && !entries[i].bound {
			order = append(order, &entries[i])
		}
	}
	slices.SortStableFunc(order, func(a, b *entry) int { return cmp.Compare(len(b.from), len(a.from)) })
	for _, e := range order {
		if d.size() <= maxKeys {
			return
		}
		e.from = nil
		d.note("to stay within KubeArmor's %d keys for a container, "+text, maxKeys, behavior.Escape(e.path))
	}
}

// candidate is a folder that could stand for entries.
type candidate struct {
	dir       string
	recursive bool
	harm      int // less is better
	covers    int // entries that it makes needless
	access    behavior.Access
	sensitive bool
}

// widen opens the folder that saves most among those of least harm, and tells
// whether there was one.
func (d *draft) widen() bool {
	best := candidate{}
	for _, c := range d.candidates() {
		// A folder takes two keys, and one for each folder above it at most.
		saves := c.covers - 2 - strings.Count(c.dir, "/")
		if c.sensitive || saves <= 0 || len(c.dir)-1 > maxSlash || policy.Boundary(behavior.Escape(c.dir), c.access) != "" {
			continue
		}
		if best.covers == 0 || cmp.Or(cmp.Compare(c.harm, best.harm), cmp.Compare(best.covers, c.covers), cmp.Compare(c.dir, best.dir)) < 0 {
			best = c
		}
	}
	if best.covers == 0 {
		return false
	}
	kept := []entry{{path: best.dir, recursive: best.recursive, access: best.access}}
	for _, e := range d.file {
		if !best.makesNeedless(e) {
			kept = append(kept, e)
		}
	}
	d.file = join(kept)
	what := "any other file directly in it"
	if best.recursive {
		what = "anything else below it"
	}
	d.note("to stay within KubeArmor's %d keys for a container, %d paths are allowed as the whole of %s; %s is newly allowed",
		maxKeys, best.covers, behavior.Escape(best.dir), what)
	return true
}

// makesNeedless tells whether the open folder allows all that the entry does.
func (c candidate) makesNeedless(e entry) bool {
	rest, below := strings.CutPrefix(e.path, c.dir)
	if !below || e.from != nil && e.isDir() {
		return false
	}
	return c.recursive || rest != "" && !strings.Contains(rest, "/")
}

// candidates are the folders of the draft's files, each as it is and with all
// below it, in no particular order.
func (d *draft) candidates() map[candidateKey]candidate {
	found := map[candidateKey]candidate{}
	for _, e := range d.file {
		if e.from != nil && e.isDir() {
			continue
		}
		direct := true
		for dir := parent(e.path); dir != "" && dir != "/"; dir = parent(dir) {
			for _, recursive := range []bool{false, true} {
				if !recursive && (!direct || e.isDir()) {
					continue
				}
				k := candidateKey{dir, recursive}
				c := found[k]
				c.dir, c.recursive = dir, recursive
				c.covers++
				c.access |= e.access
				c.sensitive = c.sensitive || policy.Sensitive(behavior.Escape(e.path)) != "" && !shared(dir)
				c.harm = harm(dir, recursive, c.access)
				found[k] = c
			}
			direct = false
		}
	}
	return found
}

type candidateKey struct {
	dir       string
	recursive bool
}

// harm ranks what opening a folder gives away.
func harm(dir string, recursive bool, access behavior.Access) int {
	rank := 2
	switch {
	case access&(behavior.Write|behavior.Create) != 0:
		rank = 4
	case shared(dir):
		rank = 0
	}
	return rank + btoi(recursive)
}

// shared tells whether a folder is one of libraries or of data that every image
// of its kind has.
func shared(dir string) bool {
	for _, tree := range []string{"/usr/lib", "/usr/share/", "/usr/local/lib/", "/usr/local/share/", "/lib"} {
		if strings.HasPrefix(dir, tree) {
			return true
		}
	}
	return false
}
