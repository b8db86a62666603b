package kubearmor

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Render implements engine.Engine: one Allow policy for each observed container,
// which selects that container only, so that one which was not observed (an init
// container, a sidecar) is left alone. The policies are the same in every stage;
// what they do is the namespace's posture.
func (Engine) Render(s policy.Set) (engine.Rendered, error) {
	var rendered engine.Rendered
	var docs [][]byte
	for _, container := range s.Containers {
		d := draft{container: container}
		for _, k := range behavior.Kinds() {
			d.take(k, s.Of(container, k))
		}
		if len(d.process) > 0 {
			d.takeScripts(s.Of(container, behavior.File))
		}
		d.finish()
		d.fit()
		rendered.Notes = append(rendered.Notes, d.notes...)
		if d.empty() {
			continue
		}
		if len(s.Labels) == 0 {
			d.notes = nil
			d.note("pods of %s carry no label by which a policy could select them", s.Workload)
			rendered.Notes = append(rendered.Notes, d.notes...)
			continue
		}
		p := d.object()
		p.Metadata = metadata{Name: objectName(s.Workload, ""), Namespace: s.Workload.Namespace}
		if len(s.Containers) > 1 {
			p.Metadata.Name = objectName(s.Workload, container)
		}
		p.Spec.Selector.MatchLabels = map[string]string{containerLabel: containerSelector(container)}
		for k, v := range s.Labels {
			p.Spec.Selector.MatchLabels[k] = v
		}
		doc, err := yaml.Marshal(p)
		if err != nil {
			return engine.Rendered{}, fmt.Errorf("marshal %s/%s: %w", kind, p.Metadata.Name, err)
		}
		docs = append(docs, doc)
	}
	slices.SortFunc(rendered.Notes, engine.CompareNotes)
	if len(docs) == 0 && len(rendered.Notes) == 0 {
		return engine.Rendered{}, engine.ErrNoEvidence
	}
	rendered.Base = bytes.Join(docs, []byte("---\n"))
	return rendered, nil
}

// entry is a path that a draft allows.
type entry struct {
	path      string // raw; a folder ends in a slash
	recursive bool
	access    behavior.Access
	// from are the raw executables that may; nil is anybody.
	from []string
	// bound entries must not be opened to anybody for want of keys.
	bound bool
}

func (e entry) isDir() bool { return strings.HasSuffix(e.path, "/") }

// draft is the policy for one container in the making.
type draft struct {
	container    string
	process      []entry
	file         []entry
	protocols    []string
	capabilities []entry // path is the capability's name
	notes        []policy.Note
}

func (d *draft) note(format string, args ...any) {
	d.notes = append(d.notes, policy.Note{Engine: Name, Container: d.container, Text: fmt.Sprintf(format, args...)})
}

// empty tells whether nothing is left to allow.
func (d *draft) empty() bool {
	return len(d.process)+len(d.file)+len(d.protocols)+len(d.capabilities) == 0
}

// take turns the rules of one kind to entries.
func (d *draft) take(k behavior.Kind, rules []policy.Rule) {
	if k == behavior.Capability {
		d.takeCapabilities(rules)
		return
	}
	if k == behavior.Network && len(rules) > 0 && !slices.ContainsFunc(rules, programKnown) {
		d.note("its sockets were not observed, only its traffic: no allow list of protocols is made of that")
		return
	}
	for _, r := range rules {
		switch k {
		case behavior.Process:
			d.takeProcess(r)
		case behavior.File:
			d.takeFile(r)
		case behavior.Network:
			if sockets(r.Protocol) == nil {
				d.note("protocol %s has no name in KubeArmor: %s", r.Protocol, r)
				continue
			}
			d.protocols = append(d.protocols, r.Protocol)
		}
	}
}

// programKnown tells whether a source that sees programs, and so sockets that send
// nothing, was among those that the rule comes from.
func programKnown(r policy.Rule) bool {
	for o := range r.Facts.All() {
		if !o.Fact.Anonymous() || len(o.Evidence.Witnesses) == 0 || slices.Contains(o.Evidence.Witnesses, behavior.ByCollector) {
			return true
		}
	}
	return r.Facts.Len() == 0
}

