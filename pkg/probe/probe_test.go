//go:build linux

package probe

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func file(path string, access behavior.Access) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: "/bin/app", Path: path, Access: access}
}

func deleted(f behavior.Fact) behavior.Fact {
	f.Deleted = true
	return f
}

func socket(direction behavior.Direction, protocol string, port uint16, peer string) behavior.Fact {
	f := behavior.Fact{Kind: behavior.Network, Exe: "/bin/app", Direction: direction, Protocol: protocol, Port: port}
	if peer != "" {
		f.Peer.Address = netip.MustParseAddr(peer)
	}
	return f
}

func actions(lines ...string) []string {
	var words []string
	for _, line := range lines {
		words = append(append(words, strings.Fields(line)...), "--")
	}
	return words
}

// Everything that a container does here is done for real, in namespaces of its
// own, and must come back as these facts.
func TestFacts(t *testing.T) {
	long := strings.Repeat("n", 255)
	hostile := "a\nb\"c'\x1b[31m\xff\\ \u202e\u200b$(id)`%s"
	process := func(path, parent string) behavior.Fact {
		return behavior.Fact{Kind: behavior.Process, Path: path, Parent: parent}
	}
	capability := func(name, syscall string, refused bool) behavior.Fact {
		return behavior.Fact{Kind: behavior.Capability, Exe: "/bin/app", Name: name, Syscall: syscall, Refused: refused}
	}
	p := requireProbe(t, Options{RingBytes: 16 << 20}) // a record of each directory on the way down to the deepest
	depth := 2000
	if !p.walksDeep {
		depth = 500
	}
	cases := []struct {
		name    string
		actions []string
		want    []behavior.Fact
		never   func(Record) bool
	}{
		{
			name:    "an entrypoint has no parent, and what it starts has it as parent",
			actions: actions("run /bin/tool run /bin/app true"),
			want:    []behavior.Fact{process("/bin/app", ""), process("/bin/tool", "/bin/app"), process("/bin/app", "/bin/tool")},
		},
		{
			name:    "a script is started as well as its interpreter, and named by where it is",
			actions: actions("script /tmp/script", "symlink script /tmp/link", "run /tmp/link"),
			want: []behavior.Fact{process("/bin/tool", "/bin/app"),
				{Kind: behavior.Process, Path: "/tmp/script", Interpreter: "/bin/tool", Parent: "/bin/app"}},
			never: func(r Record) bool {
				return r.Fact.Path == "/tmp/link" && r.Fact.Operation == "" || r.Fact.Kind == behavior.Process && r.Script != (r.Fact.Path == "/tmp/script")
			},
		},
		{
			name:    "a file is named by where it is, not by the symlink it was opened through",
			actions: actions("symlink /etc/config /tmp/link", "read /tmp/link"),
			want:    []behavior.Fact{file("/etc/config", behavior.Read)},
			never:   func(r Record) bool { return r.Fact.Path == "/tmp/link" && r.Fact.Operation == "" },
		},
		{
			name:    "a relative path is resolved",
			actions: actions("chdir /tmp", "read ../etc/./config"),
			want:    []behavior.Fact{file("/etc/config", behavior.Read)},
		},
		{
			name:    "a file is named by the mount it was opened through",
			actions: actions("read /etc/config", "bind /etc /mnt", "read /mnt/config"),
			want:    []behavior.Fact{file("/etc/config", behavior.Read), file("/mnt/config", behavior.Read)},
		},
		{
			name:    "after chroot a path is still absolute in the container",
			actions: actions("chroot /etc", "read /config"),
			want:    []behavior.Fact{file("/etc/config", behavior.Read)},
		},
		{
			name:    "reading, writing and creating are told apart",
			actions: actions("read /etc/config", "write /etc/config", "create /tmp/new", "create /tmp/new"),
			want: []behavior.Fact{
				file("/etc/config", behavior.Read), file("/etc/config", behavior.Write),
				file("/tmp/new", behavior.Read|behavior.Write|behavior.Create), file("/tmp/new", behavior.Read|behavior.Write),
			},
		},
		{
			name:    "a directory that is listed is read, and has no trailing slash",
			actions: actions("list /etc", "list /"),
			want:    []behavior.Fact{file("/etc", behavior.Read), file("/", behavior.Read)},
			never:   func(r Record) bool { return (r.Fact.Path == "/etc" || r.Fact.Path == "/") && !r.Directory },
		},
		{
			name:    "a path that is only resolved is not a file that was opened",
			actions: actions("path /etc/config", "openat2 /etc/other"),
			want:    []behavior.Fact{file("/etc/other", behavior.Read)},
			never:   func(r Record) bool { return r.Fact.Path == "/etc/config" },
		},
		{
			name:    "a file without a name is where it was, and marked",
			actions: actions("unlinked /tmp/gone"),
			want:    []behavior.Fact{file("/tmp/gone", behavior.Read|behavior.Write|behavior.Create), deleted(file("/tmp/gone", behavior.Read))},
			never:   func(r Record) bool { return r.Fact.Deleted != r.Deleted },
		},
		{
			name:    "a file below a mount that was taken away does not look like another file",
			actions: actions("tmpfs /mnt", "create /mnt/secret", "detach /mnt secret"),
			want:    []behavior.Fact{file("detached:/secret", behavior.Read)},
			never:   func(r Record) bool { return r.Fact.Path == "/secret" },
		},
		{
			name:    "a program in memory is the container's own, not its runtime",
			actions: actions("memfd read /etc/config"),
			want: []behavior.Fact{
				process("memfd:payload", "/bin/app"),
				{Kind: behavior.File, Exe: "memfd:payload", Path: "/etc/config", Access: behavior.Read},
			},
		},
		{
			name:    "names hold any bytes and arrive escaped",
			actions: []string{"create", strconv.Quote("/tmp/" + hostile)},
			want:    []behavior.Fact{file(behavior.Escape("/tmp/"+hostile), behavior.Read|behavior.Write|behavior.Create)},
		},
		{
			name:    "the longest names in a path of 4,095 bytes arrive whole",
			actions: []string{"deep", "/tmp", strconv.Quote(long), "15", "--", "create", strings.Repeat("e", 250)},
			want: []behavior.Fact{
				file("/tmp"+strings.Repeat("/"+long, 15)+"/leaf", behavior.Read|behavior.Write|behavior.Create),
				file("/tmp"+strings.Repeat("/"+long, 15)+"/"+strings.Repeat("e", 250), behavior.Read|behavior.Write|behavior.Create),
			},
			never: func(r Record) bool { return r.Truncated },
		},
		{
			name:    "as deep as PATH_MAX allows arrives whole, and 500 where there is no bpf_loop",
			actions: actions(fmt.Sprintf("deep /tmp d %d", depth)),
			want:    []behavior.Fact{file("/tmp"+strings.Repeat("/d", depth)+"/leaf", behavior.Read|behavior.Write|behavior.Create)},
			never:   func(r Record) bool { return r.Truncated },
		},
		{
			name:    "TCP over IPv4",
			actions: actions("tcp 127.0.0.1:8080"),
			want: []behavior.Fact{
				socket(behavior.Listen, "tcp", 8080, ""), socket(behavior.Egress, "tcp", 8080, "127.0.0.1"), socket(behavior.Ingress, "tcp", 8080, "127.0.0.1"),
			},
		},
		{
			name:    "TCP over IPv6",
			actions: actions("tcp [::1]:8080"),
			want: []behavior.Fact{
				socket(behavior.Listen, "tcp", 8080, ""), socket(behavior.Egress, "tcp", 8080, "::1"), socket(behavior.Ingress, "tcp", 8080, "::1"),
			},
		},
		{
			name:    "an IPv4 peer of an IPv6 socket is an IPv4 peer",
			actions: actions("tcp [::ffff:127.0.0.1]:8080"),
			want:    []behavior.Fact{socket(behavior.Egress, "tcp", 8080, "127.0.0.1")},
			never:   func(r Record) bool { return r.Fact.Peer.Address.Is4In6() },
		},
		{
			name:    "UDP over IPv4: who spoke first, and no replies",
			actions: actions("udp 127.0.0.1:5300"),
			want: []behavior.Fact{
				socket(behavior.Listen, "udp", 5300, ""), socket(behavior.Egress, "udp", 5300, "127.0.0.1"), socket(behavior.Ingress, "udp", 5300, "127.0.0.1"),
			},
			never: func(r Record) bool { return r.Fact.Kind == behavior.Network && r.Fact.Port != 5300 },
		},
		{
			name:    "UDP over IPv6: who spoke first, and no replies",
			actions: actions("udp [::1]:5300"),
			want: []behavior.Fact{
				socket(behavior.Listen, "udp", 5300, ""), socket(behavior.Egress, "udp", 5300, "::1"), socket(behavior.Ingress, "udp", 5300, "::1"),
			},
			never: func(r Record) bool { return r.Fact.Kind == behavior.Network && r.Fact.Port != 5300 },
		},
	}
	if p.Features().Missing["note_capability"] == "" {
		cases = append(cases, struct {
			name    string
			actions []string
			want    []behavior.Fact
			never   func(Record) bool
		}{
			name:    "a capability that was used, and one that was refused",
			actions: actions("chroot /", "drop SYS_CHROOT", "refused chroot /"),
			want:    []behavior.Fact{capability("SYS_CHROOT", "chroot", false), capability("SYS_CHROOT", "chroot", true)},
			// mmap, brk and clone ask for it in passing all the time.
			never: func(r Record) bool {
				return r.Fact.Name == "SYS_ADMIN" && slices.Contains([]string{"mmap", "brk", "clone", "execve", "mprotect"}, r.Fact.Syscall)
			},
		})
	} else {
		t.Logf("SKIPPED: capabilities: %s", p.Features().Missing["note_capability"])
	}
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	inCgroup := regexp.MustCompile(`(?m)^(0:|[0-9]+:memory):/.+$`).Match(cgroups)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, records := observe(t, p, c.actions...)
			for _, want := range c.want {
				wantFact(t, records, want)
			}
			seen := map[behavior.Fact]bool{}
			for _, r := range records {
				if c.never != nil && c.never(r) {
					t.Errorf("this must not be: %+v", r)
				}
				if seen[r.Fact] && !r.Fact.Runtime {
					t.Errorf("recorded twice: %s", r.Fact)
				}
				seen[r.Fact] = true
				if r.ID == 0 || r.Time.IsZero() || r.PID == 0 || inCgroup && len(r.CgroupNames) == 0 {
					t.Errorf("not filled in: %+v", r)
				}
			}
		})
	}
	for reason, n := range allLost(t, p) {
		if strings.Contains(reason, "path") && reason != lossUnresolved || strings.Contains(reason, "map") || strings.Contains(reason, "ring") {
			t.Errorf("lost %d: %s", n, reason)
		}
	}
}

