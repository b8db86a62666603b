package kubearmor

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// class is a part of behaviour that is an allow list, or not, of its own.
type class int

const (
	classProcess class = iota
	classFile
	classNetwork
	classCapability
	classes
)

// table is what the enforcer hands to the kernel for one container. It is built
// in the order of the policies: of two rules with one key the later one stands.
type table struct {
	process, file tree
	network       map[slot]rule
	capability    map[slot]rule
	// allow names, by class, the first policy that made it an allow list.
	allow [classes]string
	// governs names, by class, the first policy with any rule for it.
	governs [classes]string
	keys    map[slot]struct{}
}

// slot is a key of the table: what is acted on, and by whom; an empty source is
// anybody.
type slot struct{ what, source string }

// rule is the value of a key.
type rule struct {
	object    string // kind/name that it came from
	deny      bool
	readOnly  bool
	ownerOnly bool
	args      bool // allowed only with certain arguments
	recursive bool
}

// tree holds the paths of one class. Folders are kept apart from paths, as the
// trailing slash does in the kernel.
type tree struct {
	exact map[slot]rule
	dirs  map[slot]rule
	hints map[slot]struct{} // folders above those of dirs
}

func newTree() tree {
	return tree{exact: map[slot]rule{}, dirs: map[slot]rule{}, hints: map[slot]struct{}{}}
}

func newTable() *table {
	return &table{process: newTree(), file: newTree(), network: map[slot]rule{}, capability: map[slot]rule{}, keys: map[slot]struct{}{}}
}

// size is the number of keys that the container needs: rules, the folders above
// those of directory rules, and a posture for each allow list.
func (t *table) size() int {
	n := len(t.keys)
	for _, object := range t.allow {
		if object != "" {
			n++
		}
	}
	return n
}

// add puts the rules of one policy into the table.
func (t *table) add(p object) {
	name := kind + "/" + behavior.Escape(p.Metadata.Name)
	if c := p.Spec.Process; c != nil {
		t.addPaths(classProcess, *c, p.Spec.Action, name)
	}
	if c := p.Spec.File; c != nil {
		t.addPaths(classFile, *c, p.Spec.Action, name)
	}
	if c := p.Spec.Network; c != nil {
		for _, r := range c.MatchProtocols {
			for protocol := range strings.SplitSeq(r.Protocol, ",") {
				for _, what := range networkKeys(strings.TrimSpace(protocol)) {
					t.put(classNetwork, t.network, what, r.FromSource, action(r.Action, c.Action, p.Spec.Action), rule{object: name})
				}
			}
		}
	}
	if c := p.Spec.Capabilities; c != nil {
		for _, r := range c.MatchCapabilities {
			for capability := range strings.SplitSeq(r.Capability, ",") {
				what := capabilityKey(strings.TrimSpace(capability))
				t.put(classCapability, t.capability, what, r.FromSource, action(r.Action, c.Action, p.Spec.Action), rule{object: name})
			}
		}
	}
}

func (t *table) addPaths(c class, p paths, outer, object string) {
	tr := &t.process
	if c == classFile {
		tr = &t.file
	}
	for _, r := range p.MatchPaths {
		what := r.Path
		if r.ExecName != "" {
			what = r.ExecName
		}
		t.put(c, tr.exact, what, r.FromSource, action(r.Action, p.Action, outer),
			rule{object: object, readOnly: r.ReadOnly, ownerOnly: r.OwnerOnly, args: len(r.AllowedArgs) > 0})
	}
	for _, r := range p.MatchDirectories {
		value := rule{object: object, readOnly: r.ReadOnly, ownerOnly: r.OwnerOnly, recursive: r.Recursive}
		act := action(r.Action, p.Action, outer)
		// The folder itself is opened as a file.
		t.put(c, tr.exact, strings.TrimSuffix(r.Dir, "/"), r.FromSource, act, value)
		if !t.put(c, tr.dirs, r.Dir, r.FromSource, act, value) {
			continue
		}
		for _, source := range sources(r.FromSource) {
			for above := parent(r.Dir); above != ""; above = parent(above) {
				tr.hints[slot{above, source}] = struct{}{}
				t.keys[slot{above, source}] = struct{}{}
			}
		}
	}
}

// put enters one rule for each source, unless its action is one that the
// enforcer has no key for, which it tells.
func (t *table) put(c class, m map[slot]rule, what string, from []source, action string, r rule) bool {
	switch action {
	case "Allow":
		if t.allow[c] == "" {
			t.allow[c] = r.object
		}
	case "Block":
		r.deny = true
	default:
		return false
	}
	if t.governs[c] == "" {
		t.governs[c] = r.object
	}
	for _, source := range sources(from) {
		m[slot{what, source}] = r
		t.keys[slot{what, source}] = struct{}{}
	}
	return true
}

// sources are the sources of a rule's keys; none means anybody.
func sources(from []source) []string {
	if len(from) == 0 {
		return []string{""}
	}
	list := make([]string, len(from))
	for i, s := range from {
		list[i] = s.Path
	}
	return list
}

// action is the innermost action that was given; Block when none was.
func action(actions ...string) string {
	for _, a := range actions {
		if a != "" {
			return a
		}
	}
	return "Block"
}

// parent is the folder above a folder, both with their slash; empty above /.
func parent(dir string) string {
	i := strings.LastIndexByte(strings.TrimSuffix(dir, "/"), '/')
	return dir[:i+1]
}

// socketTypes are the types of sockets by name, with the kernel's numbers.
func socketTypes() map[string]int {
	return map[string]int{"stream": 1, "dgram": 2, "raw": 3, "rdm": 4, "seqpacket": 5, "dccp": 6, "packet": 10}
}

// socketProtocols are the protocols of sockets by name, with the kernel's numbers.
func socketProtocols() map[string]int {
	return map[string]int{"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}
}

func typeKey(n int) string     { return "type " + strconv.Itoa(n) }
func protocolKey(n int) string { return "protocol " + strconv.Itoa(n) }

// networkKeys are the keys of one protocol's name. An unknown name is a key that
// no socket has: it turns the class to an allow list that allows nothing.
func networkKeys(name string) []string {
	name = strings.ToLower(name)
	types := socketTypes()
	if name == "all" {
		var keys []string
		for _, n := range slices.Sorted(maps.Values(types)) {
			keys = append(keys, typeKey(n))
		}
		return keys
	}
	if n, ok := socketProtocols()[name]; ok {
		return []string{protocolKey(n)}
	}
	if n, ok := types[name]; ok {
		return []string{typeKey(n)}
	}
	return []string{""}
}

// capabilityKey is the key of one capability's name. A name that is not known
// gets the number 0, which is chown; such is a name with the prefix in capitals.
func capabilityKey(name string) string {
	low := strings.TrimPrefix(name, "cap_")
	if low == name && strings.Contains(name, "cap_") {
		return capabilityNames()[0]
	}
	if slices.Contains(capabilityNames(), strings.ToLower(low)) {
		return strings.ToLower(low)
	}
	return capabilityNames()[0]
}
