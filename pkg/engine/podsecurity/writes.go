package podsecurity

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// maxFolders is to how many folders of the root file system a container may write
// for them to become volumes of their own. With more of them the image should say
// itself where it writes.
const maxFolders = 8

// folder is a folder of the root file system that becomes an emptyDir.
type folder struct {
	path  string
	names []string // that were written, for people
}

// writes are what the files of a container's facts come to.
type writes struct {
	root    map[string][]string // by folder of the root file system, what was written there
	mounts  map[string]bool     // by where a volume is, whether anything was written there
	created map[string]bool     // paths that the container made itself
	changed []string            // paths of the image that it changed in place
	used    []string            // paths that it read or ran
}

// mutates tells whether a file system that is read-only refuses it. To connect to
// a socket or to open a device it does not.
func mutates(f behavior.Fact) bool {
	return f.Kind == behavior.File && f.Access&(behavior.Write|behavior.Create) != 0 && f.Operation != behavior.OpConnect && strings.HasPrefix(f.Path, "/")
}

// files decides about the root file system and the volumes.
func (h *hardening) files(c *change, cover behavior.Coverage) {
	switch {
	case !watched(cover, behavior.File):
		h.note(c.spec.Name, "its files were not observed, so that nothing becomes read-only")
		return
	case len(cover.Mounts) == 0:
		h.note(c.spec.Name, "what is mounted in it was not seen, so that nothing becomes read-only")
		return
	}
	w := h.gather(c.spec.Name, cover)
	h.readOnlyMounts(c, cover, w)
	if isTrue(c.spec.Security.ReadOnlyRootFilesystem) {
		return
	}
	folders, obstacles := w.folders()
	if len(obstacles) > 0 {
		h.note(c.spec.Name, "its root file system stays writable: %s", shown(obstacles))
		return
	}
	c.root, c.folders = true, folders
	if len(folders) == 0 {
		c.explain("root file system: nothing was written to it")
	}
	for _, f := range folders {
		c.explain("%s: written were %s", f.path, shown(f.names))
	}
}

