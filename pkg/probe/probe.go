//go:build linux

package probe

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Options of a probe. The zero value observes everything but the host's and the
// caller's own mount namespace.
type Options struct {
	// RingBytes is the size of the buffer between kernel and reader, rounded up
	// to a power of two; 4 MiB holds some 15,000 new facts.
	RingBytes int
	// How many different facts are told apart, by kind; what is beyond is
	// recorded, but every time and uncounted, and shows in Lost. The defaults,
	// some 30 MB together, suit 100 containers: 4,096 processes, 65,536 files,
	// 16,384 sockets, 8,192 capabilities, 2,048 mount namespaces.
	Processes, Files, Sockets, Capabilities, Namespaces int
	// CgroupRoot is where the root of the cgroup v2 hierarchy is mounted. When
	// empty, the probe mounts it for itself where nobody else sees it.
	CgroupRoot string
	// Ignore are further mount namespaces not to observe.
	Ignore []uint32
	// Family is the only family of which optional hooks are taken: FamilyTracepoint,
	// FamilyFentry or FamilyKprobe, for tests. When empty, each takes the best that
	// the kernel has.
	Family string
	// Arguments has the arguments of every process in its fact. They often hold
	// secrets, and make a fact of each different call.
	Arguments bool
}

// Features tell what a probe can see on this kernel.
type Features struct {
	Programs []string          // attached, sorted
	Missing  map[string]string // hook, program or what it would see, to the reason why that is not seen
	// Hooks are the families by which each kind of fact is seen, sorted.
	Hooks map[behavior.Kind][]string
}

// Probe is a set of loaded and attached programs. Its methods may be used from
// several goroutines, but Run from one at a time.
type Probe struct {
	collection    *ebpf.Collection
	links         []link.Link
	reader        *ringbuf.Reader
	resolver      *resolver
	features      Features
	walksDeep     bool          // the kernel has bpf_loop: paths of more than 500 directories fit
	malformed     atomic.Uint64 // records that could not be decoded
	actors        actors        // of Run
	conversations conversations // of Run
	forgotten     atomic.Uint64 // records whose actor was forgotten

	mu       sync.Mutex
	told     map[uint64]losses          // what each mount namespace had lost when Lost was last called
	disowned map[string]uint64          // what forgotten ones had lost and nobody was told
	freed    [bpf.FloorRoomROOMS]uint64 // entries that were removed, by room
}

// dnsPort is where DNS servers are asked; what programs of others make of it is
// found out.
const dnsPort = 53

// Open loads the programs and attaches them; from its return on, what happens is
// recorded. Errors are *OpenError. The caller closes the probe, which removes
// everything from the kernel; the kernel does so when the process ends.
func Open(o Options) (_ *Probe, err error) {
	if o.Family != "" && !slices.Contains(Families(), o.Family) {
		return nil, fmt.Errorf("open probe: unknown family of hooks %q", o.Family)
	}
	if Arches(runtime.GOARCH) == nil {
		return nil, &OpenError{Reason: ErrUnsupported, Err: fmt.Errorf("architecture %s", runtime.GOARCH)}
	}
	if !hasBTF() {
		return nil, &OpenError{Reason: ErrNoBTF}
	}
	// Before 5.11 maps count as locked memory; without the right to raise the
	// limit, loading says what is missing.
	limitErr := rlimit.RemoveMemlock()
	p := &Probe{resolver: newResolver(), told: map[uint64]losses{}, disowned: map[string]uint64{}}
	defer func() {
		if err != nil {
			err = explain(errors.Join(err, p.Close()))
		}
	}()
	if err := p.load(o); err != nil {
		return nil, errors.Join(err, limitErr)
	}
	if err := p.configure(o); err != nil {
		return nil, err
	}
	if p.reader, err = ringbuf.NewReader(p.collection.Maps["records"]); err != nil {
		return nil, fmt.Errorf("read ring buffer: %w", err)
	}
	if err := p.attach(o); err != nil {
		return nil, err
	}
	if err := p.hook(o.Family); err != nil {
		return nil, err
	}
	p.features.Hooks = p.families()
	p.features.Programs = slices.Sorted(maps.Keys(p.collection.Programs))
	for name := range p.features.Missing {
		p.features.Programs = slices.DeleteFunc(p.features.Programs, func(n string) bool { return n == name })
	}
	return p, nil
}

