// Package seccomp renders rules as seccomp profiles in the form that container
// runtimes read (OCI LinuxSeccomp), one for each container and stage, and judges
// system calls by such profiles, whoever wrote them.
//
// A profile is in force before the container's first program runs, so each one
// also allows what the runtime itself calls until then. It never holds a call
// that nobody was seen to need.
package seccomp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Name is the engine's name.
const Name = "seccomp"

// Actions and the flag of rendered profiles, and the error that denied calls
// return (EPERM).
const (
	actAllow = "SCMP_ACT_ALLOW"
	actLog   = "SCMP_ACT_LOG"
	actErrno = "SCMP_ACT_ERRNO"
	flagLog  = "SECCOMP_FILTER_FLAG_LOG"
	eperm    = 1
)

// Engine implements engine.Engine. The zero value is ready for use.
type Engine struct {
	// WithoutLog leaves the flag out that makes denials leave a trace in the
	// audit log, for runc before 1.2 and crun before 0.12, which refuse to start a
	// container with it.
	WithoutLog bool
	// Operator makes objects of the Security Profiles Operator instead of files.
	Operator bool
}

// Name implements engine.Engine.
func (Engine) Name() string { return Name }

// FileName is the name of a container's profile beside a stage's kustomization.
func FileName(container string) string { return "seccomp-" + container + ".json" }

// containerOf is the inverse of FileName.
func containerOf(file string) (string, bool) {
	name, ok := strings.CutPrefix(file, "seccomp-")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, ".json")
}

// profile is an OCI LinuxSeccomp.
type profile struct {
	DefaultAction    string    `json:"defaultAction"`
	DefaultErrnoRet  *uint     `json:"defaultErrnoRet,omitempty"`
	Architectures    []string  `json:"architectures,omitempty"`
	Flags            []string  `json:"flags,omitempty"`
	ListenerPath     string    `json:"listenerPath,omitempty"`
	ListenerMetadata string    `json:"listenerMetadata,omitempty"`
	Syscalls         []syscall `json:"syscalls,omitempty"`
}

type syscall struct {
	Names    []string          `json:"names"`
	Action   string            `json:"action"`
	ErrnoRet *uint             `json:"errnoRet,omitempty"`
	Args     []json.RawMessage `json:"args,omitempty"`
}

// Render implements engine.Engine. Without Operator it makes no object for the
// cluster: a pod names its profile, and the profile's file has to be on the node. A
// profile that denies is made only for a container whose start was observed, since
// it is in force before the container's first program.
func (e Engine) Render(s policy.Set) (engine.Rendered, error) {
	var rendered engine.Rendered
	for _, container := range s.Containers {
		names, arches, notes := collect(container, s.Of(container, behavior.Syscall))
		rendered.Notes = append(rendered.Notes, notes...)
		if len(names) == 0 {
			continue
		}
		p := profile{
			DefaultAction: actLog,
			Architectures: architectures(arches),
			Syscalls:      []syscall{{Names: sortedCalls(names), Action: actAllow}},
		}
		started := s.Coverage[container].Starts() > 0
		if !started {
			rendered.Notes = append(rendered.Notes, unseenStart(container))
		}
		if e.Operator {
			if started {
				if err := e.object(&rendered, s.Workload, container, p); err != nil {
					return engine.Rendered{}, err
				}
			}
			continue
		}
		if err := put(&rendered, policy.Audit, container, p); err != nil {
			return engine.Rendered{}, err
		}
		if !started {
			continue
		}
		errno := uint(eperm)
		p.DefaultAction, p.DefaultErrnoRet = actErrno, &errno
		if !e.WithoutLog {
			p.Flags = []string{flagLog}
		}
		if err := put(&rendered, policy.Deny, container, p); err != nil {
			return engine.Rendered{}, err
		}
	}
	if len(rendered.Stage)+len(rendered.Base) > 0 && !e.WithoutLog {
		rendered.Notes = append(rendered.Notes, policy.Note{Engine: Name,
			Text: "in stage deny a refused call is logged, which takes runc 1.2 or crun 0.12; an older one does not start the container"})
	}
	slices.SortFunc(rendered.Notes, engine.CompareNotes)
	if len(rendered.Stage)+len(rendered.Base) == 0 && len(rendered.Notes) == 0 {
		return engine.Rendered{}, engine.ErrNoEvidence
	}
	return rendered, nil
}

// collect gives the names and architectures of the calls that a profile can say.
// A call by number has no name in the table of the one who saw it.
func collect(container string, rules []policy.Rule) (names, arches []string, notes []policy.Note) {
	note := func(format string, args ...any) {
		notes = append(notes, policy.Note{Engine: Name, Container: container, Text: fmt.Sprintf(format, args...)})
	}
	for _, r := range rules {
		switch {
		case !plain(r.Name) || strings.HasPrefix(r.Name, "sys_"):
			note("system call %s (%s) has no name that a profile could hold; it is denied in stage deny", r.Name, r.Arch)
		case compat(r.Arch) == nil:
			note("system call %s was made on architecture %s, which a profile cannot name; it is denied in stage deny", r.Name, r.Arch)
		default:
			names, arches = append(names, r.Name), append(arches, r.Arch)
		}
	}
	slices.Sort(arches)
	arches = slices.Compact(arches)
	if len(arches) > 1 {
		note("calls of %s share one list: a profile has no list for each architecture", strings.Join(arches, ", "))
	}
	return names, arches, notes
}

// plain tells whether a name is one that a system call can have.
func plain(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// compat gives the architectures of a kernel that runs programs of the given one;
// nil for one that is not known. A profile that leaves out the 32-bit ones would
// kill what they run.
func compat(arch string) []string {
	switch arch {
	case "amd64", "386":
		return []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"}
	case "arm64", "arm":
		return []string{"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"}
	}
	return nil
}

func architectures(arches []string) []string {
	var list []string
	for _, arch := range arches {
		for _, a := range compat(arch) {
			if !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	return list
}

// put writes one profile, a system call a line.
func put(rendered *engine.Rendered, stage policy.Stage, container string, p profile) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(p); err != nil {
		return fmt.Errorf("encode seccomp profile of container %s: %w", container, err)
	}
	if rendered.Stage == nil {
		rendered.Stage = map[policy.Stage]map[string][]byte{}
	}
	if rendered.Stage[stage] == nil {
		rendered.Stage[stage] = map[string][]byte{}
	}
	rendered.Stage[stage][FileName(container)] = b.Bytes()
	return nil
}