func TestConnectedSocketThatSendsNothingIsNoFact(t *testing.T) {
	p := requireProbe(t, Options{})
	_, records := observe(t, p, actions("lookup 127.0.0.1:65535", "lookup [::1]:443")...)
	for _, r := range records {
		if r.Fact.Kind == behavior.Network {
			t.Errorf("recorded: %s", r.Fact)
		}
	}
}

func TestWhatIsKnownIsCountedNotRecorded(t *testing.T) {
	p := requireProbe(t, Options{})
	_, records := observe(t, p, actions("read /etc/config", "read /etc/config", "read /etc/config")...)
	r := wantFact(t, records, file("/etc/config", behavior.Read))
	var counted uint64
	err := p.Counts(func(id, count uint64, first, last time.Time) {
		if id == r.ID {
			counted = count
			if last.Before(first) || first.Sub(r.Time).Abs() > time.Minute {
				t.Errorf("first %v, last %v of a record at %v", first, last, r.Time)
			}
		}
	})
	if err != nil || counted != 3 {
		t.Errorf("counted %d times, %v; want 3", counted, err)
	}
}

func TestForgottenNamespaceIsRecordedAnew(t *testing.T) {
	p := requireProbe(t, Options{})
	c := newContainer(t, actions("read /etc/config", "pause", "read /etc/config")...)
	r := record(t, p, c.mntns)
	c.resume(t)
	forget(t, p, c.mntns)
	c.run(t)
	r.stop()
	n := 0
	for _, rec := range r.all() {
		if rec.Fact == file("/etc/config", behavior.Read) {
			n++
		}
	}
	if n != 2 {
		t.Errorf("recorded %d times, want 2", n)
	}
}

