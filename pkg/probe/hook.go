//go:build linux

package probe

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Families of hooks, as behavior.Coverage names them. Cgroup programs are in the
// kernel wherever tracepoints are, and are not chosen.
const (
	FamilyTracepoint = "tracepoint"
	FamilyFentry     = "fentry"
	FamilyKprobe     = "kprobe"

	familyCgroup = "cgroup"
)

// kprobeEvents is there where a kprobe ends with the process that made it. Without,
// one could only be made through tracefs, where a killed process would leave it.
const kprobeEvents = "/sys/bus/event_source/devices/kprobe/type"

var errNoKprobes = errors.New("kernel has no kprobe events")

// Families are those that can be asked for, the best first: a tracepoint is in the
// kernel for good and costs least, a trampoline less than a breakpoint.
func Families() []string { return []string{FamilyTracepoint, FamilyFentry, FamilyKprobe} }

// hook is something that is observed by whichever family the kernel has: by one
// tracepoint, or by programs on functions of the kernel.
type hook struct {
	name       string        // the tracepoint's program; its key in Features.Missing
	kind       behavior.Kind // of the facts that it sees
	tracepoint string        // its name; empty if no kernel has one
	since      string        // the first kernel that has it
	functions  []function    // all of them, or the hook is missing
	gap        string        // what is not seen without it
}

// function of the kernel, and the name that its programs start with.
type function struct{ name, program string }

// hooks are those that a supported kernel may lack.
func hooks() []hook {
	return []hook{
		{
			name: "note_capability", kind: behavior.Capability, tracepoint: "cap_capable", since: "6.14",
			functions: []function{{"cap_capable", "capability"}},
			gap:       "capabilities are not observed",
		},
	}
}

// dropMissingTracepoints takes the programs of hooks whose tracepoint the kernel
// lacks, or that another family is to have, out of spec. It gives the reasons.
func dropMissingTracepoints(spec *ebpf.CollectionSpec, kernel *btf.Spec, family string) (map[string]string, error) {
	missing := map[string]string{}
	for _, h := range hooks() {
		if h.tracepoint == "" {
			missing[h.name] = "no kernel has a tracepoint for it"
			continue
		}
		var typedef *btf.Typedef
		err := kernel.TypeByName("btf_trace_"+h.tracepoint, &typedef)
		switch {
		case errors.Is(err, btf.ErrNotFound):
			missing[h.name] = fmt.Sprintf("the kernel has no tracepoint %s (it is in kernels since %s)", h.tracepoint, h.since)
		case err != nil:
			return nil, fmt.Errorf("find tracepoint %s: %w", h.tracepoint, err)
		case family != "" && family != FamilyTracepoint:
			missing[h.name] = "tracepoint not taken"
		default:
			continue
		}
		delete(spec.Programs, h.name)
	}
	return missing, nil
}

// hook attaches what has no tracepoint by the other families, or by the given one
// alone.
func (p *Probe) hook(family string) error {
	spec, err := p.hookSpec()
	if err != nil {
		return err
	}
	for _, h := range hooks() {
		reasons := []string{p.features.Missing[h.name]}
		for _, f := range []string{FamilyFentry, FamilyKprobe} {
			if reasons[0] == "" || family != "" && family != f {
				continue
			}
			err := p.hookBy(spec, h, f)
			if err == nil {
				reasons = []string{""}
				delete(p.features.Missing, h.name)
				break
			}
			reasons = append(reasons, f+": "+reasonOf(err))
		}
		if reasons[0] != "" {
			p.features.Missing[h.name] = strings.Join(reasons, "; ")
			continue
		}
	}
	return nil
}

// hookSpec gives the programs of the hooks, over the maps of the floor.
func (p *Probe) hookSpec() (*ebpf.CollectionSpec, error) {
	spec, err := bpf.LoadHooks()
	if err != nil {
		return nil, fmt.Errorf("load hooks: %w", err)
	}
	for name, m := range spec.Maps {
		if shared, ok := p.collection.Maps[name]; ok && !strings.HasPrefix(name, ".") {
			m.MaxEntries, m.Flags = shared.MaxEntries(), shared.Flags()
		}
	}
	if !p.walksDeep {
		withoutCallbacks(spec)
	}
	if err := setVariables(spec, Options{}); err != nil {
		return nil, err
	}
	bakeVariables(spec)
	return spec, nil
}

