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
	d.widen()
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
	covers    int // entries that it makes needless
	access    behavior.Access
	sensitive bool
}

// widen opens folders until the draft fits, by the first of these plans that
// reaches it; where none does, the last one has come closest. Folders that are
// opened as a whole come before others of their kind, since they make those
// needless.
func (d *draft) widen() {
	if d.size() <= maxKeys {
		return
	}
	file := d.file
	var opened []candidate
	for _, plan := range [][]int{{0}, {1, 0}, {1, 0, 2}, {1, 3, 0, 2}, {1, 3, 0, 2, 4}, {1, 3, 5, 0, 2, 4}} {
		d.file = slices.Clone(file)
		opened = opened[:0]
		for _, harm := range plan {
			opened = append(opened, d.open(harm)...)
		}
		if d.size() <= maxKeys {
			break
		}
	}
	for _, c := range opened {
		what := "any other file directly in it"
		if c.recursive {
			what = "anything else below it"
		}
		d.note("to stay within KubeArmor's %d keys for a container, %d paths are allowed as the whole of %s; %s is newly allowed",
			maxKeys, c.covers, behavior.Escape(c.dir), what)
	}
}

// open opens folders of one harm, those that save most first and of equal ones
// the deepest, until the draft fits or none is left, and tells which.
func (d *draft) open(harm int) []candidate {
	var opened []candidate
	for {
		excess := d.size() - maxKeys
		list := d.candidates(harm)
		if excess <= 0 || len(list) == 0 {
			return opened
		}
		round := len(opened)
		for _, c := range list {
			if excess <= 0 {
				break
			}
			nested := func(o candidate) bool { return strings.HasPrefix(c.dir, o.dir) || strings.HasPrefix(o.dir, c.dir) }
			if c.recursive && slices.ContainsFunc(opened[round:], nested) {
				continue
			}
			opened = append(opened, c)
			excess -= c.covers - 2
		}
		d.replace(opened[round:])
	}
}

// replace puts folders in the place of what they make needless.
func (d *draft) replace(opened []candidate) {
	byDir := map[string]candidate{}
	var kept []entry
	for _, c := range opened {
		byDir[c.dir] = c
		kept = append(kept, entry{path: c.dir, recursive: c.recursive, access: c.access})
	}
	for _, e := range d.file {
		needless := false
		for dir := parent(e.path); dir != "" && !needless; dir = parent(dir) {
			c, ok := byDir[dir]
			needless = ok && c.makesNeedless(e)
		}
		if !needless {
			kept = append(kept, e)
		}
	}
	d.file = join(kept)
}

// makesNeedless tells whether the open folder allows all that the entry does.
func (c candidate) makesNeedless(e entry) bool {
	rest, below := strings.CutPrefix(e.path, c.dir)
	if !below || e.from != nil && e.isDir() {
		return false
	}
	return c.recursive || rest != "" && !strings.Contains(rest, "/")
}

// candidates are the folders of one harm that could stand for files of the draft
// with fewer keys, in the order in which they are to be opened.
func (d *draft) candidates(rank int) []candidate {
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
				found[k] = c
			}
			direct = false
		}
	}
	var list []candidate
	for _, c := range found {
		// A folder takes two keys, and one for each folder above it at most.
		if c.sensitive || c.covers <= 2+strings.Count(c.dir, "/") || len(c.dir)-1 > maxSlash || harm(c.dir, c.recursive, c.access) != rank {
			continue
		}
		if policy.Boundary(behavior.Escape(c.dir), c.access) == "" {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.covers, a.covers), cmp.Compare(len(b.dir), len(a.dir)), cmp.Compare(a.dir, b.dir))
	})
	return list
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
