//go:build linux

package probe

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// startDescriptor becomes the program of a file, in a child, by execveat with an
// empty path. The descriptor stays open: a script's interpreter reads it.
func startDescriptor(file string, args []string) error {
	fd, err := unix.Open(file, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	if args[0] == "now" {
		argv, err := syscall.SlicePtrFromStrings(append([]string{file}, args[1:]...))
		if err != nil {
			return err
		}
		envv, err := syscall.SlicePtrFromStrings(os.Environ())
		if err != nil {
			return err
		}
		empty := []byte{0}
		_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), unix.AT_EMPTY_PATH, 0)
		return errno
	}
	return run("/bin/app", append([]string{"fexecve", file, "now"}, args...)...)
}

func startDeleted(file string, args []string) error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, program, 0o755); err != nil {
		return err
	}
	fd, err := unix.Open(file, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	if err := unix.Unlink(file); err != nil {
		return err
	}
	return run(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), args...)
}

// startMisc registers an interpreter for a file's ending in a user namespace of
// its own, so that the machine does not know of it, and starts the file there.
func startMisc(flags, file string) error {
	p, err := os.StartProcess("/bin/app", []string{"/bin/app", "registered", flags, file}, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: 0, Size: 1}},
		},
	})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %s", file, state)
	}
	return err
}

func registerMisc(flags, file string) error {
	if err := unix.Mount("binfmt_misc", "/mnt", "binfmt_misc", 0, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := os.WriteFile("/mnt/register", []byte(":trial:E::trial::/bin/tool:"+strings.Trim(flags, "-")), 0); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if err := os.WriteFile(file, []byte("nothing"), 0o755); err != nil {
		return err
	}
	return run(file)
}

func TestProgramsAreToldHoweverTheyAreStarted(t *testing.T) {
	p := requireProbe(t, Options{})
	script := behavior.Fact{Kind: behavior.Process, Path: "/tmp/script", Interpreter: "/bin/tool", Parent: "/bin/app"}
	for _, c := range []struct {
		name    string
		actions []string
		want    []behavior.Fact
	}{
		{"by a descriptor alone", actions("fexecve /bin/tool true"), []behavior.Fact{{Kind: behavior.Process, Path: "/bin/tool", Parent: "/bin/app"}}},
		{"a script by a descriptor alone", actions("script /tmp/script", "fexecve /tmp/script true"), []behavior.Fact{script, {Kind: behavior.Process, Path: "/bin/tool", Parent: "/bin/app"}}},
		{"a script of a script", []string{"script", "/tmp/script", "--", "interpreted", "/tmp/outer", "/tmp/script", "--", "run", "/tmp/outer"},
			[]behavior.Fact{{Kind: behavior.Process, Path: "/tmp/outer", Interpreter: "/bin/tool", Parent: "/bin/app"}}},
		{"a program that has no name any more", actions("replaced /tmp/gone read /etc/config"), []behavior.Fact{
			{Kind: behavior.Process, Path: "/tmp/gone", Parent: "/bin/app", Deleted: true},
			{Kind: behavior.File, Exe: "/tmp/gone", Path: "/etc/config", Access: behavior.Read},
		}},
		{"a program in memory", actions("memfd true"), []behavior.Fact{{Kind: behavior.Process, Path: "memfd:payload", Parent: "/bin/app"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, records := observe(t, p, c.actions...)
			for _, want := range c.want {
				wantFact(t, records, want)
			}
		})
	}
	if l := lost(t, p, "script not found: process"); l > 0 {
		t.Errorf("%d scripts are not found", l)
	}
}

func TestAProgramWithARegisteredInterpreterIsToldWithIt(t *testing.T) {
	for _, flags := range []string{"-", "O", "OC", "F"} {
		t.Run("flags "+flags, func(t *testing.T) {
			p := requireProbe(t, Options{})
			box := newContainer(t, "binfmt", flags, "/tmp/x.trial")
			r := record(t, p, 0)
			if _, err := fmt.Fprintln(box.stdin, "go"); err != nil {
				t.Fatal(err)
			}
			if err := box.command.Wait(); err != nil {
				t.Skipf("SKIPPED: no binfmt_misc in a user namespace (Linux 6.7): %v %s", err, box.output.String())
			}
			r.stop()
			if !slices.ContainsFunc(r.all(), func(r Record) bool {
				return r.Script && strings.HasSuffix(r.Fact.Path, "/tmp/x.trial") && strings.HasSuffix(r.Fact.Interpreter, "/bin/tool")
			}) {
				t.Errorf("not told: %+v", r.all())
			}
		})
	}
}

func TestArgumentsAreToldOnlyWhenAskedFor(t *testing.T) {
	hostile := "two words\n\\"
	for _, wanted := range []bool{false, true} {
		t.Run(fmt.Sprint(wanted), func(t *testing.T) {
			p := requireProbe(t, Options{Arguments: wanted})
			script := []string{"run", "/bin/tool", "true", "a", "--", "run", "/bin/tool", "true", "b", "--", "run", "/bin/tool", "true", hostile, `""`}
			_, records := observe(t, p, script...)
			got := map[string]int{}
			for _, r := range records {
				if r.Fact.Path == "/bin/tool" && r.Fact.Kind == behavior.Process {
					got[r.Fact.Arguments]++
				}
				if r.Entered != nil {
					t.Errorf("the own tree has entered: %+v", r)
				}
			}
			want := map[string]int{"": 1}
			if wanted {
				want = map[string]int{"/bin/tool true a": 1, "/bin/tool true b": 1, `/bin/tool true two\x20words\x0a\\ ""`: 1}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("arguments %v, want %v", got, want)
			}
		})
	}
}

// Of each fact, the parent of the process that did it is told with its record.
func TestTheActingProcesssParentIsTold(t *testing.T) {
	p := requireProbe(t, Options{})
	_, records := observe(t, p, actions("read /etc/config", "run /bin/tool read /etc/other", "chroot /", "run /bin/tool chroot /", "run /bin/tool tcp 127.0.0.1:80")...)
	want := map[string]string{
		"/bin/app reads /etc/config": "", "/bin/tool reads /etc/other": "/bin/app", "/bin/app runs /bin/tool": "/bin/app",
		"(outside the container) runs /bin/app": "", "/bin/tool listens on tcp/80": "/bin/app",
	}
	for _, r := range records {
		if parent, ok := want[r.Fact.String()]; ok {
			if r.Parent != parent || !r.HasParent {
				t.Errorf("%s: parent is %q (%t), want %q", r.Fact, r.Parent, r.HasParent, parent)
			}
			delete(want, r.Fact.String())
		}
		if r.Fact.Runtime == r.HasParent {
			t.Errorf("%s: a parent is known: %t", r.Fact, r.HasParent)
		}
		if r.Fact.Kind == behavior.Process && r.Fact.Parent != r.Parent {
			t.Errorf("%s: parent %q", r.Fact, r.Parent)
		}
	}
	if len(want) > 0 {
		t.Errorf("not recorded: %v", want)
	}
}
