//go:build linux

package probe

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// enterFromOutside is what kubectl exec or nsenter come to: it joins the mount
// namespace of a process and becomes a program there, or starts it.
func enterFromOutside(how string, pid int, args []string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // else threads would share the root
		return fmt.Errorf("unshare: %w", err)
	}
	if how == "pidfd" {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return fmt.Errorf("open process: %w", err)
		}
		if err := unix.Setns(fd, unix.CLONE_NEWNS|unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("enter: %w", err)
		}
	} else {
		for _, name := range strings.Split("net uts mnt", " ") {
			fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("open namespace: %w", err)
			}
			defer unix.Close(fd)
			if name == "mnt" && how == "net" {
				break
			}
			if err := unix.Setns(fd, 0); err != nil {
				return fmt.Errorf("enter %s: %w", name, err)
			}
		}
	}
	if err := os.Setenv(roleVariable, "container"); err != nil {
		return err
	}
	switch how {
	case "fork":
		return run(args[0], args[1:]...)
	case "unshare": // makes a mount namespace of its own before it runs the program
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
	case "net":
		return nil
	}
	return unix.Exec(args[0], args, os.Environ())
}

// enter has a process enter the container from outside, and waits until nobody of
// it is left.
func (c *container) enter(t testing.TB, how string, args ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, self, append([]string{how, strconv.Itoa(c.command.Process.Pid)}, args...)...)
	command.Env = []string{roleVariable + "=visitor"}
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		t.Fatalf("enter: %v\n%s", err, output.String())
	}
}

// sessionsOf gives the sessions in which a fact was recorded.
func sessionsOf(records []Record, is func(behavior.Fact) bool) map[uint32]bool {
	sessions := map[uint32]bool{}
	for _, r := range records {
		if is(r.Fact) && !r.Fact.Runtime {
			sessions[r.Session] = true
		}
	}
	return sessions
}

func reading(path string) func(behavior.Fact) bool {
	return func(f behavior.Fact) bool { return f.Kind == behavior.File && f.Path == path }
}

func TestWhoEntersFromOutsideIsToldFromTheContainersOwnTree(t *testing.T) {
	for _, c := range []struct{ name, how, action string }{
		{"by the namespaces' files", "setns", "read /etc/other"},
		{"by the process", "pidfd", "read /etc/other"},
		{"and starts the program as its child", "fork", "read /etc/other"},
		{"and starts another program", "setns", "run /bin/tool read /etc/other"},
		{"and leaves a process behind whose parents have ended", "setns", "orphan read /etc/other"},
		{"and reads from another thread", "setns", "thread read /etc/other"},
		{"and starts a program from another thread", "setns", "thread run /bin/tool read /etc/other"},
		{"and has its own mount namespace", "unshare", "read /etc/other"},
		{"and makes itself a mount namespace", "setns", "unshare -- read /etc/other"},
		{"and joins the namespace that it is in", "setns", "rejoin read /etc/other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := requireProbe(t, Options{})
			box := newContainer(t, actions("pause", "read /etc/other", "run /bin/tool read /etc/config")...)
			r := record(t, p, 0)
			box.resume(t)
			args := append([]string{"/bin/app"}, strings.Fields(c.action)...)
			box.enter(t, c.how, args...)
			box.run(t)
			r.stop()
			records := r.all()
			var entered []Record
			for _, r := range records {
				if r.Entered != nil {
					entered = append(entered, r)
				}
			}
			if len(entered) != 1 || !slices.Equal(entered[0].Entered, args) || entered[0].Session == 0 || entered[0].Fact.Kind != behavior.Process || entered[0].Fact.Parent != "" {
				t.Fatalf("begins of sessions: %+v; want one by %q", entered, args)
			}
			for _, r := range records {
				if r.Session != 0 && r.Session != entered[0].Session {
					t.Errorf("of a session that nobody began: %+v", r)
				}
			}
			if got := sessionsOf(records, reading("/etc/other")); !got[0] || !got[entered[0].Session] || len(got) != 2 {
				t.Errorf("read in sessions %v, want the own tree and %d", got, entered[0].Session)
			}
			if got := sessionsOf(records, reading("/etc/config")); !got[0] || len(got) != 1 {
				t.Errorf("what the own tree did afterwards is of sessions %v", got)
			}
			wantNobodyInside(t, p, box.mntns, !strings.Contains(c.how+c.action, "unshare"))
		})
	}
}