// takeCapabilities allows capabilities, unless one of them has no name: the rest
// would be an allow list that denies it.
func (d *draft) takeCapabilities(rules []policy.Rule) {
	said := true
	for _, r := range rules {
		name := strings.ToLower(r.Name)
		if slices.Contains(capabilityNames(), name) {
			d.capabilities = append(d.capabilities, entry{path: name, from: from(r)})
			continue
		}
		said = false
		d.note("capability %s has no name in KubeArmor, so the container's capabilities are not restricted at all: an allow list would deny it", r.Name)
	}
	if !said {
		d.capabilities = nil
	}
}

// finish brings what was taken into order, each path once.
func (d *draft) finish() {
	d.process, d.file, d.capabilities = join(d.process), join(d.file), join(d.capabilities)
	slices.Sort(d.protocols)
	d.protocols = slices.Compact(d.protocols)
	if len(d.protocols) > 0 {
		d.note("sockets are judged by their type: tcp also allows Unix streams, udp Unix datagrams; " +
			"Unix and netlink sockets of other types, which were not observed, are denied in a block posture")
	}
}

// takeProcess allows a program to be run, and its file to be opened for it. Who
// opens it is the program that was there before, so that rule names nobody.
func (d *draft) takeProcess(r policy.Rule) {
	path, ok := d.expressible(r.Path)
	if !ok {
		return
	}
	d.process = append(d.process, entry{path: path, from: from(r)})
	d.file = append(d.file, entry{path: path, access: behavior.Read})
	// The enforcer asks for a script and for its interpreter, of the same parent.
	for o := range r.Facts.All() {
		if o.Fact.Interpreter == "" {
			continue
		}
		if interpreter, ok := d.expressible(o.Fact.Interpreter); ok {
			d.process = append(d.process, entry{path: interpreter, from: from(r)})
			d.file = append(d.file, entry{path: interpreter, access: behavior.Read})
		}
	}
}

func (d *draft) takeFile(r policy.Rule) {
	switch r.Match {
	case policy.Directory:
		if dir, ok := d.directory(r, r.Path); ok {
			d.file = append(d.file, entry{path: dir, access: r.Access, from: from(r)})
			return
		}
	case policy.Recursive:
		if dir, ok := d.directory(r, r.Path); ok {
			e := entry{path: dir, recursive: true, access: r.Access, from: from(r)}
			if shared(dir) {
				e.from = nil // single files of it may be opened by anybody, too
			}
			d.file = append(d.file, e)
			return
		}
	case policy.Pattern:
		if d.takePattern(r) {
			return
		}
	default:
		path, ok := d.expressible(r.Path)
		if !ok {
			return
		}
		e := entry{path: path, access: r.Access}
		if policy.Sensitive(r.Path) != "" && !isLoader(path) {
			e.from = from(r)
		}
		d.file = append(d.file, e)
		return
	}
	for o := range r.Facts.All() {
		if path, ok := d.expressible(o.Fact.Path); ok {
			d.file = append(d.file, entry{path: path, access: r.Access})
		}
	}
}

// takePattern allows the folder above what changes, to the executables that were
// seen and no other.
func (d *draft) takePattern(r policy.Rule) bool {
	above, _, _ := strings.Cut(r.Path, "/*")
	above += "/"
	dir, ok := d.directory(r, above)
	if !ok {
		return false
	}
	who := from(r)
	free := policy.Boundary(above, r.Access) == ""
	tolerable := free || strings.HasPrefix(above, "/proc/") || policy.Sensitive(above) != ""
	if !tolerable || !free && who == nil {
		d.note("%s: KubeArmor knows no patterns, and %s is not to be opened as a whole, so the rule holds for the names that were seen only", r, above)
		return false
	}
	d.file = append(d.file, entry{path: dir, recursive: true, access: r.Access, from: who, bound: !free})
	d.note("%s: KubeArmor knows no patterns, so everything below %s is allowed to these executables", r, above)
	return true
}

// directory gives the raw form of a folder, or notes why it cannot be said.
func (d *draft) directory(r policy.Rule, dir string) (string, bool) {
	text, why := say(strings.TrimSuffix(dir, "/"))
	if why == "" && len(text) > maxSlash {
		why = fmt.Sprintf("the slash after it is beyond index %d", maxSlash)
	}
	if why == "" || dir == "/" {
		return text + "/", true
	}
	d.note("%s: the folder cannot be expressed (%s), so the rule holds for the names that were seen only", r, why)
	return "", false
}

