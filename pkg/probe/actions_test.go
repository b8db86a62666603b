//go:build linux

package probe

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// runActions does in a container what the words say; "--" ends an action. Words
// are quoted as in Go, so that they can hold any byte but NUL.
func runActions(words []string) error {
	runtime.LockOSThread()
	for len(words) > 0 {
		end := slices.Index(words, "--")
		if end < 0 {
			end = len(words)
		}
		var args []string
		for _, w := range words[:end] {
			if u, err := strconv.Unquote(w); err == nil {
				w = u
			}
			args = append(args, w)
		}
		if err := runAction(args); err != nil {
			return fmt.Errorf("%q: %w", args, err)
		}
		words = words[min(end+1, len(words)):]
	}
	return nil
}

func runAction(args []string) error {
	switch args[0] {
	case "true":
		return nil
	case "read":
		return open(args[1], unix.O_RDONLY)
	case "write":
		return open(args[1], unix.O_WRONLY)
	case "create":
		return open(args[1], unix.O_RDWR|unix.O_CREAT)
	case "list":
		return open(args[1], unix.O_RDONLY|unix.O_DIRECTORY)
	case "path":
		return open(args[1], unix.O_PATH)
	case "openat2":
		fd, err := unix.Openat2(unix.AT_FDCWD, args[1], &unix.OpenHow{Flags: unix.O_RDONLY})
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case "many": // many DIR N: creates N files
		n, err := strconv.Atoi(args[2])
		for i := 0; i < n && err == nil; i++ {
			err = open(fmt.Sprintf("%s/file-%06d", args[1], i), unix.O_RDWR|unix.O_CREAT)
		}
		return err
	case "deep": // deep DIR NAME N: goes down N directories, then creates "leaf"
		return deep(args[1], args[2], args[3])
	case "chdir":
		return os.Chdir(args[1])
	case "chroot":
		return unix.Chroot(args[1])
	case "mkdir":
		return os.MkdirAll(args[1], 0o755)
	case "symlink":
		return os.Symlink(args[1], args[2])
	case "bind":
		return unix.Mount(args[1], args[2], "", unix.MS_BIND, "")
	case "tmpfs":
		return unix.Mount("tmpfs", args[1], "tmpfs", 0, "")
	case "detach": // detach DIR FILE: reads FILE below a mount that it took away
		return detach(args[1], args[2])
	case "unlinked": // unlinked FILE: reads a file that has no name any more
		return unlinked(args[1])
	case "script": // script FILE: whose interpreter is /bin/tool
		return os.WriteFile(args[1], []byte("#!/bin/tool true\n"), 0o755)
	case "interpreted": // interpreted FILE INTERPRETER: a script with that interpreter
		return os.WriteFile(args[1], []byte("#!"+args[2]+"\n"), 0o755)
	case "run":
		return run(args[1], args[2:]...)
	case "fexecve": // fexecve FILE ARGUMENTS: starts it by a descriptor alone
		return startDescriptor(args[1], args[2:])
	case "replaced": // replaced FILE ARGUMENTS: starts a copy of the program that has no name any more
		return startDeleted(args[1], args[2:])
	case "binfmt": // binfmt FLAGS FILE: starts a file for which an interpreter is registered
		return startMisc(args[1], args[2])
	case "registered":
		return registerMisc(args[1], args[2])
	case "memfd":
		return runMemfd(args[1:]...)
	case "tcp":
		return tcp(netip.MustParseAddrPort(args[1]))
	case "udp":
		return udp(netip.MustParseAddrPort(args[1]))
	case "lookup": // connects a UDP socket and sends nothing, as resolvers do
		addr, family := sockaddr(netip.MustParseAddrPort(args[1]))
		fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		return unix.Connect(fd, addr)
	case "call": // call NAME ARGUMENTS: a system call
		return call(args[1:])
	case "ring": // ring NUMBER ...: an io_uring request
		return viaRing(args[1:])
	case "fails":
		if runAction(args[1:]) == nil {
			return fmt.Errorf("it succeeded")
		}
		return nil
	case "descriptor": // descriptor N FILE: opens it as that number
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		fd, err := unix.Open(args[2], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return unix.Dup3(fd, n, 0)
	case "execmap":
		return executable(args[1], false)
	case "execlater":
		return executable(args[1], true)
	case "unix":
		return unixSockets(args[1])
	case "unixgram":
		return unixDatagrams(args[1], args[2], args[3])
	case "drop":
		return dropCapability(args[1])
	case "refused":
		if err := runAction(args[1:]); err != unix.EPERM {
			return fmt.Errorf("error is %v, not EPERM", err)
		}
		return nil
	case "rejoin", "join-net": // joins the namespace that it is in, then acts
		return rejoin(map[string]string{"rejoin": "mnt", "join-net": "net"}[args[0]], args[1:])
	case "orphan": // has a child act once it has ended itself
		return startOrphan(args[1:])
	case "orphaned":
		return orphaned(args[1], args[2:])
	case "thread":
		return inThread(func() error { return runAction(args[1:]) })
	case "unshare": // what follows is done in a mount namespace of its own
		return unix.Unshare(unix.CLONE_NEWNS)
	case "pause": // until the test says go on
		fmt.Println("paused")
		_, err := os.Stdin.Read(make([]byte, 3))
		return err
	case "bench": // bench WHAT N: prints nanoseconds each
		return bench(args[1], args[2])
	}
	return runLossAction(args)
}

func bench(what, times string) error {
	n, err := strconv.Atoi(times)
	var begin, end unix.Timespec // of this thread's processor: others share the machine
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &begin); err != nil {
		return err
	}
	for i := 0; i < n && err == nil; i++ {
		if what == "getpid" {
			unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		} else {
			err = open("/etc/config", unix.O_RDONLY)
		}
	}
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &end); err != nil {
		return err
	}
	fmt.Println(float64(end.Nano()-begin.Nano()) / float64(n))
	return err
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func deep(dir, name, depth string) error {
	n, err := strconv.Atoi(depth)
	if err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	for range n {
		if err := unix.Mkdir(name, 0o755); err != nil && err != unix.EEXIST {
			return err
		}
		if err := unix.Chdir(name); err != nil {
			return err
		}
	}
	return open("leaf", unix.O_RDWR|unix.O_CREAT)
}

