//go:build linux

package collector

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// holderEnv makes the test binary a process that holds things.
const holderEnv = "AUTOPOLICY_TEST_HOLD"

func TestMain(m *testing.M) {
	if os.Getenv(confinedEnv) != "" {
		json.NewEncoder(os.Stdout).Encode(runConfined())
		return
	}
	if play() {
		return
	}
	if dir := os.Getenv(holderEnv); dir != "" {
		hold(dir)
		return
	}
	os.Exit(m.Run())
}

// hostile is a file name that breaks what prints it.
const hostile = "a\nb \x1b[31m\"'\\ (deleted)"

// hold opens files and sockets, says so, and waits until its input ends.
func hold(dir string) {
	read, _ := os.Open(filepath.Join(dir, "read"))
	write, _ := os.OpenFile(filepath.Join(dir, hostile), os.O_RDWR|os.O_CREATE, 0o600)
	if mapped, err := os.Open(filepath.Join(dir, "mapped")); err == nil {
		syscall.Mmap(int(mapped.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_EXEC, syscall.MAP_PRIVATE)
		mapped.Close()
	}
	gone, _ := os.Create(filepath.Join(dir, "gone"))
	os.Remove(filepath.Join(dir, "gone"))
	tcp, _ := net.Listen("tcp", "127.0.0.1:0")
	peer, _ := net.Dial("tcp", tcp.Addr().String())
	served, _ := tcp.Accept()
	udp, _ := net.Dial("udp", "[::1]:5353")
	path, _ := net.Listen("unix", filepath.Join(dir, "socket"))
	raw, _ := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	packet, _ := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
	defer syscall.Close(raw)
	defer syscall.Close(packet)
	os.Stdout.WriteString(tcp.Addr().String() + "\n")
	io.Copy(io.Discard, os.Stdin)
	for _, c := range []io.Closer{read, write, gone, tcp, peer, served, udp, path} {
		if c != nil {
			c.Close()
		}
	}
}

// startHolder runs the test binary as a holder and gives its PID and port.
func startHolder(t *testing.T, dir string) (int, netip.AddrPort) {
	t.Helper()
	holder := exec.Command("/proc/self/exe")
	holder.Env = append(os.Environ(), holderEnv+"="+dir)
	line := startHolding(t, holder)
	return holder.Process.Pid, netip.MustParseAddrPort(strings.TrimSpace(line))
}

// startHolding starts a holder, which lives as long as the test, and gives the first line
// that it writes.
func startHolding(t *testing.T, holder *exec.Cmd) string {
	t.Helper()
	input, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		input.Close()
		holder.Wait()
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func TestASnapshotShowsWhatAProcessHolds(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root: the program that is looked at opens raw sockets")
	}
	for name, content := range map[string][]byte{"read": nil, "mapped": make([]byte, 8192)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pid, address := startHolder(t, dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		t.Fatal(err)
	}
	s := proc{"/proc"}.snapshot(containerInfo{}, []int{os.Getpid(), pid}, always)
	exe := behavior.Escape(self)
	local, loopback6 := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")
	for name, want := range map[string]behavior.Fact{
		"the program and its parent":        {Kind: behavior.Process, Path: exe, Parent: exe},
		"a parent outside of the container": {Kind: behavior.Process, Path: exe},
		"a file that is read":               {Kind: behavior.File, Exe: exe, Path: behavior.Escape(dir + "/read"), Access: behavior.Read},
		"a file with a hostile name":        {Kind: behavior.File, Exe: exe, Path: behavior.Escape(dir + "/" + hostile), Access: behavior.Read | behavior.Write},
		"a file that has no name any more":  {Kind: behavior.File, Exe: exe, Path: behavior.Escape(dir + "/gone"), Access: behavior.Read | behavior.Write},
		"a socket that listens":             {Kind: behavior.Network, Exe: exe, Direction: behavior.Listen, Protocol: "tcp", Port: address.Port()},
		"a connection from a client":        {Kind: behavior.Network, Exe: exe, Direction: behavior.Ingress, Protocol: "tcp", Port: address.Port(), Peer: behavior.Peer{Address: local}},
		"a connection to a server":          {Kind: behavior.Network, Exe: exe, Direction: behavior.Egress, Protocol: "tcp", Port: address.Port(), Peer: behavior.Peer{Address: local}},
		"a mapped file":                     {Kind: behavior.File, Exe: exe, Path: behavior.Escape(dir + "/mapped"), Access: behavior.Read},
		"a file that is mapped as code":     {Kind: behavior.File, Exe: exe, Path: behavior.Escape(dir + "/mapped"), Access: behavior.Read, Operation: behavior.OpExecMap},
		"a Unix socket that listens":        {Kind: behavior.File, Exe: exe, Path: behavior.Escape(dir + "/socket"), Access: behavior.Write | behavior.Create, Operation: behavior.OpBind},
		"a raw socket":                      {Kind: behavior.Socket, Exe: exe, Family: "inet", Type: "raw", Protocol: "icmp"},
		"a packet socket":                   {Kind: behavior.Socket, Exe: exe, Family: "packet", Type: "raw"},
		"a connected datagram socket":       {Kind: behavior.Network, Exe: exe, Direction: behavior.Egress, Protocol: "udp", Port: 5353, Peer: behavior.Peer{Address: loopback6}},
	} {
		t.Run(name, func(t *testing.T) {
			if !s.facts[want] {
				t.Errorf("%s is missing", want)
			}
			if want.Kind != behavior.Process && !s.parents[want][exe] {
				t.Errorf("the parents of %s are %v", want, s.parents[want])
			}
		})
	}
	for f := range s.facts {
		if err := f.Validate(); err != nil {
			t.Error(err)
		}
	}
	if len(s.lost) > 0 {
		t.Errorf("lost %v", s.lost)
	}
}

func TestMappedLibrariesAndTheLinkerOfADynamicProgram(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("needs a dynamic program: no sleep on this machine")
	}
	held := exec.Command(sleep, "60")
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		held.Process.Kill()
		held.Wait()
	})
	p := proc{"/proc"}
	linker, err := resolveInterpreter(p.path(held.Process.Pid, "root"), sleep)
	if err != nil {
		t.Fatal(err)
	}
	if linker == "" {
		t.Skip("needs a dynamic program: sleep is static on this machine")
	}
	if real, err := filepath.EvalSymlinks(linker); err != nil || real != linker {
		t.Errorf("linker %s is not resolved (%s, %v)", linker, real, err)
	}
	exe, err := filepath.EvalSymlinks(sleep)
	if err != nil {
		t.Fatal(err)
	}
	want := behavior.Fact{Kind: behavior.File, Exe: exe, Path: linker, Access: behavior.Read}
	var s snapshot
	if !poll(t, func() bool {
		s = p.snapshot(containerInfo{}, []int{held.Process.Pid}, always)
		return s.facts[want]
	}) {
		t.Errorf("snapshot lacks %s: %v", want, s.facts)
	}
}

