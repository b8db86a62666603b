//go:build linux

package probe

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// call makes a system call by its name. An argument is a number, a string that
// begins with a quote, or "fd:PATH" for a descriptor of a file.
func call(args []string) error {
	number, ok := syscallNumber(Arches(runtime.GOARCH)[0], args[0])
	if !ok {
		return fmt.Errorf("no such system call")
	}
	var values [6]uintptr
	var keep [][]byte
	for i, a := range args[1:] {
		if text, ok := strings.CutPrefix(a, "'"); ok {
			keep = append(keep, append([]byte(text), 0))
			values[i] = uintptr(unsafe.Pointer(&keep[len(keep)-1][0]))
			continue
		}
		if path, ok := strings.CutPrefix(a, "fd:"); ok {
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == unix.EISDIR {
				fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
			}
			if err != nil {
				return err
			}
			values[i] = uintptr(fd)
			continue
		}
		n, err := strconv.ParseInt(a, 0, 64)
		if err != nil {
			return err
		}
		values[i] = uintptr(n)
	}
	_, _, errno := unix.Syscall6(uintptr(number), values[0], values[1], values[2], values[3], values[4], values[5])
	runtime.KeepAlive(keep)
	if errno != 0 {
		return errno
	}
	return nil
}

// executable maps a file with the right to execute it, at once or later.
func executable(path string, later bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if !later {
		_, err = unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
		return err
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	return unix.Mprotect(memory, unix.PROT_READ|unix.PROT_EXEC)
}

// unixSockets binds a socket to a path, or to an abstract name that begins with
// @, and has others speak to it.
func unixSockets(path string) error {
	name := &unix.SockaddrUnix{Name: path}
	server, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(server, name); err != nil {
		return err
	}
	if err := unix.Listen(server, 1); err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return unix.Connect(client, name)
}

// unixDatagrams binds a datagram socket and sends to it without connecting, by
// sendto or sendmsg.
func unixDatagrams(path, to, how string) error {
	server, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(server, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	if how == "sendto" {
		return unix.Sendto(client, []byte("x"), 0, &unix.SockaddrUnix{Name: to})
	}
	return unix.Sendmsg(client, []byte("x"), nil, &unix.SockaddrUnix{Name: to}, 0)
}

func done(operation behavior.Operation, path string, access behavior.Access) behavior.Fact {
	f := file(path, access)
	f.Operation = operation
	return f
}

const makes = behavior.Write | behavior.Create

func TestOperations(t *testing.T) {
	p := requireProbe(t, Options{})
	hostile := "a\nb\"c'\x1b[31m\xff\\ \u202e$(id)`%s"
	const (
		rename, link, symlink, unlink = behavior.OpRename, behavior.OpLink, behavior.OpSymlink, behavior.OpUnlink
		mkdir, rmdir, mknod, truncate = behavior.OpMkdir, behavior.OpRmdir, behavior.OpMknod, behavior.OpTruncate
		chmod, chown, xattr           = behavior.OpChmod, behavior.OpChown, behavior.OpXattr
		w                             = behavior.Write
	)
	type operation struct {
		name    string
		actions []string
		want    []behavior.Fact
	}
	cases := []operation{
		{"rename has two paths", actions("call rename '/etc/config '/tmp/new"), []behavior.Fact{done(rename, "/etc/config", w), done(rename, "/tmp/new", makes)}},
		{"renameat has two descriptors", actions("call renameat fd:/etc 'config fd:/tmp 'new"), []behavior.Fact{done(rename, "/etc/config", w), done(rename, "/tmp/new", makes)}},
		{"renameat2 replaces a file", actions("call renameat2 -100 '/etc/config -100 '/etc/other 0"), []behavior.Fact{done(rename, "/etc/config", w), done(rename, "/etc/other", makes)}},
		{"link", actions("call link '/etc/config '/etc/again"), []behavior.Fact{done(link, "/etc/config", behavior.Read), done(link, "/etc/again", makes)}},
		{"linkat of a symbolic link", actions("symlink config /etc/sym", "call linkat -100 '/etc/sym -100 '/etc/again 0"), []behavior.Fact{done(link, "/etc/sym", behavior.Read), done(link, "/etc/again", makes)}},
		{"linkat through a symbolic link", actions("symlink config /etc/sym", "call linkat -100 '/etc/sym -100 '/etc/again 0x400"), []behavior.Fact{done(link, "/etc/config", behavior.Read), done(link, "/etc/again", makes)}},
		{"linkat of a descriptor", actions("call linkat fd:/etc/config ' -100 '/etc/again 0x1000"), []behavior.Fact{done(link, "/etc/config", behavior.Read), done(link, "/etc/again", makes)}},
		{"symlink says where the link is", actions("call symlink '/etc/config '/tmp/sym"), []behavior.Fact{done(symlink, "/tmp/sym", makes)}},
		{"symlinkat", actions("call symlinkat '/etc/config fd:/tmp 'sym"), []behavior.Fact{done(symlink, "/tmp/sym", makes)}},
		{"unlink", actions("call unlink '/etc/config"), []behavior.Fact{done(unlink, "/etc/config", w)}},
		{"unlink of a link removes the link", actions("symlink config /etc/sym", "call unlink '/etc/sym"), []behavior.Fact{done(unlink, "/etc/sym", w)}},
		{"unlinkat, and of a directory", actions("call unlinkat fd:/etc 'config 0", "call unlinkat -100 '/mnt 0x200"), []behavior.Fact{done(unlink, "/etc/config", w), done(rmdir, "/mnt", w)}},
		{"mkdir and rmdir", actions("call mkdir '/tmp/d/ 0755", "call rmdir '/tmp/d/"), []behavior.Fact{done(mkdir, "/tmp/d", makes), done(rmdir, "/tmp/d", w)}},
		{"mkdirat", actions("call mkdirat fd:/tmp 'd 0755"), []behavior.Fact{done(mkdir, "/tmp/d", makes)}},
		{"mknod makes a FIFO", actions("call mknod '/tmp/fifo 0010644 0"), []behavior.Fact{done(mknod, "/tmp/fifo", makes)}},
		{"mknodat", actions("call mknodat fd:/tmp 'fifo 0010644 0"), []behavior.Fact{done(mknod, "/tmp/fifo", makes)}},
		{"truncate follows links", actions("symlink config /etc/sym", "call truncate '/etc/sym 1"), []behavior.Fact{done(truncate, "/etc/config", w)}},
		{"ftruncate", actions("call ftruncate fd:/etc/config 1"), []behavior.Fact{done(truncate, "/etc/config", w)}},
		{"chmod follows links", actions("symlink config /etc/sym", "call chmod '/etc/sym 0600"), []behavior.Fact{done(chmod, "/etc/config", w)}},
		{"fchmod", actions("call fchmod fd:/etc/config 0600"), []behavior.Fact{done(chmod, "/etc/config", w)}},
		{"fchmodat", actions("call fchmodat fd:/etc 'config 0600"), []behavior.Fact{done(chmod, "/etc/config", w)}},
		{"chmod of a descriptor by its name in the process's folder", actions("descriptor 9 /etc/config", "call chmod '/proc/self/fd/9 0600"), []behavior.Fact{done(chmod, "/etc/config", w)}},
		{"chown", actions("call chown '/etc/config 7 7"), []behavior.Fact{done(chown, "/etc/config", w)}},
		{"lchown changes the link", actions("symlink config /etc/sym", "call lchown '/etc/sym 7 7"), []behavior.Fact{done(chown, "/etc/sym", w)}},
		{"fchown", actions("call fchown fd:/etc/config 7 7"), []behavior.Fact{done(chown, "/etc/config", w)}},
		{"fchownat, of a link and through it", actions("symlink config /etc/sym", "call fchownat -100 '/etc/sym 7 7 0x100", "call fchownat -100 '/etc/sym 7 7 0"), []behavior.Fact{done(chown, "/etc/sym", w), done(chown, "/etc/config", w)}},
		{"fchownat of a descriptor", actions("call fchownat fd:/etc/config ' 7 7 0x1000"), []behavior.Fact{done(chown, "/etc/config", w)}},
		{"setxattr and removexattr", actions("call setxattr '/etc/config 'trusted.x 'value 5 0", "call removexattr '/etc/../etc/config 'trusted.x"), []behavior.Fact{done(xattr, "/etc/config", w)}},
		{"lsetxattr", actions("symlink config /etc/sym", "call lsetxattr '/etc/sym 'trusted.x 'value 5 0"), []behavior.Fact{done(xattr, "/etc/sym", w)}},
		{"fsetxattr and fremovexattr", actions("call fsetxattr fd:/etc/config 'trusted.x 'value 5 0"), []behavior.Fact{done(xattr, "/etc/config", w)}},
		{"an executable mapping", actions("execmap /etc/config"), []behavior.Fact{done(behavior.OpExecMap, "/etc/config", behavior.Read)}},
		{"a mapping is made executable later", actions("execlater /etc/config"), []behavior.Fact{done(behavior.OpExecMap, "/etc/config", behavior.Read)}},
		{"a Unix socket is bound and connected to", actions("unix /tmp/socket"), []behavior.Fact{done(behavior.OpBind, "/tmp/socket", makes), done(behavior.OpConnect, "/tmp/socket", behavior.Read|w)}},
		{"a Unix socket is connected to through a link", actions("symlink tmp /tmp2", "chdir /tmp2", "unix socket"), []behavior.Fact{done(behavior.OpBind, "/tmp/socket", makes), done(behavior.OpConnect, "/tmp/socket", behavior.Read|w)}},
		{"a datagram goes to a Unix socket by sendto", actions("unixgram /tmp/socket /tmp/../tmp/socket sendto"), []behavior.Fact{done(behavior.OpBind, "/tmp/socket", makes), done(behavior.OpConnect, "/tmp/socket", behavior.Read|w)}},
		{"a datagram goes to a Unix socket by sendmsg", actions("unixgram /tmp/socket /tmp/socket sendmsg"), []behavior.Fact{done(behavior.OpConnect, "/tmp/socket", behavior.Read|w)}},

		{"a relative name is below the working directory", actions("chdir /tmp", "call mkdir 'd 0755", "call mkdir '../tmp/./e 0755"), []behavior.Fact{done(mkdir, "/tmp/d", makes), done(mkdir, "/tmp/e", makes)}},
		{"the parent is a symbolic link", actions("symlink /etc /tmp/link", "call unlink '/tmp/link/config"), []behavior.Fact{done(unlink, "/etc/config", w)}},
		{"the parent is a link that goes up", actions("mkdir /tmp/a/b", "symlink ../.. /tmp/a/b/up", "call mkdir '/tmp/a/b/up/new 0755"), []behavior.Fact{done(mkdir, "/tmp/new", makes)}},
		{"after chroot a name is still absolute in the container", actions("chroot /etc", "call unlink '/config", "chdir /", "call unlink 'other"), []behavior.Fact{done(unlink, "/etc/config", w), done(unlink, "/etc/other", w)}},
		{"after chroot a link leads below the new root", actions("mkdir /etc/tmp", "symlink /tmp /etc/link", "chroot /etc", "call mkdir '/link/d 0755"), []behavior.Fact{done(mkdir, "/etc/tmp/d", makes)}},
		{"names hold any bytes and arrive escaped", []string{"call", "mkdir", strconv.Quote("'/tmp/" + hostile), "0755", "--", "call", "mkdir", strconv.Quote("'/tmp/" + hostile + "/" + hostile), "0755"},
			[]behavior.Fact{done(mkdir, behavior.Escape("/tmp/"+hostile), makes), done(mkdir, behavior.Escape("/tmp/"+hostile+"/"+hostile), makes)}},
		{"a directory with the kernel's own mark in its name", []string{"call", "mkdir", strconv.Quote("'/tmp/x (deleted)"), "0755", "--", "call", "mkdir", strconv.Quote("'/tmp/x (deleted)/y"), "0755"},
			[]behavior.Fact{done(mkdir, behavior.Escape("/tmp/x (deleted)/y"), makes)}},
		{"the longest name and the longest path arrive whole", actions("call mkdir '/tmp/"+strings.Repeat("n", 255)+" 0755", "call unlink '/etc"+strings.Repeat("/.", 2040)+"/config"),
			[]behavior.Fact{done(mkdir, "/tmp/"+strings.Repeat("n", 255), makes), done(unlink, "/etc/config", w)}},
		{"a bind mount is its own place", actions("bind /etc /mnt", "call unlink '/mnt/config"), []behavior.Fact{done(unlink, "/mnt/config", w)}},
	}
	for _, optional := range []struct {
		call string
		operation
	}{
		{"fchmodat2", operation{"fchmodat2", actions("call fchmodat2 -100 '/etc/config 0600 0"), []behavior.Fact{done(chmod, "/etc/config", w)}}},
		{"removexattrat", operation{"removexattrat", actions("call setxattr '/etc/config 'trusted.x 'value 5 0", "symlink config /etc/sym", "call removexattrat -100 '/etc/sym 0 'trusted.x"), []behavior.Fact{done(xattr, "/etc/config", w)}}},
	} {
		if number, ok := syscallNumber(Arches(runtime.GOARCH)[0], optional.call); ok {
			if _, _, err := unix.Syscall6(uintptr(number), ^uintptr(0), 0, 0, 0, 0, 0); err != unix.ENOSYS {
				cases = append(cases, optional.operation)
				continue
			}
		}
		t.Logf("SKIPPED: the kernel has no %s", optional.call)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			records := performed(t, p, c.actions...)
			for _, want := range c.want {
				wantFact(t, records, want)
			}
			for _, r := range records {
				if r.Unresolved {
					t.Errorf("not resolved: %s", r.Fact)
				}
			}
		})
	}
}

