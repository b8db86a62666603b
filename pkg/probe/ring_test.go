//go:build linux

package probe

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

const ringOffsetEntries = 0x10000000

var errRingAbsent = errors.New("the kernel has no such io_uring operation")

// viaRing carries out one io_uring request: its number, then its descriptor,
// address, length, offset and flags as call takes them.
func viaRing(args []string) error {
	code, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var values [5]uint64
	var keep [][]byte
	for i, a := range args[1:] {
		if text, ok := strings.CutPrefix(a, "'"); ok {
			keep = append(keep, append([]byte(text), 0))
			values[i] = uint64(uintptr(unsafe.Pointer(&keep[len(keep)-1][0])))
			continue
		}
		if path, ok := strings.CutPrefix(a, "fd:"); ok {
			fd, err := unix.Open(path, unix.O_RDWR, 0)
			if err != nil {
				return err
			}
			values[i] = uint64(fd)
			continue
		}
		n, err := strconv.ParseInt(a, 0, 64)
		if err != nil {
			return err
		}
		values[i] = uint64(n)
	}
	defer runtime.KeepAlive(keep)
	return withRing(func(r *ring) error {
		_, err := r.submit(ringEntry{code: uint8(code), fd: int32(values[0]), address: values[1], length: uint32(values[2]), offset: values[3], operation: uint32(values[4])})
		return err
	})
}

// ringEntry is struct io_uring_sqe.
type ringEntry struct {
	code, flags uint8
	priority    uint16
	fd          int32
	offset      uint64
	address     uint64
	length      uint32
	operation   uint32
	data        uint64
	_           [3]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	data   uint64
	result int32
	flags  uint32
}

// parameters is struct io_uring_params.
type parameters struct {
	submissions, completions, flags, cpu, idle, features, queue uint32
	_                                                           [3]uint32
	submission                                                  struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	completion struct {
		head, tail, mask, entries, overflow, entriesAt, flags, _ uint32
		_                                                        uint64
	}
}

// ring is an io_uring of one entry at a time.
type ring struct {
	fd      int
	p       parameters
	memory  []byte // both queues: every kernel since 5.4 maps them as one
	entries []byte
}

