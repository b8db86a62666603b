//go:build linux && amd64

package main

import (
	"encoding/binary"
	"errors"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// attack is one thing that somebody does who has code running in a service.
type attack struct {
	name string // in words
	// do is nil when it worked; is tells its facts from all that were recorded.
	do func(*remote) error
	is func(behavior.Fact) bool
	// elsewhere: what a runtime alone enforces (system calls, capabilities, read-only
	// file systems) does not reach it; KubeArmor and the network's engine do.
	elsewhere bool
}

func attacks() []attack {
	list := slices.Concat(programAttacks(), fileAttacks(), networkAttacks(), escapes())
	for i := range list {
		list[i].elsewhere = slices.Contains([]string{
			"run a shell", "run the package manager", "drop a program into /tmp and run it", "read the password hashes",
			"read the service account's token", "read the environment of the first process", bindShell, "connect to a stranger", "ask the cloud for credentials",
		}, list[i].name)
	}
	return list
}

const bindShell = "wait for somebody on a new port"

// Predicates of facts.

func ran(names ...string) func(behavior.Fact) bool {
	return func(f behavior.Fact) bool {
		return f.Kind == behavior.Process && slices.Contains(names, path.Base(f.Path))
	}
}

func calls(names ...string) func(behavior.Fact) bool {
	return func(f behavior.Fact) bool { return f.Kind == behavior.Syscall && slices.Contains(names, f.Name) }
}

func opened(name string, access behavior.Access) func(behavior.Fact) bool {
	return func(f behavior.Fact) bool {
		return f.Kind == behavior.File && f.Path == name && f.Access&access != 0
	}
}

func either(all ...func(behavior.Fact) bool) func(behavior.Fact) bool {
	return func(f behavior.Fact) bool {
		return slices.ContainsFunc(all, func(is func(behavior.Fact) bool) bool { return is(f) })
	}
}

func port(d behavior.Direction, number uint16) func(behavior.Fact) bool {
	return func(f behavior.Fact) bool {
		return f.Kind == behavior.Network && f.Direction == d && f.Port == number
	}
}

// Names that only attacks use, so that their facts are told apart.
const (
	dropped   = "/tmp/.cache-update"
	listening = 4444
	outside   = 4443
)

func programAttacks() []attack {
	return []attack{
		{name: "run a shell", do: func(r *remote) error { return r.exec("/bin/sh", "sh", "-c", "id") }, is: ran("sh", "dash", "bash", "busybox")},
		{name: "run the package manager", do: func(r *remote) error { return r.exec("/usr/bin/apt-get", "apt-get", "--version") }, is: ran("apt-get")},
		{name: "drop a program into /tmp and run it", do: func(r *remote) error {
			if err := r.create(dropped, unix.O_CREAT|unix.O_WRONLY, 0o755, tiny()); err != nil {
				return err
			}
			return r.exec(dropped, "update")
		}, is: func(f behavior.Fact) bool { return strings.HasPrefix(f.Path, dropped) }},
		{name: "run a program from memory", do: func(r *remote) error {
			fd, err := r.do(unix.SYS_MEMFD_CREATE, r.text("x"), 0)
			if err != nil {
				return err
			}
			if _, err := r.do(unix.SYS_WRITE, fd, r.bytes(tiny()), uint64(len(tiny()))); err != nil {
				return err
			}
			_, err = r.do(unix.SYS_EXECVEAT, fd, r.text(""), r.list("x"), r.list(), unix.AT_EMPTY_PATH)
			return r.became(err)
		}, is: either(calls("memfd_create", "execveat"), func(f behavior.Fact) bool {
			return f.Kind == behavior.Process && strings.Contains(f.Path, "memfd:")
		})},
		{name: "trace the first process", do: func(r *remote) error {
			_, err := r.do(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1, 0, 0)
			return err
		}, is: calls("ptrace")},
		{name: "read another process's memory", do: func(r *remote) error {
			at := r.bytes(make([]byte, 64))
			iov := r.bytes(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, at), 8))
			_, err := r.do(unix.SYS_PROCESS_VM_READV, 1, iov, 1, iov, 1, 0)
			return err
		}, is: calls("process_vm_readv")},
	}
}