// performed runs actions and gives their records, which are read while the
// process that acted is still there.
func performed(t *testing.T, p *Probe, actions ...string) []Record {
	t.Helper()
	if actions[len(actions)-1] != "--" {
		actions = append(slices.Clip(actions), "--")
	}
	c := newContainer(t, append(slices.Clip(actions), "pause")...)
	r := record(t, p, c.mntns)
	c.resume(t)
	r.stop()
	c.run(t)
	return r.all()
}

func TestOperationsThatFailAreNoFacts(t *testing.T) {
	p := requireProbe(t, Options{})
	records := performed(t, p, actions(
		"fails call unlink '/etc/none", "fails call mkdir '/etc 0755", "fails call rename '/etc/none '/tmp/x", "fails call rmdir '/etc",
		"fails call chmod '/none 0600", "fails call ftruncate fd:/etc 1", "fails call fchmod -1 0600", "fails call truncate '/etc 1",
		"fails call symlink 'x '/etc", "fails call setxattr '/etc/config 'none.x 'v 1 0", "fails execmap /etc", "fails call link '/etc '/tmp/x",
		"fails unixgram /tmp/socket /tmp/none sendto")...)
	for _, r := range records {
		if r.Fact.Operation != "" && r.Fact.Operation != behavior.OpExecMap && r.Fact.Operation != behavior.OpBind {
			t.Errorf("recorded: %s", r.Fact)
		}
	}
}