func detach(dir, file string) error {
	fd, err := unix.Open(dir, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return err
	}
	f, err := unix.Openat(fd, file, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return unix.Close(f)
}

func unlinked(file string) error {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_CREAT, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Unlink(file); err != nil {
		return err
	}
	return open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY)
}

func run(path string, args ...string) error {
	p, err := os.StartProcess(path, append([]string{path}, args...), &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %s", path, state)
	}
	return err
}

func runMemfd(args ...string) error {
	fd, err := unix.MemfdCreate("payload", 0)
	if err != nil {
		return err
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(fmt.Sprintf("/proc/self/fd/%d", fd), program, 0); err != nil {
		return err
	}
	return run(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), args...)
}

func sockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, unix.AF_INET6
}

// tcp listens, connects to itself and accepts. A v4-mapped address is connected
// to from a v6 socket while the listener is a v4 one.
func tcp(a netip.AddrPort) error {
	server, family := sockaddr(netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	l, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(l, server); err != nil {
		return err
	}
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	client, family := sockaddr(a)
	c, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, client); err != nil && err != unix.EINPROGRESS {
		return err
	}
	_, _, err = unix.Accept(l)
	return err
}

// udp has a server at a, a client that sends without connecting, one that
// connects, and replies to both.
func udp(a netip.AddrPort) error {
	addr, family := sockaddr(a)
	server, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(server, addr); err != nil {
		return err
	}
	for _, connected := range []bool{false, true} {
		client, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		if connected {
			if err = unix.Connect(client, addr); err == nil {
				_, err = unix.Write(client, []byte("ask"))
			}
		} else {
			err = unix.Sendto(client, []byte("ask"), 0, addr)
		}
		if err != nil {
			return err
		}
		buffer := make([]byte, 10)
		_, from, err := unix.Recvfrom(server, buffer, 0)
		if err != nil {
			return err
		}
		if err := unix.Sendto(server, []byte("answer"), 0, from); err != nil {
			return err
		}
		if _, _, err := unix.Recvfrom(client, buffer, 0); err != nil {
			return err
		}
	}
	return nil
}

func dropCapability(name string) error {
	number := slices.Index(capabilityNames(), strings.ToUpper(name))
	if number < 0 {
		return syscall.EINVAL
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[number/32].Effective &^= 1 << (number % 32)
	return unix.Capset(&header, &data[0])
}