func fileAttacks() []attack {
	const victim = "/usr/bin/env"
	return []attack{
		{name: "read the password hashes", do: func(r *remote) error { return r.open("/etc/shadow", unix.O_RDONLY) }, is: opened("/etc/shadow", behavior.Read)},
		{name: "read the service account's token", do: func(r *remote) error {
			return r.open("/run/secrets/kubernetes.io/serviceaccount/token", unix.O_RDONLY)
		}, is: func(f behavior.Fact) bool {
			return f.Kind == behavior.File && strings.HasPrefix(f.Path, "/run/secrets/") && strings.HasSuffix(f.Path, "/token")
		}},
		{name: "read the environment of the first process", do: func(r *remote) error { return r.open("/proc/1/environ", unix.O_RDONLY) }, is: opened("/proc/1/environ", behavior.Read)},
		{name: "overwrite a program", do: func(r *remote) error { return r.open(victim, unix.O_WRONLY) }, is: opened(victim, behavior.Write)},
		{name: "put a program among the others", do: func(r *remote) error { return r.create("/usr/bin/implant", unix.O_CREAT|unix.O_WRONLY, 0o755, tiny()) }, is: opened("/usr/bin/implant", behavior.Write)},
		{name: "set a program's set-user-ID bit", do: func(r *remote) error {
			_, err := r.do(unix.SYS_CHMOD, r.text(victim), 0o4755)
			return err
		}, is: func(f behavior.Fact) bool { return f.Path == victim && f.Operation == behavior.OpChmod }},
		{name: "delete a program", do: func(r *remote) error {
			_, err := r.do(unix.SYS_UNLINK, r.text("/usr/bin/tar"))
			return err
		}, is: func(f behavior.Fact) bool { return f.Path == "/usr/bin/tar" && f.Operation == behavior.OpUnlink }},
		{name: "add a user", do: func(r *remote) error { return r.open("/etc/passwd", unix.O_WRONLY|unix.O_APPEND) }, is: opened("/etc/passwd", behavior.Write)},
		{name: "preload a library everywhere", do: func(r *remote) error {
			return r.create("/etc/ld.so.preload", unix.O_CREAT|unix.O_WRONLY, 0o644, []byte("\n"))
		}, is: opened("/etc/ld.so.preload", behavior.Write)},
		{name: "change what every shell begins with", do: func(r *remote) error { return r.open("/etc/bash.bashrc", unix.O_WRONLY|unix.O_APPEND) }, is: opened("/etc/bash.bashrc", behavior.Write)},
	}
}

