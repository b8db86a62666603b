package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// judge holds the profiles: the files by workload slug and container, the
// operator's objects by their names.
type judge struct {
	files   map[target]rules
	objects map[string]rules
}

type target struct{ slug, container string }

// rules are what a profile says of each call.
type rules struct {
	object        string
	byDefault     string
	architectures []string
	actions       map[string]verdict
}

// verdict is the action for a call; conditional when it depends on arguments.
type verdict struct {
	action      string
	conditional bool
}

// Parse implements engine.Engine. It takes the files named as FileName names them,
// and the objects of the Security Profiles Operator, and passes over everything
// else. A container that has both is judged by the object.
func (Engine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := judge{files: map[target]rules{}}
	for _, o := range objects {
		container, ok := containerOf(o.File)
		if !ok || o.Workload == "" {
			continue
		}
		name := behavior.Escape(o.Workload + "/" + o.File)
		r, err := decode(o.JSON)
		if err != nil {
			return nil, &engine.InvalidError{Object: name, Reason: behavior.Escape(err.Error())}
		}
		r.object = name
		j.files[target{o.Workload, container}] = r
	}
	var err error
	j.objects, err = byName(objects)
	return j, err
}

// decode reads a profile strictly, and refuses what a runtime would refuse.
func decode(data []byte) (rules, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var p profile
	if err := d.Decode(&p); err != nil {
		return rules{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return rules{}, errors.New("more than one value")
	}
	if !slices.Contains(actions(), p.DefaultAction) {
		return rules{}, fmt.Errorf("unknown defaultAction %q", p.DefaultAction)
	}
	for _, a := range p.Architectures {
		if !slices.Contains(knownArchitectures(), a) {
			return rules{}, fmt.Errorf("unknown architecture %q", a)
		}
	}
	for _, f := range p.Flags {
		if !slices.Contains([]string{"SECCOMP_FILTER_FLAG_TSYNC", flagLog, "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"}, f) {
			return rules{}, fmt.Errorf("unknown flag %q", f)
		}
	}
	r := rules{byDefault: p.DefaultAction, architectures: p.Architectures, actions: map[string]verdict{}}
	for _, s := range p.Syscalls {
		if !slices.Contains(actions(), s.Action) {
			return rules{}, fmt.Errorf("unknown action %q", s.Action)
		}
		if len(s.Names) == 0 {
			return rules{}, errors.New("a rule without a system call")
		}
		for _, name := range s.Names {
			v := verdict{s.Action, len(s.Args) > 0}
			// Two rules for one call stand beside each other; which of them
			// decides depends on its arguments, if they differ.
			if old, ok := r.actions[name]; ok && old != v {
				v.conditional = true
			}
			r.actions[name] = v
		}
	}
	return r, nil
}

// Judge implements engine.Judge. A call that is only logged is allowed, and the
// reason says so. A call of the runtime is judged like any other: the filter
// holds for it, too.
func (j judge) Judge(s engine.Subject, f behavior.Fact) engine.Verdict {
	r, ok := j.objects[engine.SeccompObject(s.Workload, s.Container)]
	if !ok {
		r, ok = j.files[target{s.Workload.Slug(), s.Container}]
	}
	if !ok || f.Kind != behavior.Syscall {
		return engine.Verdict{}
	}
	is := func(d engine.Decision, format string, args ...any) engine.Verdict {
		return engine.Verdict{Decision: d, Object: r.object, Reason: fmt.Sprintf(format, args...)}
	}
	// The kernel's own architecture is always part of a filter.
	foreign := map[string]string{"386": "SCMP_ARCH_X86", "arm": "SCMP_ARCH_ARM"}[f.Arch]
	if foreign != "" && !slices.Contains(r.architectures, foreign) {
		return is(engine.Denied, "the profile does not list %s, so its programs are killed", foreign)
	}
	v, listed := r.actions[f.Name]
	if !listed {
		v.action = r.byDefault
	}
	where := "listed"
	if !listed {
		where = "not listed"
	}
	switch {
	case v.conditional:
		return is(engine.Unknown, "listed, but whether it is allowed depends on its arguments")
	case v.action == actAllow:
		return is(engine.Allowed, "%s: %s", where, v.action)
	case v.action == actLog:
		return is(engine.Allowed, "audited: %s: %s", where, v.action)
	case v.action == "SCMP_ACT_NOTIFY" || v.action == "SCMP_ACT_TRACE":
		return is(engine.Unknown, "%s: %s leaves it to another program", where, v.action)
	}
	return is(engine.Denied, "%s: %s", where, v.action)
}

func actions() []string {
	return []string{actAllow, actLog, actErrno, "SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS",
		"SCMP_ACT_TRAP", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"}
}

func knownArchitectures() []string {
	return []string{"SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64",
		"SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64",
		"SCMP_ARCH_MIPSEL64N32", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390",
		"SCMP_ARCH_S390X", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_RISCV64", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB"}
}
