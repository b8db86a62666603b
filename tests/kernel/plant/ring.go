//go:build linux

package plant

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Numbers of linux/io_uring.h.
const (
	ringConnect  = 16
	ringOpenat   = 18
	ringUnlinkat = 36

	ringOffsetEntries = 0x10000000
)

// gapFiles is in what the collector says of a kernel that does not tell of requests.
const gapFiles = "files that are used through io_uring are not observed"

func rings() []Thing {
	thing := func(name string, do func(*ring) error, facts ...behavior.Fact) Thing {
		t := Thing{Name: name, Role: RoleMain, Do: func() error { return withRing(do) }, Facts: facts}
		if facts[0].Kind == behavior.File {
			t.Gaps = []string{gapFiles}
		}
		return t
	}
	return []Thing{
		thing("io_uring open", func(r *ring) error {
			path := append([]byte(Dir+"/uring"), 0)
			fd, err := r.submit(entry{code: ringOpenat, fd: unix.AT_FDCWD, address: uint64(uintptr(unsafe.Pointer(&path[0])))})
			runtime.KeepAlive(path)
			if err != nil {
				return err
			}
			return unix.Close(fd)
		}, file("uring", behavior.Read)),
		thing("io_uring unlink", func(r *ring) error {
			path := append([]byte(Dir+"/uring-unlinked"), 0)
			_, err := r.submit(entry{code: ringUnlinkat, fd: unix.AT_FDCWD, address: uint64(uintptr(unsafe.Pointer(&path[0])))})
			runtime.KeepAlive(path)
			return err
		}, operation("uring-unlinked", behavior.OpUnlink, behavior.Write)),
		thing("io_uring connect", func(r *ring) error {
			server, err := listening(netip.MustParseAddrPort("127.0.0.1:7041"), 0)
			if err != nil {
				return err
			}
			defer unix.Close(server)
			client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(client)
			to := &unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 7041<<8&0xff00 | 7041>>8, Addr: [4]byte{127, 0, 0, 1}}
			_, err = r.submit(entry{code: ringConnect, fd: int32(client), address: uint64(uintptr(unsafe.Pointer(to))), offset: unix.SizeofSockaddrInet4})
			runtime.KeepAlive(to)
			return err
		}, talk(behavior.Egress, "tcp", 7041, "127.0.0.1")),
	}
}

// entry is struct io_uring_sqe.
type entry struct {
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
		return fmt.Errorf("%w: io_uring_setup: %w", ErrAbsent, errno)
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
	if r.entries, err = unix.Mmap(r.fd, ringOffsetEntries, int(r.p.submissions)*int(unsafe.Sizeof(entry{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	defer unix.Munmap(r.entries)
	return use(r)
}

func (r *ring) word(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }

// submit has the kernel do one thing and waits for its result.
func (r *ring) submit(e entry) (int, error) {
	tail := r.word(r.p.submission.tail)
	index := *tail & *r.word(r.p.submission.mask)
	*(*entry)(unsafe.Pointer(&r.entries[uintptr(index)*unsafe.Sizeof(e)])) = e
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
		return 0, fmt.Errorf("%w: io_uring operation %d", ErrAbsent, e.code)
	case result < 0:
		return 0, unix.Errno(-result)
	}
	return int(result), nil
}
