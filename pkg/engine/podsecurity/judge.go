package podsecurity

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// judge holds the patches by workload and container, and the admission policies.
type judge struct {
	containers map[target]hardened
	admission  map[string]rule
}

type target struct{ slug, container string }

// hardened is one container as a patch makes it.
type hardened struct {
	object  string
	spec    behavior.ContainerSpec
	seccomp *behavior.SecurityProfile
}

// Parse implements engine.Engine.
func (Engine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := judge{containers: map[target]hardened{}}
	for _, o := range objects {
		if o.Workload == "" || o.File != engine.HardeningFile {
			continue
		}
		name := behavior.Escape(o.Workload + "/" + o.File)
		var object map[string]any
		if err := json.Unmarshal(o.JSON, &object); err != nil {
			return nil, &engine.InvalidError{Object: name, Reason: behavior.Escape(err.Error())}
		}
		spec, err := specIn(object)
		if err != nil {
			return nil, &engine.InvalidError{Object: name, Reason: behavior.Escape(err.Error())}
		}
		for _, c := range spec.All() {
			h := hardened{object: name, spec: c, seccomp: c.Security.Seccomp}
			if h.seccomp == nil {
				h.seccomp = spec.Security.Seccomp
			}
			j.containers[target{o.Workload, c.Name}] = h
		}
	}
	var err error
	j.admission, err = parseAdmission(objects)
	return j, err
}

// Judge implements engine.Judge: what the patch takes from the container that the
// fact needs.
func (j judge) Judge(s engine.Subject, f behavior.Fact) engine.Verdict {
	h, ok := j.containers[target{s.Workload.Slug(), s.Container}]
	if !ok || f.Runtime {
		return engine.Verdict{}
	}
	is := func(d engine.Decision, format string, args ...any) engine.Verdict {
		return engine.Verdict{Decision: d, Object: h.object, Reason: fmt.Sprintf(format, args...)}
	}
	switch f.Kind {
	case behavior.Capability:
		return h.capability(f, is)
	case behavior.File:
		if mutates(f) {
			return h.write(s, f, is)
		}
	case behavior.Syscall:
		if h.seccomp == nil || h.seccomp.Type != "RuntimeDefault" {
			return engine.Verdict{}
		}
		if byDefault(f.Name) {
			return is(engine.Allowed, "the runtime's default seccomp profile allows it")
		}
		return is(engine.Denied, "the runtime's default seccomp profile does not allow it in general")
	}
	return engine.Verdict{}
}

type verdict func(engine.Decision, string, ...any) engine.Verdict

func (h hardened) capability(f behavior.Fact, is verdict) engine.Verdict {
	caps := h.spec.Security.Capabilities
	named := func(list []string) bool {
		return slices.Contains(list, f.Name) || slices.Contains(list, "ALL")
	}
	switch {
	case f.Refused:
		return engine.Verdict{}
	case named(caps.Add): // what is added stays, also when it is dropped
		return is(engine.Allowed, "capability %s is added", f.Name)
	case named(caps.Drop):
		return is(engine.Denied, "capability %s is dropped", f.Name)
	}
	return engine.Verdict{}
}

// write decides about a change of a file by the mount that it is in.
func (h hardened) write(s engine.Subject, f behavior.Fact, is verdict) engine.Verdict {
	readOnlyRoot := isTrue(h.spec.Security.ReadOnlyRootFilesystem)
	best, readOnly, patched := "/", readOnlyRoot, false
	for _, m := range h.spec.Mounts {
		if at := path.Clean(m.Path); inside(f.Path, at) && len(at) > len(best) {
			best, readOnly, patched = at, m.ReadOnly, true
		}
	}
	if s.Mounts == nil {
		if !readOnlyRoot && !patched {
			return engine.Verdict{}
		}
		return is(engine.Unknown, "what is mounted in the container was not seen")
	}
	at, m, mounted := behavior.Coverage{Mounts: s.Mounts}.MountOf(f.Path)
	if mounted && len(at) >= len(best) && !(patched && at == best) {
		if !asRoot(at, m) {
			if p, ok := h.patchOf(m); ok && p.ReadOnly {
				return is(engine.Denied, "volume %s is read-only", p.Name)
			}
			return engine.Verdict{}
		}
		best, readOnly, patched = at, readOnlyRoot, false
	}
	switch {
	case readOnly && best == "/":
		return is(engine.Denied, "the root file system is read-only")
	case readOnly:
		return is(engine.Denied, "%s is read-only", best)
	case patched || readOnlyRoot:
		return is(engine.Allowed, "%s is a volume that can be written to", best)
	}
	return engine.Verdict{}
}

// patchOf finds what the patch says of a mounted volume, whose path in a manifest
// may lead through symlinks.
func (h hardened) patchOf(m behavior.Mount) (behavior.VolumeMount, bool) {
	var found []behavior.VolumeMount
	for _, p := range h.spec.Mounts {
		if m.Volume != "" && p.Name == m.Volume {
			found = append(found, p)
		}
	}
	if len(found) == 1 {
		return found[0], true
	}
	return behavior.VolumeMount{}, false
}

func inside(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// Admit implements engine.Admitter.
func (j judge) Admit(w behavior.Workload, spec behavior.PodSpec) engine.Verdict {
	if r, ok := j.admission[ObjectName(w)]; ok {
		return r.admit(spec)
	}
	return engine.Verdict{}
}
