//go:build linux

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/plant"
)

// container is a root directory, a control group and the planted program in them.
type container struct {
	id      string
	root    string
	cgroup  string
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Reader
	errors  strings.Builder
	// how each thing went: empty, or why it was not done
	absent, failed map[string]string
	done           map[string]bool
}

func random(bytes int) (string, error) {
	b := make([]byte, bytes)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}

// newContainer makes the directories; programs is the folder of the planted ones.
func newContainer(work, programs, pod string) (*container, error) {
	id, err := random(32)
	if err != nil {
		return nil, err
	}
	c := &container{
		id: id, root: filepath.Join(work, id[:12]), cgroup: filepath.Join(pod, id),
		absent: map[string]string{}, failed: map[string]string{}, done: map[string]bool{},
	}
	for _, dir := range []string{"bin", "dev", "proc", "etc", plant.Dir[1:]} {
		if err := os.MkdirAll(filepath.Join(c.root, dir), 0o755); err != nil {
			return nil, err
		}
	}
	// As runtimes do. Where the security module TOMOYO is on, execveat needs it.
	if err := os.Symlink("/proc/self/fd", filepath.Join(c.root, "dev/fd")); err != nil {
		return nil, err
	}
	for from, to := range map[string][]string{"planted": {plant.Program, plant.Child}, "planted32": {plant.Compat}} {
		program, err := os.ReadFile(filepath.Join(programs, from))
		if errors.Is(err, os.ErrNotExist) && from == "planted32" {
			continue // this architecture has none
		}
		if err != nil {
			return nil, fmt.Errorf("read program: %w", err)
		}
		for _, path := range to {
			if err := os.WriteFile(filepath.Join(c.root, path), program, 0o755); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range plant.Prepared() {
		if err := os.WriteFile(filepath.Join(c.root, plant.Dir, name), make([]byte, os.Getpagesize()), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(c.cgroup, 0o755); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	return c, nil
}

// start runs the planted program in a role, as a container's first process.
func (c *container) start(ctx context.Context, role string) error {
	c.command = exec.CommandContext(ctx, "/proc/self/exe", "runtime", c.root, c.cgroup, role)
	c.command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	c.command.Stderr = io.MultiWriter(&c.errors, os.Stderr) // what it says without ending stands on the console
	output, err := c.command.StdoutPipe()
	if err != nil {
		return err
	}
	c.output = bufio.NewReader(output)
	if c.input, err = c.command.StdinPipe(); err != nil {
		return err
	}
	return c.command.Start()
}

// resume lets the program go on; it does things until it says that it is done.
func (c *container) resume() error {
	if _, err := io.WriteString(c.input, "\n"); err != nil {
		return fmt.Errorf("resume container: %w", err)
	}
	return c.follow()
}

// follow reads what the program says until it is done.
func (c *container) follow() error {
	for {
		line, err := c.output.ReadString('\n')
		if err != nil {
			return fmt.Errorf("container ended early: %w: %s", errors.Join(err, c.command.Wait()), c.errors.String())
		}
		if line == "done\n" {
			return nil
		}
		c.heard(line)
	}
}

func (c *container) heard(line string) {
	part := append(strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3), "", "")
	c.done[part[1]] = true
	switch part[0] {
	case "absent":
		c.absent[part[1]] = part[2]
	case "failed":
		c.failed[part[1]] = part[2]
	}
}

// enter has somebody from outside run the planted program in the container.
func (c *container) enter(ctx context.Context, role string) error {
	command := exec.CommandContext(ctx, "/proc/self/exe", "join", strconv.Itoa(c.command.Process.Pid), c.cgroup, role)
	var problem strings.Builder
	command.Stderr = &problem
	output, err := command.Output()
	if err != nil {
		return fmt.Errorf("enter container: %w: %s", err, problem.String())
	}
	for line := range strings.Lines(string(output)) {
		c.heard(line)
	}
	return nil
}

// stop ends the program and removes what was made.
func (c *container) stop() error {
	if c.command != nil && c.command.Process != nil {
		c.input.Close()
		// Killed: that it did not end by itself is no error here.
		_ = c.command.Process.Kill()
		_ = c.command.Wait()
	}
	return errors.Join(os.RemoveAll(c.root), os.Remove(c.cgroup))
}

func enterCgroup(cgroup string) error {
	return os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0)
}

// enter is what a container runtime does: in new namespaces it makes root its root,
// and becomes the program.
func enter(root, cgroup, role string) error {
	runtime.LockOSThread()
	if err := enterCgroup(cgroup); err != nil {
		return fmt.Errorf("enter control group: %w", err)
	}
	for _, step := range []func() error{
		// Only now, as runtimes do: what starts a program in the namespace is its own.
		func() error { return unix.Unshare(unix.CLONE_NEWNS) },
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error { return unix.Mount(root, root, "", unix.MS_BIND, "") },
		func() error { return unix.Chdir(root) },
		func() error { return unix.PivotRoot(".", ".") },
		func() error { return unix.Unmount(".", unix.MNT_DETACH) },
		func() error { return unix.Mount("proc", "/proc", "proc", 0, "") },
		loopbackUp,
		func() error { return loopbackHas(plant.Named()) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("prepare container: %w", err)
		}
	}
	return unix.Exec(plant.Program, []string{plant.Program, role}, nil)
}

// join enters the namespaces of a container's process and runs the program there, as
// kubectl exec has a runtime do.
func join(pid, cgroup, role string) error {
	runtime.LockOSThread()
	if err := enterCgroup(cgroup); err != nil {
		return fmt.Errorf("enter control group: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	var spaces []int
	for _, name := range []string{"ipc", "uts", "net", "pid", "mnt"} {
		fd, err := unix.Open("/proc/"+pid+"/ns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace: %w", err)
		}
		spaces = append(spaces, fd)
	}
	for _, fd := range spaces {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("enter namespace: %w", err)
		}
	}
	return plant.Start(plant.Program, role)
}

// loopbackUp has the network namespace reach itself.
func loopbackUp() error {
	return configure("lo", unix.SIOCSIFFLAGS, func(request *unix.Ifreq) error {
		request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return nil
	})
}

// loopbackHas gives the network namespace one more address.
func loopbackHas(address netip.Addr) error {
	return configure("lo:1", unix.SIOCSIFADDR, func(request *unix.Ifreq) error { return request.SetInet4Addr(address.AsSlice()) })
}

// configure makes one request about a network interface.
func configure(name string, what uint, set func(*unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := set(request); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, what, request)
}