// The kernel gives the inode number of a namespace that is gone to the next one;
// what the first did must not hide what the next does.
func TestNamespaceThatHasTheNumberOfOneThatIsGoneIsRecordedAnew(t *testing.T) {
	p := requireProbe(t, Options{})
	root := newRoot(t)
	used := map[uint32]uint32{}
	for range 50 {
		c := startContainer(t, root, actions("read /etc/config")...)
		r := record(t, p, c.mntns)
		c.run(t)
		r.stop()
		wantFact(t, r.all(), file("/etc/config", behavior.Read))
		before, again := used[c.mntns]
		if !again {
			used[c.mntns] = r.all()[0].Generation
			continue
		}
		// The one that is gone; and once more, as one who comes late would.
		for range 2 {
			if err := p.Forget(c.mntns, before); err != nil {
				t.Fatal(err)
			}
			all, err := p.Syscalls()
			if err != nil || len(all[c.mntns]) == 0 {
				t.Fatalf("system calls of the later one are forgotten: %v, %v", all, err)
			}
			for _, s := range all[c.mntns] {
				if s.Generation == before {
					t.Error("those of the one that is gone are not")
				}
			}
		}
		return
	}
	t.Skip("SKIPPED: the kernel used no number twice")
}

// forget drops all namespaces that have had the number.
func forget(t *testing.T, p *Probe, mntns uint32) {
	t.Helper()
	numbers, err := p.numbers(mntns)
	if err != nil || len(numbers) == 0 {
		t.Fatalf("numbers of %d: %v, %v", mntns, numbers, err)
	}
	for _, number := range numbers {
		if err := p.Forget(mntns, uint32(number>>32)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIgnoredNamespaceIsNotObserved(t *testing.T) {
	p := requireProbe(t, Options{})
	c := newContainer(t, actions("read /etc/config")...)
	if err := p.Ignore(c.mntns); err != nil {
		t.Fatal(err)
	}
	r := record(t, p, c.mntns)
	c.run(t)
	r.stop()
	if records := r.all(); len(records) > 0 {
		t.Errorf("recorded %+v", records)
	}
}

func TestSyscallsTellContainerFromRuntime(t *testing.T) {
	p := requireProbe(t, Options{})
	c, records := observe(t, p, actions("chroot /etc")...)
	all, err := p.Syscalls()
	if err != nil {
		t.Fatal(err)
	}
	sets := map[bool][]string{}
	for _, set := range all[c.mntns] {
		if set.Arch == Arches(runtime.GOARCH)[0] {
			sets[set.Runtime] = set.Names
		}
	}
	for _, want := range []struct {
		name         string
		runtime, own bool
	}{{"pivot_root", true, false}, {"execve", true, false}, {"chroot", false, true}, {"exit_group", false, true}} {
		if got := slices.Contains(sets[true], want.name); got != want.runtime {
			t.Errorf("%s called by the runtime: %t", want.name, got)
		}
		if got := slices.Contains(sets[false], want.name); got != want.own {
			t.Errorf("%s called by the container: %t", want.name, got)
		}
	}
	if !slices.ContainsFunc(records, func(r Record) bool { return r.Fact.Runtime && r.Fact.Exe == "" }) {
		t.Error("nothing was recorded of the runtime")
	}
}

func TestNamespaceMadeByTheContainerIsTheContainers(t *testing.T) {
	p := requireProbe(t, Options{})
	c := newContainer(t, actions("unshare", "read /etc/config")...)
	r := record(t, p, 0)
	c.run(t)
	r.stop()
	found := false
	for _, rec := range r.all() {
		if rec.MountNS != c.mntns && rec.Fact.Path == "/etc/config" && rec.Fact.Exe == "outside:/bin/app" {
			found = !rec.Fact.Runtime
		}
	}
	if !found {
		t.Error("not recorded, or as the runtime's")
	}
}