func (p *Probe) load(o Options) error {
	spec, err := bpf.LoadFloor()
	if err != nil {
		return fmt.Errorf("load objects: %w", err)
	}
	for name, size := range map[string]int{
		"processes": o.Processes, "files": o.Files, "sockets": o.Sockets,
		"capabilities": o.Capabilities, "namespaces": o.Namespaces,
	} {
		if size > 0 {
			spec.Maps[name].MaxEntries = uint32(size)
		}
	}
	if o.RingBytes > 0 {
		size := os.Getpagesize()
		for size < o.RingBytes {
			size *= 2
		}
		spec.Maps["records"].MaxEntries = uint32(size)
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("load kernel types: %w", err)
	}
	missing, err := dropMissingTracepoints(spec, kernel, o.Family)
	if err != nil {
		return err
	}
	p.features.Missing = missing
	ring, err := chooseRing(spec, kernel)
	if err != nil {
		return err
	}
	maps.Copy(p.features.Missing, ring)
	var helpers *btf.Enum
	if err := kernel.TypeByName("bpf_func_id", &helpers); err != nil {
		return fmt.Errorf("find helper functions: %w", err)
	}
	p.walksDeep = slices.ContainsFunc(helpers.Values, func(v btf.EnumValue) bool { return v.Name == "BPF_FUNC_loop" })
	if !p.walksDeep {
		withoutCallbacks(spec)
	}
	allocateByNeed(spec, kernel)
	if err := errors.Join(setOutcomes(spec, runtime.GOARCH), setVariables(spec, o)); err != nil {
		return err
	}
	bakeVariables(spec)
	return p.collect(spec)
}

// allocateByNeed has the kernel allocate the entries that containers take when they
// take them, where it can do so in any context: since 6.1. Before, all are allocated
// at once.
func allocateByNeed(spec *ebpf.CollectionSpec, kernel *btf.Spec) {
	var allocator *btf.Struct
	if kernel.TypeByName("bpf_mem_alloc", &allocator) != nil {
		return
	}
	for _, name := range []string{"namespaces", "capabilities"} {
		spec.Maps[name].Flags |= unix.BPF_F_NO_PREALLOC
	}
}

// setVariables tells the programs what is wanted, and the sizes of the maps.
func setVariables(spec *ebpf.CollectionSpec, o Options) error {
	var sizes [bpf.FloorRoomROOMS]uint32
	for name, room := range rooms() {
		if m := spec.Maps[name]; m != nil {
			sizes[room] = m.MaxEntries
		}
	}
	var keep uint32
	if o.Arguments {
		keep = 1
	}
	for name, value := range map[string]any{"room_size": sizes, "keep_arguments": keep} {
		v := spec.Variables[name]
		if v == nil {
			continue // these programs do not ask
		}
		if err := v.Set(value); err != nil {
			return fmt.Errorf("set variable %s: %w", name, err)
		}
	}
	return nil
}