// hookBy loads and attaches the programs of h that are of a family: all or none.
func (p *Probe) hookBy(spec *ebpf.CollectionSpec, h hook, family string) (err error) {
	if _, err := os.Stat(kprobeEvents); family == FamilyKprobe && err != nil {
		return errNoKprobes
	}
	one := spec.Copy()
	maps.DeleteFunc(one.Programs, func(name string, _ *ebpf.ProgramSpec) bool {
		return !slices.ContainsFunc(h.functions, func(f function) bool { return slices.Contains(f.programs(family), name) })
	})
	shared := map[string]*ebpf.Map{}
	for name := range one.Maps {
		if m, ok := p.collection.Maps[name]; ok && !strings.HasPrefix(name, ".") {
			shared[name] = m
		}
	}
	loaded, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer loaded.Close()
	var links []link.Link
	for _, f := range h.functions {
		// The return first: a call whose entry was not seen is let go.
		for _, name := range slices.Backward(f.programs(family)) {
			program, ok := loaded.Programs[name]
			if !ok {
				continue // a hook on the entry has no program for it
			}
			l, err := attachFunction(f.name, one.Programs[name].SectionName, program)
			if err != nil {
				for _, l := range links {
					err = errors.Join(err, l.Close())
				}
				return fmt.Errorf("attach to %s: %w", f.name, err)
			}
			links = append(links, l)
		}
	}
	p.links = append(p.links, links...)
	for name := range one.Programs {
		p.collection.Programs[name] = loaded.DetachProgram(name)
	}
	return nil
}

// programs are the names of those that a family has on f: see bpf/include/hook.h.
func (f function) programs(family string) []string {
	if family == FamilyFentry {
		return []string{f.program + "_fentry"}
	}
	return []string{f.program + "_entry", f.program + "_kprobe"}
}

// attachFunction attaches by what the program's section says it is.
func attachFunction(name, section string, program *ebpf.Program) (link.Link, error) {
	switch kind, _, _ := strings.Cut(section, "/"); kind {
	case "kprobe":
		return link.Kprobe(name, program, nil)
	case "kretprobe":
		return link.Kretprobe(name, program, nil)
	}
	return link.AttachTracing(link.TracingOptions{Program: program})
}

// reasonOf says in one line why a hook is not to be had.
func reasonOf(err error) string {
	switch {
	case errors.Is(err, os.ErrPermission):
		return "the kernel does not permit it"
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errNoKprobes), errors.Is(err, ebpf.ErrNotSupported):
		return "the kernel has none"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// families tells by which families each kind of fact is seen.
func (p *Probe) families() map[behavior.Kind][]string {
	seen := map[behavior.Kind][]string{
		behavior.Process: {FamilyTracepoint}, behavior.File: {FamilyTracepoint},
		behavior.Network: {FamilyTracepoint}, behavior.Syscall: {FamilyTracepoint}, behavior.Socket: {FamilyTracepoint},
	}
	for name := range cgroupAttach() {
		if p.features.Missing[name] == "" {
			seen[behavior.Network] = append(seen[behavior.Network], familyCgroup)
			seen[behavior.DNS] = []string{familyCgroup}
		}
	}
	for _, h := range hooks() {
		if p.features.Missing[h.name] != "" {
			continue
		}
		family := FamilyTracepoint
		for _, f := range []string{FamilyFentry, FamilyKprobe} {
			if _, ok := p.collection.Programs[h.functions[0].program+"_"+f]; ok {
				family = f
			}
		}
		seen[h.kind] = append(seen[h.kind], family)
	}
	for kind := range seen {
		slices.Sort(seen[kind])
		seen[kind] = slices.Compact(seen[kind])
	}
	return seen
}

// withoutCallbacks blanks references to callback functions, which kernels before
// 5.13 refuse even where they are never reached: in the branch for bpf_loop.
func withoutCallbacks(spec *ebpf.CollectionSpec) {
	for _, program := range spec.Programs {
		for i, instruction := range program.Instructions {
			if instruction.IsLoadOfFunctionPointer() {
				program.Instructions[i] = asm.LoadImm(instruction.Dst, 0, asm.DWord)
			}
		}
	}
}