func withRing(use func(*ring) error) error {
	r := &ring{}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.p)), 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		return fmt.Errorf("io_uring_setup: %w", errno)
	}
	if errno != 0 {
		return errno
	}
	r.fd = int(fd)
	defer unix.Close(r.fd)
	size := max(r.p.submission.array+r.p.submissions*4, r.p.completion.entriesAt+r.p.completions*uint32(unsafe.Sizeof(completion{})))
	var err error
	if r.memory, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	defer unix.Munmap(r.memory)
	if r.entries, err = unix.Mmap(r.fd, ringOffsetEntries, int(r.p.submissions)*int(unsafe.Sizeof(ringEntry{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	defer unix.Munmap(r.entries)
	return use(r)
}

func (r *ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }

// submit has the kernel do one thing and waits for its result.
func (r *ring) submit(e ringEntry) (int, error) {
	tail := r.word(r.p.submission.tail)
	index := *tail & *r.word(r.p.submission.mask)
	*(*ringEntry)(unsafe.Pointer(&r.entries[uintptr(index)*unsafe.Sizeof(e)])) = e
	*r.word(r.p.submission.array + index*4) = index
	atomic.AddUint32(tail, 1)
	const getEvents = 1
	head := r.word(r.p.completion.head)
	// A signal, such as Go's own, ends a wait early.
	for submit := uintptr(1); *head == atomic.LoadUint32(r.word(r.p.completion.tail)); submit = 0 {
		if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, 1, getEvents, 0, 0); errno != 0 && errno != unix.EINTR {
			return 0, errno
		}
	}
	at := r.p.completion.entriesAt + (*head&*r.word(r.p.completion.mask))*uint32(unsafe.Sizeof(completion{}))
	result := (*completion)(unsafe.Pointer(&r.memory[at])).result
	atomic.AddUint32(head, 1)
	switch {
	case result == -int32(unix.EINVAL):
		return 0, errRingAbsent
	case result < 0:
		return 0, unix.Errno(-result)
	}
	return int(result), nil
}

func TestFilesThroughARing(t *testing.T) {
	p := requireProbe(t, Options{})
	if reason := p.Features().Missing["note_request"]; reason != "" {
		t.Skip("SKIPPED: " + reason)
	}
	if disabled, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled"); err == nil && strings.TrimSpace(string(disabled)) == "2" {
		t.Skip("SKIPPED: io_uring is disabled")
	}
	w := behavior.Write
	cases := []struct {
		name    string
		actions []string
		want    []behavior.Fact
	}{
		{"openat", actions("ring 18 -100 '/etc/config 0 0 0"), []behavior.Fact{file("/etc/config", behavior.Read)}},
		{"renameat", actions("ring 35 -100 '/etc/config -100 '/tmp/new 0"), []behavior.Fact{done(behavior.OpRename, "/etc/config", w), done(behavior.OpRename, "/tmp/new", makes)}},
		{"unlinkat", actions("symlink /etc /tmp/link", "ring 36 -100 '/tmp/link/config 0 0 0"), []behavior.Fact{done(behavior.OpUnlink, "/etc/config", w)}},
		{"unlinkat of a directory", actions("ring 36 -100 '/mnt 0 0 0x200"), []behavior.Fact{done(behavior.OpRmdir, "/mnt", w)}},
		{"mkdirat", actions("chdir /tmp", "ring 37 -100 'd 0755 0 0"), []behavior.Fact{done(behavior.OpMkdir, "/tmp/d", makes)}},
		{"symlinkat", actions("ring 38 -100 '/etc/config 0 '/tmp/sym 0"), []behavior.Fact{done(behavior.OpSymlink, "/tmp/sym", makes)}},
		{"linkat", actions("ring 39 -100 '/etc/config -100 '/etc/again 0"), []behavior.Fact{done(behavior.OpLink, "/etc/config", behavior.Read), done(behavior.OpLink, "/etc/again", makes)}},
		{"a request that is made again is the same fact", actions("ring 37 -100 '/tmp/d 0755 0 0", "ring 36 -100 '/tmp/d 0 0 0x200", "ring 37 -100 '/tmp/d 0755 0 0"), []behavior.Fact{done(behavior.OpMkdir, "/tmp/d", makes), done(behavior.OpRmdir, "/tmp/d", w)}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			records := performed(t, p, c.actions...)
			for _, want := range c.want {
				wantFact(t, records, want)
			}
			seen := map[behavior.Fact]bool{}
			for _, r := range records {
				if r.Fact.Operation != "" && seen[r.Fact] {
					t.Errorf("recorded twice: %s", r.Fact)
				}
				seen[r.Fact] = true
			}
		})
	}
	t.Run("what fails is no fact", func(t *testing.T) {
		for _, r := range performed(t, p, actions("fails ring 36 -100 '/etc/none 0 0 0", "fails ring 37 -100 '/etc 0755 0 0", "fails ring 35 -100 '/none -100 '/tmp/x 0", "fails ring 18 -100 '/none 0 0 0")...) {
			if r.Fact.Operation != "" || strings.HasSuffix(r.Fact.Path, "none") {
				t.Errorf("recorded: %s", r.Fact)
			}
		}
		left := 0
		if err := each(p.collection.Maps["parcels"], func(*bpf.FloorParcelKey, *bpf.FloorParcel) { left++ }); err != nil || left > 0 {
			t.Errorf("%d facts still wait, %v", left, err)
		}
	})
}

// What a future kernel lays out otherwise must not cost everything else.
func TestAKernelThatRefusesTheProgramsForARingIsObservedWithoutThem(t *testing.T) {
	requireProbe(t, Options{}).Close() // or skips
	program := func(instructions ...asm.Instruction) *ebpf.ProgramSpec {
		return &ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: append(instructions, asm.Return())}
	}
	good := func() *ebpf.ProgramSpec { return program(asm.Mov.Imm(asm.R0, 0)) }
	bad := func() *ebpf.ProgramSpec { return program() } // what it returns was never set
	for name, c := range map[string]struct {
		programs map[string]*ebpf.ProgramSpec
		want     []string // nil for a refusal
	}{
		"the kernel takes all":                         {map[string]*ebpf.ProgramSpec{"note_exec": good(), "note_request": good()}, []string{"note_exec", "note_request"}},
		"it refuses one for the ring, and both go":     {map[string]*ebpf.ProgramSpec{"note_exec": good(), "note_request": bad(), "note_completion": good()}, []string{"note_exec"}},
		"it refuses another one, and there is no more": {map[string]*ebpf.ProgramSpec{"note_exec": bad(), "note_request": good()}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Probe{features: Features{Missing: map[string]string{}}}
			whole := len(c.programs) == len(c.want)
			err := p.collect(&ebpf.CollectionSpec{Programs: c.programs})
			if err != nil {
				if c.want != nil {
					t.Fatal(err)
				}
				return
			}
			defer p.Close()
			if got := slices.Sorted(maps.Keys(p.collection.Programs)); !slices.Equal(got, c.want) {
				t.Errorf("programs are %v, want %v", got, c.want)
			}
			if gaps := p.Features().Gaps(); (len(gaps) == 0) != whole {
				t.Errorf("gaps are %q", gaps)
			}
		})
	}
}