// expressible gives the raw form of a path, or notes why it cannot be said.
func (d *draft) expressible(path string) (string, bool) {
	if path == "/" {
		return "", false // exempt: it is never compared
	}
	text, why := say(path)
	if why != "" {
		d.note("%s cannot be expressed (%s) and is denied in a block posture", path, why)
	}
	return text, why == ""
}

// say gives the raw form of an escaped path, and why KubeArmor could not match
// it, in words; empty when it can.
func say(path string) (text, why string) {
	text, err := behavior.Unescape(path)
	switch {
	case err != nil:
		return "", "malformed escape"
	case strings.ReplaceAll(behavior.Escape(text), `\\`, `\`) != text:
		return "", "it holds bytes that a policy cannot carry"
	case !strings.HasPrefix(text, "/"):
		return "", "it is not an absolute path"
	case strings.HasSuffix(text, "/"):
		return "", "it ends in a slash"
	case len(text) > maxPath:
		return "", fmt.Sprintf("it is longer than %d bytes", maxPath)
	case strings.Count(text, "/") > maxComponents:
		return "", fmt.Sprintf("it has more than %d parts", maxComponents)
	}
	return text, ""
}

// from gives the raw executables of a rule, or nil when it cannot be restricted
// to them: the container's runtime is one, or one of them cannot be said.
func from(r policy.Rule) []string {
	var list []string
	for _, exe := range r.Exes {
		text, why := say(exe)
		if why != "" {
			return nil
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

// isLoader tells whether the kernel opens the file when it runs another, and so
// on behalf of the program that was there before.
func isLoader(path string) bool {
	name := path[strings.LastIndexByte(path, '/')+1:]
	return strings.HasPrefix(name, "ld-") || strings.HasPrefix(name, "ld.so") || strings.HasPrefix(name, "ld64")
}

// join makes one entry of those with one path, and sorts. Of a folder's two the
// recursive one comes last, since the later of two rules stands.
func join(entries []entry) []entry {
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(btoi(a.recursive), btoi(b.recursive)))
	})
	var joined []entry
	for _, e := range entries {
		n := len(joined)
		if n == 0 || joined[n-1].path != e.path || joined[n-1].recursive != e.recursive {
			e.from = slices.Clone(e.from)
			joined = append(joined, e)
			continue
		}
		last := &joined[n-1]
		last.access |= e.access
		last.bound = last.bound || e.bound
		if last.from == nil || e.from == nil {
			last.from = nil
			continue
		}
		last.from = append(last.from, e.from...)
		slices.Sort(last.from)
		last.from = slices.Compact(last.from)
	}
	return joined
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// object makes the policy, without its name and selector.
func (d *draft) object() object {
	p := object{APIVersion: apiVersion, Kind: kind, Spec: spec{report: report{Action: "Allow"}}}
	p.Spec.Process, p.Spec.File = rules(d.process), rules(d.file)
	if len(d.protocols) > 0 {
		p.Spec.Network = &network{}
		for _, name := range d.protocols {
			p.Spec.Network.MatchProtocols = append(p.Spec.Network.MatchProtocols, protocolRule{Protocol: name})
		}
	}
	if len(d.capabilities) > 0 {
		p.Spec.Capabilities = &capabilities{}
		for _, e := range d.capabilities {
			p.Spec.Capabilities.MatchCapabilities = append(p.Spec.Capabilities.MatchCapabilities, capabilityRule{Capability: e.path, FromSource: e.sources()})
		}
	}
	return p
}

func (e entry) sources() []source {
	var list []source
	for _, exe := range e.from {
		list = append(list, source{exe})
	}
	return list
}

func rules(entries []entry) *paths {
	if len(entries) == 0 {
		return nil
	}
	p := &paths{}
	for _, e := range entries {
		if e.isDir() {
			p.MatchDirectories = append(p.MatchDirectories, dirRule{Dir: e.path, Recursive: e.recursive, FromSource: e.sources()})
			continue
		}
		p.MatchPaths = append(p.MatchPaths, pathRule{Path: e.path, FromSource: e.sources()})
	}
	return p
}