// configure fills the maps that the programs only read.
func (p *Probe) configure(o Options) error {
	var seed [8]byte
	rand.Read(seed[:])
	if err := p.collection.Maps["settings"].Put(uint32(bpf.FloorSettingSETTING_SEED), seed); err != nil {
		return fmt.Errorf("set seed of hashes: %w", err)
	}
	// A byte for each port, eight in an entry.
	if err := p.collection.Maps["captures"].Put(uint32(dnsPort/8), uint64(bpf.FloorCaptureCAPTURE_DNS)<<(dnsPort%8*8)); err != nil {
		return fmt.Errorf("set port to read: %w", err)
	}
	for _, path := range []string{"/proc/1/ns/mnt", "/proc/self/ns/mnt"} {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrPermission) && path != "/proc/self/ns/mnt" {
			continue // process 1 may do more than we; the caller's is the host's, or it ignores that
		}
		if err != nil {
			return fmt.Errorf("find mount namespace: %w", err)
		}
		if err := p.Ignore(uint32(info.Sys().(*syscall.Stat_t).Ino)); err != nil {
			return err
		}
	}
	for _, ns := range o.Ignore {
		if err := p.Ignore(ns); err != nil {
			return err
		}
	}
	return setCallRules(p.collection.Maps["call_rules"])
}

func (p *Probe) attach(o Options) error {
	root := o.CgroupRoot
	var reason string
	if root == "" {
		mount, err := mountCgroup2()
		if err != nil {
			reason = err.Error()
		} else {
			defer mount.Close()
			root = fmt.Sprintf("/proc/self/fd/%d", mount.Fd())
		}
	}
	first, last := map[string]*ebpf.Program{}, map[string]*ebpf.Program{}
	for name, program := range p.collection.Programs {
		switch name {
		case "note_before":
		case "note_egress", "note_ingress":
			last[name] = program
		default:
			first[name] = program
		}
	}
	// Packets come last: by then it is known whose the sockets are.
	if err := p.attachAll(first, root, reason); err != nil {
		return err
	}
	if err := p.before(); err != nil {
		return fmt.Errorf("find whose the sockets are: %w", err)
	}
	return p.attachAll(last, root, reason)
}

// attachAll attaches programs, those on control groups below root. Where there is
// none, reason says why, and they are missing.
func (p *Probe) attachAll(programs map[string]*ebpf.Program, root, reason string) error {
	attachTypes := cgroupAttach()
	for name, program := range programs {
		attachType, isCgroup := attachTypes[name]
		if isCgroup && root == "" {
			p.features.Missing[name] = reason
			continue
		}
		var l link.Link
		var err error
		if isCgroup {
			var hidden string
			if l, hidden, err = attachCgroup(root, attachType, program); hidden != "" {
				p.features.Missing[beforeTranslation] = hidden
			}
		} else {
			l, err = link.AttachTracing(link.TracingOptions{Program: program})
		}
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		p.links = append(p.links, l)
	}
	return nil
}

// before has the kernel walk over all open files once, for the sockets among them.
func (p *Probe) before() error {
	walk, err := link.AttachIter(link.IterOptions{Program: p.collection.Programs["note_before"]})
	if err != nil {
		return err
	}
	defer walk.Close()
	r, err := walk.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// Gaps say in words what cannot be seen for what is missing, sorted.
func (f Features) Gaps() []string {
	gaps := map[string]string{}
	for _, h := range hooks() {
		gaps[h.name] = h.gap
	}
	gaps[beforeTranslation] = noTranslation
	gaps["note_request"] = "files that are used through io_uring are not observed"
	var list []string
	for name, reason := range f.Missing {
		what, ok := gaps[name]
		switch {
		case ok:
		case slices.Contains(asking(), name):
			what = noTranslation
		default:
			what = "datagrams (UDP, ICMP, raw sockets) and DNS are not observed"
		}
		list = append(list, what+": "+reason)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// Features tell what the probe can see.
func (p *Probe) Features() Features {
	return Features{
		Programs: slices.Clone(p.features.Programs),
		Missing:  maps.Clone(p.features.Missing),
		Hooks:    maps.Clone(p.features.Hooks),
	}
}

// Close detaches the programs and frees them and their maps. It ends Run. What
// was not read is gone. Closing twice is harmless.
func (p *Probe) Close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	p.links = nil
	if p.reader != nil {
		errs = append(errs, io.Closer(p.reader).Close())
	}
	if p.collection != nil {
		p.collection.Close()
	}
	return errors.Join(errs...)
}
