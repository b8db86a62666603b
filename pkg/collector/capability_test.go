//go:build linux

package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// confinedEnv makes the test binary a collector's kernel side with the
// capabilities that it names, which says how far it comes.
const confinedEnv = "AUTOPOLICY_TEST_CAPABILITIES"

// deployed are the capabilities of the manifest.
func deployed() map[string]uint {
	return map[string]uint{
		"BPF": unix.CAP_BPF, "PERFMON": unix.CAP_PERFMON, "NET_ADMIN": unix.CAP_NET_ADMIN,
		"SYS_PTRACE": unix.CAP_SYS_PTRACE, "DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH,
	}
}

// confined is how far a collector came.
type confined struct {
	Attach, Drop, Use string // what went wrong
	Missing           []string
	Effective         uint64
	Files             bool // another user's open file was seen
	Listens           bool // so was its socket
	Mapped            bool // and a mapping
	Lost              []string
}

// runConfined is the program that is measured. Its holder's PID and folder are in
// its arguments.
func runConfined() confined {
	var keep []uint
	for _, name := range strings.Fields(os.Getenv(confinedEnv)) {
		keep = append(keep, deployed()[name])
	}
	var c confined
	say := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	if err := limitCapabilities(keep, true); err != nil {
		c.Drop = say(err)
		return c
	}
	root, err := cgroup2("/sys/fs/cgroup")
	if err != nil {
		c.Attach = say(err)
		return c
	}
	kernel, err := Attach(root)
	if err != nil {
		c.Attach = say(err)
		return c
	}
	defer kernel.Close()
	c.Missing = kernel.Missing()
	use := func() error {
		_, err := kernel.Lost()
		_, callsErr := kernel.Syscalls()
		return errors.Join(err, callsErr, kernel.Counts(func(uint64, uint64, time.Time, time.Time) {}))
	}
	c.Drop = say(dropCapabilities(use))
	// What follows, any thread may do.
	results := make(chan string)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		results <- say(errors.Join(use(), kernel.Ignore(4), kernel.Heed(4), kernel.Forget(4, 0), kernel.Run(ctx, func(Record) {})))
	}()
	c.Use = <-results
	var set capabilitySet
	header := capHeader()
	if err := unix.Capget(&header, &set[0]); err == nil {
		c.Effective = uint64(set[0].Effective) | uint64(set[1].Effective)<<32
	}
	var pid int
	fmt.Sscan(os.Args[len(os.Args)-2], &pid)
	dir := os.Args[len(os.Args)-1]
	s := proc{"/proc"}.snapshot(containerInfo{}, []int{pid}, always)
	for f := range s.facts {
		c.Files = c.Files || f.Path == behavior.Escape(filepath.Join(dir, "read"))
		c.Listens = c.Listens || f.Direction == behavior.Listen
		c.Mapped = c.Mapped || f.Path == behavior.Escape(filepath.Join(dir, "mapped"))
	}
	c.Lost = sortedKeys(s.lost)
	return c
}

// measure runs a collector's kernel side with the capabilities.
func measure(t *testing.T, capabilities []string, pid int, dir string) confined {
	t.Helper()
	program := exec.Command("/proc/self/exe", fmt.Sprint(pid), dir)
	program.Env = append(os.Environ(), confinedEnv+"="+strings.Join(capabilities, " ")+" ")
	var errs strings.Builder
	program.Stderr = &errs
	out, err := program.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, errs.String())
	}
	var c confined
	if err := json.Unmarshal(out, &c); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return c
}

// foreignHolder holds things as another user, in a folder only that user may
// enter.
func foreignHolder(t *testing.T) (pid int, dir string) {
	t.Helper()
	const nobody = 65534
	dir, err := os.MkdirTemp("/tmp", "held")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	binary := filepath.Join(dir, "holder")
	content, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"holder": content, "read": nil, "mapped": make([]byte, 8192)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	holder := exec.Command(binary)
	holder.Env = append(os.Environ(), holderEnv+"="+dir)
	holder.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	startHolding(t, holder)
	return holder.Process.Pid, dir
}

func TestEachCapabilityOfTheCollectorIsNeededAndNoOther(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it loads programs with capabilities taken away one by one")
	}
	if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_GETPID, 0, 0, 0); errno == syscall.ENOTSUP {
		t.Skip("needs CGO_ENABLED=0, as the collector is built: with cgo no program can drop capabilities in all threads")
	}
	pid, dir := foreignHolder(t)
	all := sortedKeys(deployed())
	t.Run("with all of them everything works, and what is left is what reading needs", func(t *testing.T) {
		c := measure(t, all, pid, dir)
		if c.Attach+c.Drop+c.Use != "" || !c.Files || !c.Listens || !c.Mapped || len(c.Lost) > 0 {
			t.Errorf("got %+v", c)
		}
		for _, missing := range c.Missing {
			if strings.Contains(missing, "permi") {
				t.Errorf("missing: %s", missing)
			}
		}
		want := uint64(1)<<unix.CAP_SYS_PTRACE | uint64(1)<<unix.CAP_DAC_READ_SEARCH
		if c.Effective != want && c.Effective != want|1<<unix.CAP_BPF {
			t.Errorf("effective capabilities are %#x, want %#x", c.Effective, want)
		}
	})
	for name, fails := range map[string]func(confined) bool{
		"BPF":             func(c confined) bool { return c.Attach != "" },
		"PERFMON":         func(c confined) bool { return c.Attach != "" },
		"NET_ADMIN":       func(c confined) bool { return c.Attach != "" },
		"SYS_PTRACE":      func(c confined) bool { return !c.Files && !c.Listens },
		"DAC_READ_SEARCH": func(c confined) bool { return !c.Files && !c.Listens },
	} {
		t.Run("without "+name+" something is missing", func(t *testing.T) {
			var rest []string
			for _, other := range all {
				if other != name {
					rest = append(rest, other)
				}
			}
			c := measure(t, rest, pid, dir)
			t.Logf("%+v", c)
			if !fails(c) {
				t.Errorf("without it everything works: %+v", c)
			}
		})
	}
}
