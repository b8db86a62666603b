//go:build linux

package probe

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"golang.org/x/sys/unix"
)

// The test binary is also the program that is observed: with this variable set
// it builds itself a container and runs the actions that its arguments name.
const roleVariable = "PROBE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "runtime":
		fatal(enterContainer(os.Args[1], os.Args[2:]))
	case "visitor":
		pid, err := strconv.Atoi(os.Args[2])
		fatal(err)
		fatal(enterFromOutside(os.Args[1], pid, os.Args[3:]))
		os.Exit(0)
	case "container":
		fatal(runActions(os.Args[1:]))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(1)
	}
}

// enterContainer is what a container runtime does: it enters new namespaces, says
// which, waits to be told to go on, makes root its root, and becomes the program.
func enterContainer(root string, args []string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	info, err := os.Stat("/proc/thread-self/ns/mnt")
	if err != nil {
		return err
	}
	fmt.Println(info.Sys().(*syscall.Stat_t).Ino)
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return fmt.Errorf("wait: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind root: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount old root: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := open("/proc/self/status", unix.O_RDONLY); err != nil { // something to be seen doing
		return fmt.Errorf("read status: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set up loopback: %w", err)
	}
	return unix.Exec("/bin/app", append([]string{"/bin/app"}, args...), []string{roleVariable + "=container"})
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

// requireProbe opens a probe, or says why this machine cannot.
func requireProbe(t testing.TB, o Options) *Probe {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: needs root to load programs into the kernel")
	}
	if !hasBTF() {
		t.Skip("SKIPPED: the kernel has no BTF")
	}
	p, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// container is a root directory and a program started in it.
type container struct {
	root    string
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  io.Reader
	output  strings.Builder
	mntns   uint32
}

// newContainer prepares a container that will run the actions, which are words
// separated by "--". It waits, its mount namespace known, for start.
func newContainer(t testing.TB, actions ...string) *container {
	t.Helper()
	return startContainer(t, newRoot(t), actions...)
}

// newRoot makes a root directory with the test binary as its programs.
func newRoot(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "proc", "tmp", "etc", "mnt"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, self, filepath.Join(root, "bin/app"))
	if err := os.Link(filepath.Join(root, "bin/app"), filepath.Join(root, "bin/tool")); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"etc/config": "config", "etc/other": "other"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func startContainer(t testing.TB, root string, actions ...string) *container {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &container{root: root}
	c.command = exec.Command(self, append([]string{c.root}, actions...)...)
	c.command.Env = []string{roleVariable + "=runtime"}
	c.command.Stderr = &c.output
	if c.stdout, err = c.command.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if c.stdin, err = c.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(c.stdout, &c.mntns); err != nil {
		t.Fatalf("container does not start: %v\n%s", err, c.output.String())
	}
	t.Cleanup(func() {
		c.stdin.Close()
		if c.command.ProcessState == nil {
			c.command.Process.Kill()
			c.command.Wait()
		}
	})
	return c
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

// resume lets the container run to its next pause.
func (c *container) resume(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(c.stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	var word string
	if _, err := fmt.Fscanln(c.stdout, &word); err != nil || word != "paused" {
		t.Fatalf("container says %q, %v\n%s", word, err, c.output.String())
	}
}

// run lets the container run to its end.
func (c *container) run(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(c.stdin, "go\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.command.Wait(); err != nil {
		t.Fatalf("container: %v\n%s", err, c.output.String())
	}
}

// recorder keeps the records of one mount namespace while it runs, or of every
// one when that is 0.
type recorder struct {
	mu      sync.Mutex
	records []Record
	stop    func()
}

func record(t testing.TB, p *Probe, mntns uint32) *recorder {
	r := &recorder{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- p.Run(ctx, func(rec Record) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if rec.MountNS == mntns || mntns == 0 {
				r.records = append(r.records, rec)
			}
		})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// all gives the records so far.
func (r *recorder) all() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// observe runs actions in a container and returns it with the records.
func observe(t testing.TB, p *Probe, actions ...string) (*container, []Record) {
	t.Helper()
	c := newContainer(t, actions...)
	r := record(t, p, c.mntns)
	c.run(t)
	r.stop()
	return c, r.all()
}

func wantFact(t testing.TB, records []Record, want behavior.Fact) Record {
	t.Helper()
	for _, r := range records {
		if r.Fact == want {
			return r
		}
	}
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "\n\t%s (runtime %t) %+v", r.Fact, r.Fact.Runtime, r.Fact)
	}
	t.Errorf("no fact %+v in%s", want, b.String())
	return Record{}
}