// poll tries until it succeeds or the test's patience ends.
func poll(t *testing.T, ok func() bool) bool {
	t.Helper()
	for range 2000 {
		if ok() {
			return true
		}
		// A program that was just started needs the processor.
		os.ReadFile("/proc/self/stat")
	}
	return false
}

func TestALinkIsResolvedInsideTheRootOnly(t *testing.T) {
	root := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "absolute")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../../../.."+outside, filepath.Join(root, "relative")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/absolute", "/relative", "/../../../../../../.." + outside} {
		if f, err := openRegular(root, name); err == nil {
			f.Close()
			t.Errorf("%s led out of the root", name)
		}
	}
}

func TestSocketLines(t *testing.T) {
	for name, c := range map[string]struct {
		protocol, line string
		want           socket
		ok             bool
	}{
		"version 4": {"tcp", "   0: 0100007F:1F90 0200000A:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0000 100 0 0 10 0",
			socket{protocol: "tcp", local: netip.MustParseAddrPort("127.0.0.1:8080"), remote: netip.MustParseAddrPort("10.0.0.2:50000"), state: established, inode: 12345}, true},
		"version 6": {"tcp", "   1: 00000000000000000000000001000000:0035 B80D0120000000000000000001000000:0050 0A 0:0 0:0 0 0 0 7 1",
			socket{protocol: "tcp", local: netip.MustParseAddrPort("[::1]:53"), remote: netip.MustParseAddrPort("[2001:db8::1]:80"), state: listening, inode: 7}, true},
		"a mapped address becomes version 4": {"udp", "   1: 0000000000000000FFFF00000100007F:0035 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 7 1",
			socket{protocol: "udp", local: netip.MustParseAddrPort("127.0.0.1:53"), remote: netip.MustParseAddrPort("[::]:0"), state: unconnected, inode: 7}, true},
		"the heading": {"tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode", socket{}, false},
		"a cut line":  {"tcp", "   0: 0100007F:1F90", socket{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := parseSocket(c.protocol, c.line)
			if ok != c.ok || ok && got != c.want {
				t.Errorf("got %+v, %t", got, ok)
			}
		})
	}
}

func FuzzParseSocket(f *testing.F) {
	f.Add("   0: 0100007F:1F90 0200000A:C350 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseSocket("tcp", line); ok && (!s.local.IsValid() || !s.remote.IsValid()) {
			t.Errorf("accepted with invalid addresses: %+v", s)
		}
	})
}

