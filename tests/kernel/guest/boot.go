//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/verdict"
)

// boot is the first process of a kernel in emulation: it makes a machine of what
// there is, runs everything, and switches the machine off.
func boot() {
	err := prepare()
	if err == nil {
		err = everything(context.Background())
	}
	if err != nil {
		fmt.Println("guest:", err)
	}
	fmt.Println("guest: end")
	unix.Sync()
	// It ends here, or the kernel panics and QEMU ends.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// prepare leaves the initial root, which nothing can be pivoted out of, and mounts
// what a machine has.
func prepare() error {
	const root = "/root"
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	for _, name := range []string{"init", "planted", "planted32"} {
		program, err := os.ReadFile("/" + name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(root+"/"+name, program, 0o755); err != nil {
			return err
		}
		if err := os.Remove("/" + name); err != nil {
			return err
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	for _, m := range [][3]string{
		{"proc", "/proc", "proc"}, {"sysfs", "/sys", "sysfs"}, {"devtmpfs", "/dev", "devtmpfs"}, {"tmpfs", "/tmp", "tmpfs"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2"}, {"securityfs", "/sys/kernel/security", "securityfs"},
	} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[2], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return loopbackUp()
}

// everything runs what there is to run, each in a process of its own, so that one
// that crashes does not take the machine along.
func everything(ctx context.Context) error {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	families := append([]string{""}, probe.Families()...)
	for _, word := range strings.Fields(string(line)) {
		if list, ok := strings.CutPrefix(word, "planted.families="); ok {
			families = strings.Split(list, ",")
		}
	}
	for _, family := range families {
		if err := child(ctx, family, "observe", "/", family); err != nil {
			return err
		}
	}
	for _, what := range refusals(true) {
		if err := child(ctx, "", "refuse", what); err != nil {
			return err
		}
	}
	return nil
}

// child runs this program once more. That it failed is a verdict too.
func child(ctx context.Context, family string, arguments ...string) error {
	command := exec.CommandContext(ctx, "/init", arguments...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if err := command.Run(); err != nil {
		run := newRun(family)
		run.Error = fmt.Sprintf("%s: %v", strings.Join(arguments, " "), err)
		return verdict.Write(os.Stdout, run)
	}
	return nil
}
