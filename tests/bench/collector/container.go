//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// container is a process with a mount, a network and an IPC namespace and a
// control group of its own, as a container runtime makes it. Its IDs are what the
// fake API server tells the collector.
type container struct {
	number  int
	command *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
}

// podUID and containerID name the n-th container as kubelet and runtime would.
func podUID(n int) string      { return fmt.Sprintf("bec50000-0000-4000-8000-%012d", n) }
func containerID(n int) string { return fmt.Sprintf("%064x", 0xbec5<<32+n) }

func (l *lab) cgroup(n int) string {
	return filepath.Join(l.cgroups, "pod"+podUID(n), containerID(n))
}

// start runs args in a new container. Without args it is load.c's program, which
// send asks to do something; otherwise one of the unpacked packages' programs.
func (l *lab) start(ctx context.Context, n int, uid int, args ...string) (*container, error) {
	if err := os.MkdirAll(l.cgroup(n), 0o755); err != nil {
		return nil, fmt.Errorf("make control group: %w", err)
	}
	c := &container{number: n, command: exec.CommandContext(ctx, l.self, append([]string{
		"role:container", l.cgroup(n), filepath.Join(l.work, "mnt"), l.load, l.root, strconv.Itoa(uid)}, args...)...)}
	c.command.Stderr = l.log
	if len(args) > 0 { // servers talk
		c.command.Stdout, c.command.Stderr = l.servers, l.servers
	}
	var err error
	if c.stdin, err = c.command.StdinPipe(); err != nil {
		return nil, err
	}
	if len(args) == 0 {
		stdout, err := c.command.StdoutPipe()
		if err != nil {
			return nil, err
		}
		c.stdout = bufio.NewReader(stdout)
	}
	if err := c.command.Start(); err != nil {
		return nil, fmt.Errorf("start container %d: %w", n, err)
	}
	l.containers = append(l.containers, c)
	return c, nil
}

// send asks load.c's program for something, answer reads what it says.
func (c *container) send(word string, a, b int) error {
	_, err := fmt.Fprintf(c.stdin, "%s %d %d\n", word, a, b)
	return err
}

func (c *container) answer() ([]float64, error) {
	line, err := c.stdout.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("container %d: %w", c.number, err)
	}
	var numbers []float64
	for _, field := range strings.Fields(line) {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, fmt.Errorf("container %d: %w", c.number, err)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

func (c *container) ask(word string, a, b int) ([]float64, error) {
	if err := c.send(word, a, b); err != nil {
		return nil, err
	}
	return c.answer()
}

// stop ends the container and waits for it.
func (l *lab) stop(c *container) error {
	err := c.command.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	c.stdin.Close()
	c.command.Wait() // it was killed: that it says so is no news
	// What it started may still be ending.
	return errors.Join(err, l.removeCgroup(l.cgroup(c.number)))
}

// removeCgroup kills what is left in a control group and removes it.
func (l *lab) removeCgroup(dir string) error {
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, pid := range strings.Fields(string(procs)) {
			if n, err := strconv.Atoi(pid); err == nil && n > 1 {
				unix.Kill(n, unix.SIGKILL) // it may have ended by itself
			}
		}
		err = unix.Rmdir(dir)
		if err == nil {
			err = unix.Rmdir(filepath.Dir(dir)) // the pod's
		}
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
	}
}

// enterContainer is what a container runtime does, up to becoming the program.
// Its arguments are those that start gives.
func enterContainer(args []string) error {
	cgroup, mnt, load, root, command := args[0], args[1], args[2], args[3], args[5:]
	uid, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("enter control group: %w", err)
	}
	program, err := os.ReadFile(load)
	if err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("set up loopback: %w", err)
	}
	if len(command) == 0 {
		err = smallRoot(mnt, program)
	} else {
		err = debianRoot(mnt, root)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(unix.Chdir(mnt), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if len(command) == 0 {
		return unix.Exec("/load", []string{"/load"}, nil)
	}
	if err := errors.Join(unix.Setgroups(nil), unix.Setresgid(uid, uid, uid), unix.Setresuid(uid, uid, uid)); err != nil {
		return fmt.Errorf("become user %d: %w", uid, err)
	}
	return unix.Exec(command[0], command, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/data", "LC_ALL=C"})
}

// smallRoot mounts a root file system with nothing but load.c's program.
func smallRoot(mnt string, program []byte) error {
	if err := unix.Mount("bench", mnt, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	for _, dir := range []string{"etc", "rare", "proc"} {
		if err := os.Mkdir(filepath.Join(mnt, dir), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(os.WriteFile(filepath.Join(mnt, "load"), program, 0o755), os.WriteFile(filepath.Join(mnt, "etc/known"), nil, 0o644),
		unix.Mount("proc", filepath.Join(mnt, "proc"), "proc", 0, ""))
}

// debianRoot mounts the unpacked packages, with room to write that nobody else sees.
func debianRoot(mnt, root string) error {
	if err := unix.Mount(root, mnt, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	for _, dir := range []string{"tmp", "run", "data"} {
		if err := unix.Mount("bench", filepath.Join(mnt, dir), "tmpfs", 0, "mode=1777"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, dir := range []string{"dev", "sys"} {
		if err := unix.Mount("/"+dir, filepath.Join(mnt, dir), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	// Not the container's part of /dev/shm: its own, as a runtime gives it.
	return errors.Join(unix.Mount("bench", filepath.Join(mnt, "dev/shm"), "tmpfs", 0, "mode=1777"),
		unix.Mount("proc", filepath.Join(mnt, "proc"), "proc", 0, ""))
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