// wantNobodyInside tells that what is kept of sessions ended with them, and that
// nobody is looked up any more.
func wantNobodyInside(t *testing.T, p *Probe, mntns uint32, counted bool) {
	t.Helper()
	inside := 0
	err := each(p.collection.Maps["entrants"], func(_ *bpf.FloorEntrantKey, e *bpf.FloorEntrant) {
		if uint32(e.Mntns) == mntns {
			inside++
		}
	})
	if err != nil || inside > 0 {
		t.Errorf("%d entries of processes that have ended, %v", inside, err)
	}
	err = each(p.collection.Maps["namespaces"], func(number *uint64, ns *bpf.FloorNamespace) {
		if counted && uint32(*number) == mntns && ns.Entrants != 0 {
			t.Errorf("%d processes are said to have entered %d still", int32(ns.Entrants), uint32(*number))
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// rejoin joins a namespace of its own, and acts there.
func rejoin(name string, args []string) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	fd, err := unix.Open("/proc/thread-self/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Setns(fd, 0); err != nil {
		return err
	}
	return runAction(args)
}

func startOrphan(args []string) error {
	_, err := os.StartProcess("/bin/app", append([]string{"/bin/app", "orphaned", strconv.Itoa(os.Getpid())}, args...), &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	return err
}

// orphaned waits until its parent has ended, and acts then.
func orphaned(parent string, args []string) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for strconv.Itoa(os.Getppid()) == parent {
		<-tick.C
	}
	return runAction(args)
}

func inThread(act func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the caller's is locked, so this is another
		done <- act()
	}()
	return <-done
}

func TestTheContainersOwnTreeIsNoSession(t *testing.T) {
	for _, c := range []struct{ name, action string }{
		{"that joins the mount namespace that it is in", "rejoin run /bin/tool read /etc/other"},
		{"that joins another network namespace", "join-net run /bin/tool read /etc/other"},
		{"whose parent has ended", "orphan read /etc/other"},
		{"in memory, that joins the mount namespace that it is in", "memfd rejoin run /bin/tool read /etc/other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := requireProbe(t, Options{})
			_, records := observe(t, p, strings.Fields(c.action)...)
			if got := sessionsOf(records, reading("/etc/other")); !got[0] || len(got) != 1 {
				t.Errorf("read in sessions %v, want the own tree", got)
			}
		})
	}
}

func TestASessionIsOneSetOfFactsHoweverOftenItRuns(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("pause")...)
	r := record(t, p, box.mntns)
	box.resume(t)
	for range 3 {
		box.enter(t, "setns", "/bin/app", "read", "/etc/other")
	}
	box.enter(t, "setns", "/bin/app", "read", "/etc/config")
	box.enter(t, "net") // runs no program inside
	box.run(t)
	r.stop()
	begun := map[string]int{}
	sessions := map[uint32]bool{}
	for _, r := range r.all() {
		if r.Entered != nil {
			begun[strings.Join(r.Entered, " ")]++
			sessions[r.Session] = true
		}
	}
	if len(begun) != 2 || begun["/bin/app read /etc/other"] != 1 || begun["/bin/app read /etc/config"] != 1 || len(sessions) != 2 {
		t.Errorf("sessions %v, begun %v", sessions, begun)
	}
}