func networkAttacks() []attack {
	return []attack{
		{name: bindShell, do: func(r *remote) error {
			fd, err := r.do(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			if _, err := r.do(unix.SYS_BIND, fd, r.address(listening, [4]byte{}), 16); err != nil {
				return err
			}
			if _, err := r.do(unix.SYS_LISTEN, fd, 1); err != nil {
				return err
			}
			if err := r.visit(listening); err != nil {
				return err
			}
			_, err = r.do(unix.SYS_ACCEPT4, fd, 0, 0, unix.SOCK_NONBLOCK)
			return err
		}, is: port(behavior.Ingress, listening)},
		{name: "connect to a stranger", do: func(r *remote) error { return r.connect(outside, [4]byte{203, 0, 113, 5}) }, is: port(behavior.Egress, outside)},
		{name: "ask the cloud for credentials", do: func(r *remote) error { return r.connect(80, [4]byte{169, 254, 169, 254}) }, is: func(f behavior.Fact) bool {
			return f.Kind == behavior.Network && f.Direction == behavior.Egress && f.Peer.Address.String() == "169.254.169.254"
		}},
		{name: "open a raw socket", do: func(r *remote) error {
			_, err := r.do(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
			return err
		}, is: func(f behavior.Fact) bool {
			return f.Kind == behavior.Capability && f.Name == "NET_RAW" || f.Kind == behavior.Socket && f.Type == "raw" && f.Family == "inet" || f.Kind == behavior.Network && (f.Protocol == "icmp" || f.Protocol == "raw")
		}},
		{name: "listen to every packet", do: func(r *remote) error {
			_, err := r.do(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW, 0x0300)
			return err
		}, is: func(f behavior.Fact) bool {
			return f.Kind == behavior.Capability && f.Name == "NET_RAW" || f.Kind == behavior.Socket && f.Family == "packet"
		}},
	}
}

// escapes are calls that a container is left by.
func escapes() []attack {
	call := func(name, syscall string, number uint64, args func(*remote) []uint64) attack {
		return attack{name: name, do: func(r *remote) error {
			_, err := r.do(number, args(r)...)
			return err
		}, is: calls(syscall)}
	}
	return []attack{
		call("mount a file system", "mount", unix.SYS_MOUNT, func(r *remote) []uint64 {
			return []uint64{r.text("none"), r.text("/tmp"), r.text("tmpfs"), 0, 0}
		}),
		call("make a user namespace", "unshare", unix.SYS_UNSHARE, func(*remote) []uint64 { return []uint64{unix.CLONE_NEWUSER | unix.CLONE_NEWNS} }),
		call("enter another namespace", "setns", unix.SYS_SETNS, func(*remote) []uint64 { return []uint64{0, 0} }),
		call("change the root", "pivot_root", unix.SYS_PIVOT_ROOT, func(r *remote) []uint64 { return []uint64{r.text("/tmp"), r.text("/tmp")} }),
		call("mount control groups, for a release_agent", "mount", unix.SYS_MOUNT, func(r *remote) []uint64 {
			return []uint64{r.text("cgroup"), r.text("/tmp"), r.text("cgroup"), 0, r.text("pids")}
		}),
		{name: "write core_pattern", do: func(r *remote) error { return r.open("/proc/sys/kernel/core_pattern", unix.O_WRONLY) }, is: opened("/proc/sys/kernel/core_pattern", behavior.Write)},
		call("load a kernel module", "init_module", unix.SYS_INIT_MODULE, func(r *remote) []uint64 { return []uint64{r.text("x"), 1, r.text("")} }),
		call("load a kernel module from a file", "finit_module", unix.SYS_FINIT_MODULE, func(r *remote) []uint64 { return []uint64{0, r.text(""), 0} }),
		call("load a BPF program", "bpf", unix.SYS_BPF, func(r *remote) []uint64 { return []uint64{5, r.bytes(make([]byte, 128)), 128} }),
		call("open a file by its handle", "open_by_handle_at", unix.SYS_OPEN_BY_HANDLE_AT, func(r *remote) []uint64 {
			return []uint64{^uint64(99), r.bytes([]byte{8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0}), 0}
		}),
		call("watch by perf_event_open", "perf_event_open", unix.SYS_PERF_EVENT_OPEN, func(r *remote) []uint64 { return []uint64{r.bytes(make([]byte, 128)), 0, ^uint64(0), ^uint64(0), 0} }),
		call("use the kernel's keys", "keyctl", unix.SYS_KEYCTL, func(*remote) []uint64 { return []uint64{0, ^uint64(2), 1} }),
		call("go around filters by io_uring", "io_uring_setup", unix.SYS_IO_URING_SETUP, func(r *remote) []uint64 { return []uint64{4, r.bytes(make([]byte, 120))} }),
		{name: "make a device", do: func(r *remote) error {
			_, err := r.do(unix.SYS_MKNOD, r.text("/tmp/.disk"), unix.S_IFBLK|0o600, unix.Mkdev(8, 0))
			return err
		}, is: either(calls("mknod"), func(f behavior.Fact) bool {
			return f.Kind == behavior.Capability && f.Name == "MKNOD" || f.Path == "/tmp/.disk"
		})},
		call("change the host's name", "sethostname", unix.SYS_SETHOSTNAME, func(r *remote) []uint64 { return []uint64{r.text("x"), 1} }),
	}
}

// open opens a file and closes it.
func (r *remote) open(name string, flags uint64) error {
	fd, err := r.do(unix.SYS_OPENAT, ^uint64(99), r.text(name), flags, 0) // AT_FDCWD is -100
	if err == nil {
		_, err = r.do(unix.SYS_CLOSE, fd)
	}
	return err
}

func (r *remote) create(name string, flags, mode uint64, content []byte) error {
	fd, err := r.do(unix.SYS_OPENAT, ^uint64(99), r.text(name), flags, mode)
	if err != nil {
		return err
	}
	if _, err := r.do(unix.SYS_WRITE, fd, r.bytes(content), uint64(len(content))); err != nil {
		return err
	}
	_, err = r.do(unix.SYS_CLOSE, fd)
	return err
}

func (r *remote) address(port uint16, ip [4]byte) uint64 {
	b := binary.LittleEndian.AppendUint16(nil, unix.AF_INET)
	b = binary.BigEndian.AppendUint16(b, port)
	return r.bytes(append(append(b, ip[:]...), make([]byte, 8)...))
}

// connect begins a connection; that nobody answers is no refusal.
func (r *remote) connect(port uint16, ip [4]byte) error {
	fd, err := r.do(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if _, err = r.do(unix.SYS_CONNECT, fd, r.address(port, ip), 16); errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.ENETUNREACH) {
		err = nil
	}
	return err
}

// tiny is the smallest program: it exits.
func tiny() []byte {
	const base, header = 0x400000, 64 + 56
	code := []byte{0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // mov eax, 60; xor edi, edi; syscall
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	le := binary.LittleEndian
	b = le.AppendUint16(b, 2)                        // executable
	b = le.AppendUint16(b, 62)                       // x86-64
	b = le.AppendUint32(b, 1)                        // version
	b = le.AppendUint64(b, base+header)              // entry
	b = le.AppendUint64(b, 64)                       // program headers
	b = le.AppendUint64(b, 0)                        // no sections
	b = le.AppendUint32(b, 0)                        // flags
	for _, n := range []uint16{64, 56, 1, 0, 0, 0} { // sizes and counts
		b = le.AppendUint16(b, n)
	}
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // readable, executable
	size := uint64(header + len(code))
	for _, n := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, n)
	}
	return append(b, code...)
}
