//go:build linux

package probe

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// chooseRing leaves those programs for io_uring in spec that fit the kernel, and
// gives the reason where none do.
func chooseRing(spec *ebpf.CollectionSpec, kernel *btf.Spec) (map[string]string, error) {
	request, completion := "", ""
	var data *btf.Struct
	err := kernel.TypeByName("io_cmd_data", &data)
	if err != nil && !errors.Is(err, btf.ErrNotFound) {
		return nil, fmt.Errorf("find io_uring's requests: %w", err)
	}
	if err == nil {
		for _, c := range []struct {
			tracepoint, program string
			into                *string
		}{
			{"io_uring_submit_sqe", "note_request_6_0", &request},
			{"io_uring_submit_req", "note_request", &request},
			{"io_uring_complete", "note_completion", &completion},
		} {
			var typedef *btf.Typedef
			err := kernel.TypeByName("btf_trace_"+c.tracepoint, &typedef)
			if err != nil && !errors.Is(err, btf.ErrNotFound) {
				return nil, fmt.Errorf("find tracepoint %s: %w", c.tracepoint, err)
			}
			if err == nil {
				*c.into = c.program
			}
			if err == nil && c.program == "note_completion" && !endsInStruct(typedef, "io_uring_cqe") {
				completion = "note_completion_6_0"
			}
		}
	}
	missing := map[string]string{}
	if request == "" || completion == "" {
		request, completion = "", ""
		missing["note_request"] = "the kernel has no tracepoints of io_uring that tell the request (they are in kernels since 6.0)"
	}
	keepRing(spec, request, completion)
	return missing, nil
}

// keepRing leaves no programs for io_uring in spec but those named. It tells whether
// there were others.
func keepRing(spec *ebpf.CollectionSpec, names ...string) bool {
	others := false
	for _, program := range []string{"note_request", "note_request_6_0", "note_completion", "note_completion_6_0"} {
		if spec.Programs[program] != nil && !slices.Contains(names, program) {
			delete(spec.Programs, program)
			others = true
		}
	}
	return others
}

// collect loads the programs of spec: without those for io_uring where the kernel
// refuses any, since these depend most on how each kernel lays out what they read.
func (p *Probe) collect(spec *ebpf.CollectionSpec) (err error) {
	p.collection, err = ebpf.NewCollection(spec)
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) && keepRing(spec) {
		p.features.Missing["note_request"] = "the kernel refuses the programs: " + reasonOf(err)
		p.collection, err = ebpf.NewCollection(spec)
	}
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	return nil
}

// endsInStruct tells whether a tracepoint's last argument points to a struct.
func endsInStruct(typedef *btf.Typedef, name string) bool {
	pointer, ok := typedef.Type.(*btf.Pointer)
	if !ok {
		return false
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 {
		return false
	}
	if pointer, ok = proto.Params[len(proto.Params)-1].Type.(*btf.Pointer); !ok {
		return false
	}
	target, ok := pointer.Target.(*btf.Struct)
	return ok && target.Name == name
}