// shown lists the first few of many.
func shown(list []string) string {
	list = slices.Compact(sorted(list))
	text := strings.Join(list[:min(len(list), maxExamples)], ", ")
	if more := len(list) - maxExamples; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// gather sorts the facts of a container by where their files are.
func (h *hardening) gather(container string, cover behavior.Coverage) writes {
	w := writes{root: map[string][]string{}, mounts: map[string]bool{}, created: map[string]bool{}}
	var mutated []behavior.Fact
	for _, kind := range []behavior.Kind{behavior.Process, behavior.File} {
		for _, r := range h.set.Of(container, kind) {
			for o := range r.Facts.All() {
				f := o.Fact
				at, m, mounted := cover.MountOf(f.Path)
				switch {
				case !mutates(f):
					if !mounted {
						w.used = append(w.used, f.Path)
					}
				case mounted && !asRoot(at, m):
					w.mounts[at] = true
				default:
					mutated = append(mutated, f)
					if makes(f) {
						w.created[f.Path] = true
					}
				}
			}
		}
	}
	for _, f := range mutated {
		if !w.created[f.Path] && !moves(f) {
			w.changed = append(w.changed, f.Path)
			continue
		}
		dir := path.Dir(f.Path)
		for w.created[dir] && dir != "/" {
			dir = path.Dir(dir)
		}
		w.root[dir] = append(w.root[dir], f.Path)
	}
	return w
}

// asRoot tells of the files that a runtime mounts into every container, which it
// makes read-only together with the root file system.
func asRoot(at string, m behavior.Mount) bool {
	return m.Volume == "" && (at == "/etc/hostname" || at == "/etc/resolv.conf" || at == "/etc/hosts")
}

// makes tells whether afterwards there is something that may not have been there.
func makes(f behavior.Fact) bool {
	switch f.Operation {
	case behavior.OpMkdir, behavior.OpSymlink, behavior.OpMknod, behavior.OpBind:
		return true
	}
	return f.Access.Has(behavior.Create)
}

// moves tells whether a name goes away.
func moves(f behavior.Fact) bool {
	return f.Operation == behavior.OpUnlink || f.Operation == behavior.OpRmdir || f.Operation == behavior.OpRename
}

// folders gives the folders that have to become volumes for the root file system
// to be read-only, or why that cannot be done.
func (w writes) folders() (list []folder, obstacles []string) {
	for _, dir := range slices.Sorted(maps.Keys(w.root)) {
		if why := forbidden(dir); why != "" {
			obstacles = append(obstacles, fmt.Sprintf("writes to %s, which is %s", dir, why))
		}
		list = append(list, folder{dir, w.root[dir]})
	}
	if len(list) > maxFolders {
		obstacles = append(obstacles, fmt.Sprintf("writes to %d folders, more than %d", len(list), maxFolders))
	}
	for _, p := range w.changed {
		if in(list, p) != p { // the volume itself may be given another owner
			obstacles = append(obstacles, "changes "+p+" of its image")
		}
	}
	for _, p := range w.used {
		if dir := in(list, p); dir != "" && dir != p && !w.created[p] {
			obstacles = append(obstacles, fmt.Sprintf("reads %s of its image, which a volume at %s would hide", p, dir))
		}
	}
	return list, obstacles
}

// in finds the deepest folder of the list that a path is in or is.
func in(list []folder, p string) string {
	best := ""
	for _, f := range list {
		if (p == f.path || strings.HasPrefix(p, f.path+"/")) && len(f.path) > len(best) {
			best = f.path
		}
	}
	return best
}

// forbidden tells why a folder must not become an empty volume, in words.
func forbidden(dir string) string {
	switch dir {
	case "/run", "/var/run": // empty in any image but for what is mounted there
		return ""
	}
	if !plainPath(dir) {
		return "a name that no manifest can hold"
	}
	return policy.Boundary(strings.TrimSuffix(dir, "/")+"/", behavior.Write)
}

// plainPath tells whether a path means the same to the API as to the kernel.
func plainPath(p string) bool {
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && !strings.ContainsAny(p, `\:$`)
}

// readOnlyMounts finds the volumes to which nothing was written.
func (h *hardening) readOnlyMounts(c *change, cover behavior.Coverage, w writes) {
	for _, m := range c.spec.Mounts {
		kind := h.volumeKind(m.Name)
		switch {
		case m.ReadOnly || m.MountPropagation == "Bidirectional" || kind == "":
			continue
		case slices.Contains([]string{"configMap", "secret", "projected", "downwardAPI", "image"}, kind):
			continue // these are read-only by themselves
		}
		at, known := where(m, cover)
		if !known {
			h.note(c.spec.Name, "where its volume %s is mounted was not seen, so that it stays writable", m.Name)
			continue
		}
		if w.mounts[at] {
			continue
		}
		c.mounts = append(c.mounts, m)
		c.explain("volume %s at %s: nothing was written to it", m.Name, m.Path)
	}
}

// volumeKind is the kind of a volume of the pod's own; empty for one that
// something injected, and for one that the pod does not have.
func (h *hardening) volumeKind(name string) string {
	for _, v := range h.spec.Volumes {
		if v.Name == name && !v.Injected {
			return v.Kind
		}
	}
	return ""
}

// where finds the place at which the kernel has a mount of the specification,
// whose path may lead through symlinks.
func where(m behavior.VolumeMount, cover behavior.Coverage) (string, bool) {
	if there, ok := cover.Mounts[path.Clean(m.Path)]; ok && cmp.Or(there.Volume, m.Name) == m.Name {
		return path.Clean(m.Path), true
	}
	var found []string
	for at, there := range cover.Mounts {
		if there.Volume == m.Name {
			found = append(found, at)
		}
	}
	if len(found) == 1 {
		return found[0], true
	}
	return "", false
}