func TestTheNameOfAMapping(t *testing.T) {
	got := []string{mapName("00400000-00452000"), mapName("7f00-8000"), mapName("0-1000")}
	if want := []string{"400000-452000", "7f00-8000", "0-1000"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnixAndPacketLines(t *testing.T) {
	for name, c := range map[string]struct {
		table, line string
		want        socket
		ok          bool
	}{
		"one that listens":          {"unix", "ffff9b4e1: 00000002 00000000 00010000 0001 01 12345 /run/a b.sock", socket{path: "/run/a b.sock", inode: 12345}, true},
		"a datagram socket":         {"unix", "ffff9b4e1: 00000002 00000000 00000000 0002 01    77 /dev/log", socket{path: "/dev/log", inode: 77}, true},
		"one that was accepted":     {"unix", "ffff9b4e1: 00000003 00000000 00000000 0001 03 12346 /run/a.sock", socket{}, false},
		"one without a name":        {"unix", "ffff9b4e1: 00000003 00000000 00010000 0001 01 12346", socket{}, false},
		"an abstract name":          {"unix", "ffff9b4e1: 00000003 00000000 00010000 0001 01 12346 @name", socket{}, false},
		"the heading":               {"unix", "Num       RefCount Protocol Flags    Type St Inode Path", socket{}, false},
		"the rest of a hostile one": {"unix", "b.sock", socket{}, false},
		"a packet socket":           {"packet", "ffff9b4e1 3      3    0003   0     1 0      0      15120", socket{family: "packet", kind: "raw", inode: 15120}, true},
		"the heading of packets":    {"packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode", socket{}, false},
		"a raw socket": {"raw6", "   1: 00000000000000000000000000000000:003A 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 7 1",
			socket{family: "inet6", kind: "raw", protocol: "icmpv6", inode: 7}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := parseLine(c.table, c.line); ok != c.ok || got != c.want {
				t.Errorf("got %+v, %t", got, ok)
			}
		})
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(0, "ffff9b4e1: 00000002 00000000 00010000 0001 01 12345 /run/a.sock")
	f.Add(1, "ffff9b4e1 3      3    0003   0     1 0      0      15120")
	f.Fuzz(func(t *testing.T, table int, line string) {
		name := []string{"unix", "packet", "raw", "udp6"}[uint(table)%4]
		if s, ok := parseLine(name, line); ok && name == "unix" && !strings.HasPrefix(s.path, "/") {
			t.Errorf("accepted %+v", s)
		}
	})
}

func TestAProcessThatEnteredBeforeIsToldFromTheContainersOwn(t *testing.T) {
	procs := newFakeProc(t)
	add := func(pid, parent, began int, pidNS, cmdline string) {
		name := fmt.Sprint(pid)
		procs.write(name+"/stat", fmt.Sprintf("%d (x) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 %d 0", pid, parent, began))
		procs.link(name+"/ns/pid", pidNS)
		procs.write(name+"/cmdline", cmdline)
	}
	add(50, 1, 1, "pid:[1]", "shim\x00")
	add(100, 50, 10, "pid:[2]", "/app\x00")
	add(101, 100, 11, "pid:[2]", "/worker\x00")
	add(102, 60, 12, "pid:[2]", "/orphan\x00") // given to the pod's first process
	add(60, 50, 5, "pid:[2]", "/pause\x00")
	add(200, 50, 20, "pid:[2]", "sh\x00-c\x00a\nb\x00")
	add(201, 200, 21, "pid:[2]", "id\x00")
	add(202, 50, 22, "pid:[2]", "ls\x00/data\x00")
	tree := proc{procs.root}.tree([]int{100, 101, 102, 200, 201, 202})
	info := &containerInfo{commands: [][]string{{"ls", "/data"}}}
	for pid, want := range map[int]behavior.Origin{
		100: "", 101: "", 102: "", 200: behavior.OriginExec, 201: behavior.OriginExec, 202: behavior.OriginProbe,
	} {
		if got := tree.origin(pid, info); got != want {
			t.Errorf("process %d is of origin %q, want %q", pid, got, want)
		}
	}
	if got, _ := tree.entered(201); !slices.Equal(got, []string{"sh", "-c", `a\x0ab`}) {
		t.Errorf("it came with %q", got)
	}
	if got := tree.origin(100, &containerInfo{ephemeral: true}); got != behavior.OriginExec {
		t.Errorf("an ephemeral container's program is of origin %q", got)
	}
}

func TestWhatIsHeldIsNoFact(t *testing.T) {
	s := proc{"/proc"}.snapshot(containerInfo{}, []int{os.Getpid()}, always)
	want, err := proc{"/proc"}.heldCapabilities(os.Getpid())
	if err != nil || s.capabilities != want {
		t.Errorf("held are %#x, want %#x (%v)", s.capabilities, want, err)
	}
	for f := range s.facts {
		if f.Kind == behavior.Capability {
			t.Errorf("a fact says that it was used: %s", f)
		}
	}
	if got := capabilityNames(1<<13 | 1<<0 | 1<<60); !slices.Equal(got, []string{"CAP_60", "CHOWN", "NET_RAW"}) {
		t.Errorf("names are %q", got)
	}
}
