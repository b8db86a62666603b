//go:build linux

package collector

import (
	"bufio"
	"encoding/json"
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
	os.Stdout.WriteString(tcp.Addr().String() + "\n")
	io.Copy(io.Discard, os.Stdin)
	for _, c := range []io.Closer{read, write, gone, tcp, peer, served, udp} {
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
	return holder.Process.Pid, netip.MustParseAddrPort(strings.TrimSpace(line))
}

func TestASnapshotShowsWhatAProcessHolds(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "read"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid, address := startHolder(t, dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		t.Fatal(err)
	}
	s := proc{"/proc"}.snapshot([]int{os.Getpid(), pid}, always)
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
		"a connected datagram socket":       {Kind: behavior.Network, Exe: exe, Direction: behavior.Egress, Protocol: "udp", Port: 5353, Peer: behavior.Peer{Address: loopback6}},
	} {
		t.Run(name, func(t *testing.T) {
			if !s.facts[want] {
				t.Errorf("%s is missing", want)
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
		s = p.snapshot([]int{held.Process.Pid}, always)
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
			socket{"tcp", netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("10.0.0.2:50000"), established, 12345}, true},
		"version 6": {"tcp", "   1: 00000000000000000000000001000000:0035 B80D0120000000000000000001000000:0050 0A 0:0 0:0 0 0 0 7 1",
			socket{"tcp", netip.MustParseAddrPort("[::1]:53"), netip.MustParseAddrPort("[2001:db8::1]:80"), listening, 7}, true},
		"a mapped address becomes version 4": {"udp", "   1: 0000000000000000FFFF00000100007F:0035 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 7 1",
			socket{"udp", netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::]:0"), unconnected, 7}, true},
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