func TestAbstractUnixSocketHasNoPath(t *testing.T) {
	p := requireProbe(t, Options{})
	for _, r := range performed(t, p, actions("unix @name", "unixgram @other @other sendto", "unixgram @third @third sendmsg")...) {
		if r.Fact.Kind == behavior.File && (r.Fact.Operation == behavior.OpConnect || r.Fact.Operation == behavior.OpBind) {
			t.Errorf("recorded: %s", r.Fact)
		}
	}
}

// The name that a task gave means nothing once nobody is left who could say what
// was where; one in the directory that the kernel began at needs nobody.
func TestNameThatNobodyCanResolveIsSaidAndCounted(t *testing.T) {
	p := requireProbe(t, Options{})
	c := newContainer(t, actions("chdir /tmp", "call mkdir 'near 0755", "call mkdir '/tmp/far 0755")...)
	c.run(t)
	r := record(t, p, c.mntns)
	r.stop()
	wantFact(t, r.all(), done(behavior.OpMkdir, "/tmp/near", makes))
	far := wantFact(t, r.all(), done(behavior.OpMkdir, "unresolved:/tmp/far", makes))
	if !far.Unresolved {
		t.Error("not marked")
	}
	lost, err := p.Lost()
	if err != nil || lost.Namespace[c.mntns][lossUnresolved] != 1 || lost.Node[lossUnresolved] != 0 {
		t.Errorf("lost %v, %v", lost, err)
	}
	forget(t, p, c.mntns)
	if lost, err = p.Lost(); err != nil || lost.Namespace[c.mntns][lossUnresolved] != 0 {
		t.Errorf("lost %v, %v of a namespace that is forgotten", lost, err)
	}
}

func TestOperationsAreCountedNotRecordedAgain(t *testing.T) {
	p := requireProbe(t, Options{})
	line := "call chmod '/etc/config 0600"
	n := 0
	for _, r := range performed(t, p, actions(line, line, line, "call chmod '/etc/other 0600")...) {
		if r.Fact == done(behavior.OpChmod, "/etc/config", behavior.Write) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("recorded %d times", n)
	}
}