func TestArgumentsOfASessionAreEscapedAndBounded(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("pause")...)
	r := record(t, p, box.mntns)
	box.resume(t)
	hostile, long := "a b\n\x1b[31m\xff\\", strings.Repeat("x", 5000)
	box.enter(t, "setns", "/bin/app", "true", hostile, "", "end")
	box.enter(t, "setns", "/bin/app", "true", long)
	box.enter(t, "setns", "/bin/app", "true", long+"y")
	box.run(t)
	r.stop()
	var cut []Record
	found := false
	for _, r := range r.all() {
		switch {
		case len(r.Entered) == 5:
			found = slices.Equal(r.Entered, []string{"/bin/app", "true", behavior.Escape(hostile), "", "end"})
		case len(r.Entered) == 3:
			cut = append(cut, r)
		}
	}
	if !found {
		t.Error("hostile arguments did not arrive as they are")
	}
	if len(cut) != 2 || cut[0].Session == cut[1].Session || len(cut[0].Entered[2]) > 4096 || !strings.HasPrefix(long, cut[0].Entered[2]) {
		t.Errorf("%d records of arguments that were cut: %.300v", len(cut), cut)
	}
	if lost(t, p, "arguments cut: process") != 2 {
		t.Errorf("lost %v, want 2 arguments", allLost(t, p))
	}
}

// The kernel gives a process's number to another one; the start tells them apart.
func TestAProcessWithTheNumberOfOneThatHadEnteredIsItsOwn(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("pause", "read /etc/other")...)
	r := record(t, p, box.mntns)
	box.resume(t)
	namespaces := p.collection.Maps["namespaces"]
	var number uint64
	var kept bpf.FloorNamespace
	err := each(namespaces, func(n *uint64, ns *bpf.FloorNamespace) {
		if uint32(*n) == box.mntns {
			number, kept = *n, *ns
		}
	})
	if err != nil || number == 0 {
		t.Fatalf("the container's mount namespace is not kept: %v", err)
	}
	kept.Entrants = 1
	gone := bpf.FloorEntrantKey{Tgid: uint64(box.command.Process.Pid), Started: 1}
	for m, entry := range map[string][2]any{"namespaces": {number, kept}, "entrants": {gone, bpf.FloorEntrant{Mntns: number, Session: 7}}} {
		if err := p.collection.Maps[m].Put(entry[0], entry[1]); err != nil {
			t.Fatal(err)
		}
	}
	box.run(t)
	r.stop()
	if got := sessionsOf(r.all(), reading("/etc/other")); !got[0] || len(got) != 1 {
		t.Errorf("read in sessions %v, want the own tree", got)
	}
}

func TestSystemCallsOfSessionsAreKeptApart(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("pause")...)
	box.resume(t)
	box.enter(t, "setns", "/bin/app", "chroot", "/etc")
	box.run(t)
	all, err := p.Syscalls()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range all[box.mntns] {
		if got := slices.Contains(set.Names, "chroot"); set.Arch == Arches(runtime.GOARCH)[0] && got != set.Entered {
			t.Errorf("chroot in the set %+v: %t", set, got)
		}
		// Both read: each set has it.
		if !set.Runtime && set.Arch == Arches(runtime.GOARCH)[0] && !slices.Contains(set.Names, "read") {
			t.Errorf("no read in the set %+v", set)
		}
	}
}

func TestWhoEnteredIsKnownAfterItsNamespaceIsForgotten(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("pause")...)
	r := record(t, p, box.mntns)
	box.resume(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	visitor := exec.Command(self, "setns", strconv.Itoa(box.command.Process.Pid), "/bin/app", "pause", "--", "read", "/etc/other")
	visitor.Env = []string{roleVariable + "=visitor"}
	stdin, err := visitor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := visitor.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := visitor.Start(); err != nil {
		t.Fatal(err)
	}
	inside := &container{command: visitor, stdin: stdin, stdout: stdout}
	var word string
	if _, err := fmt.Fscanln(stdout, &word); err != nil || word != "paused" {
		t.Fatalf("visitor says %q, %v", word, err)
	}
	forget(t, p, box.mntns)
	inside.run(t)
	box.run(t)
	r.stop()
	if got := sessionsOf(r.all(), reading("/etc/other")); got[0] || len(got) != 1 {
		t.Errorf("read in sessions %v, want one, not the own tree", got)
	}
}
