//go:build linux

package collector

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func always(int) bool { return true }

// oddities makes the test binary a process that holds thousands of files and maps
// some whose names break what reads tables.
const odditiesEnv = "AUTOPOLICY_TEST_ODDITIES"

// oddNames are names that a table of mappings or mounts could show ambiguously.
func oddNames() []string {
	return []string{"new\nline", "7f00-8000 r-xp 00000000 08:01 1 shadow", "back\\012slash", "tab\there", " - tmpfs tmpfs rw", "gone (deleted)"}
}

func holdOddities(dir string, files int) error {
	for i := range files {
		if _, err := unix.Open(filepath.Join(dir, fmt.Sprint("many-", i)), unix.O_RDWR|unix.O_CREAT, 0o600); err != nil {
			return err
		}
	}
	for _, name := range oddNames() {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDWR|unix.O_CREAT, 0o600)
		if err != nil {
			return err
		}
		if err := unix.Ftruncate(fd, 4096); err != nil {
			return err
		}
		if _, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err != nil {
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the test ends
	return nil
}

func TestAProcessWithThousandsOfFilesAndOddMappingsIsReadWhole(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const files = 5000
	holder := exec.Command("/proc/self/exe")
	holder.Env = append(os.Environ(), odditiesEnv+"="+dir)
	if line := startHolding(t, holder); line != "ready\n" {
		t.Fatalf("holder says %q", line)
	}
	s := proc{"/proc"}.snapshot(containerInfo{}, []int{holder.Process.Pid}, always)
	has := map[string]behavior.Access{}
	for f := range s.facts {
		if f.Kind == behavior.File {
			has[f.Path] |= f.Access
		}
	}
	for i := range files {
		if path := fmt.Sprintf("%s/many-%d", dir, i); has[path] != behavior.Read|behavior.Write {
			t.Fatalf("open file %s is %v", path, has[path])
		}
	}
	for _, name := range oddNames() {
		if path := behavior.Escape(filepath.Join(dir, name)); has[path]&behavior.Read == 0 {
			t.Errorf("mapped file %s is missing", path)
		}
	}
	if len(s.lost) > 0 {
		t.Errorf("lost %v", s.lost)
	}
}

// Processes come and go while the snapshot reads them: none of it is a loss, and
// what goes on is read.
func TestProcessesThatVanishWhileTheyAreReadAreNoLoss(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	pids := make(chan int, 1)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			c := exec.Command("/bin/true")
			if err := c.Start(); err != nil {
				return
			}
			select {
			case pids <- c.Process.Pid:
			default:
			}
			_ = c.Wait() // it has been killed by nobody
		}
	}()
	p := proc{"/proc"}
	for range 300 {
		s := p.snapshot(containerInfo{}, []int{<-pids, os.Getpid()}, always)
		if len(s.lost) > 0 {
			t.Fatalf("lost %v", s.lost)
		}
		if len(s.facts) == 0 {
			t.Fatal("the process that goes on was not read")
		}
		if _, _, err := p.scan(func(uint32) bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	<-done
}

// The number of a process that has ended is given to another one, of another
// container, while the snapshot goes through its list.
func TestANumberOfAProcessThatIsReusedGivesNobodyAnothersFacts(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	first := exec.Command("sleep", "60")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	pid := first.Process.Pid
	p := proc{"/proc"}
	ns, err := p.mountNSOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait() // it was killed
	second := sameNumber(t, pid, dir)
	t.Cleanup(func() {
		second.Process.Kill()
		second.Wait()
	})
	still := func(pid int) bool {
		at, err := p.mountNSOf(pid)
		return err == nil && at == ns
	}
	if s := p.snapshot(containerInfo{}, []int{pid}, still); len(s.facts)+len(s.lost) > 0 {
		t.Errorf("the container before got %v, %v", s.facts, s.lost)
	}
	if s := p.snapshot(containerInfo{}, []int{pid}, always); len(s.facts) == 0 {
		t.Error("the second has no facts either: the test shows nothing")
	}
}

// sameNumber starts a process of this number in a mount namespace of its own.
func sameNumber(t *testing.T, pid int, dir string) *exec.Cmd {
	t.Helper()
	for range 200 { // others start processes too
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Skipf("SKIPPED: needs to choose the number of a process: %v", err)
		}
		c := exec.Command("sleep", "60")
		c.Dir = dir
		c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if c.Process.Pid == pid {
			return c
		}
		c.Process.Kill()
		c.Wait()
	}
	t.Skip("SKIPPED: the number was taken by others in 200 tries")
	return nil
}

func TestAProgramThatWasThereAndIsNoFileOfItsContainerIsCounted(t *testing.T) {
	p := newFakeProc(t)
	stat := func(began int) string {
		return "1 (a) b)) S 1" + strings.Repeat(" 0", 17) + fmt.Sprintf(" %d 0", began)
	}
	p.write("self/stat", stat(500))
	for pid, began := range map[string]int{"100": 400, "101": 600} { // before and after the collector
		p.process(pid, 77, "/")
		p.link(pid+"/exe", "/memfd:payload (deleted)")
		p.write(pid+"/stat", stat(began))
	}
	s := proc{p.root}.snapshot(containerInfo{}, []int{100, 101}, always)
	if got := s.lost["snapshot of a process whose program is no file of its container"]; got != 1 || len(s.lost) != 1 {
		t.Errorf("lost %v, want the one that was there", s.lost)
	}
}

func TestProcessesThatMayNotBeLookedAtAreCounted(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	if os.Geteuid() == 0 {
		b.noteRefused(3) // root is refused nothing
	} else if err := os.Chmod(filepath.Join(b.procs.root, "100/ns"), 0); err != nil {
		t.Fatal(err)
	}
	b.pass(time.Second)
	if got := b.Status().Lost["processes that may not be looked at"]; got == 0 {
		t.Errorf("lost is %v", b.Status().Lost)
	}
	if gone(&fs.PathError{Err: unix.EPERM}) {
		t.Error("a refusal passes for the end of a process")
	}
}

// play does what the environment asks of the test binary, if it does.
func play() bool {
	var err error
	switch {
	case os.Getenv(odditiesEnv) != "":
		err = holdOddities(os.Getenv(odditiesEnv), 5000)
	case os.Getenv(containerEnv) != "":
		err = runContainer()
	case os.Getenv(collectorEnv) != "":
		err = runCollector(os.Getenv(collectorEnv))
	default:
		return false
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}
