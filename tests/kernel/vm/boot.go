package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what is booted.
type Machine struct {
	Arch    string
	Image   string // kernel
	Initial string // initial file system
	Words   string // of the kernel's command line, beside those that every one gets
	Timeout time.Duration
	Turns   bool // its processors do not run side by side
}

// program is QEMU for the architecture and what it needs beside the machine's own.
func (m Machine) program() (string, []string, string) {
	if m.Arch == "arm64" {
		// The architected algorithm of pointer authentication is slow to emulate.
		return "qemu-system-aarch64", []string{"-M", "virt", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0"
	}
	// With cx16 the emulation of Debian 12's QEMU stops in 6.12's memory allocator.
	return "qemu-system-x86_64", []string{"-cpu", "max,-cx16"}, "ttyS0"
}

// Needs is the program that a machine of the architecture needs.
func Needs(arch string) string {
	name, _, _ := Machine{Arch: arch}.program()
	return name
}

// Boot runs the machine until it switches itself off, and writes what its console
// shows to console. It ends with an error when that takes longer than the timeout;
// no process is left then either.
func (m Machine) Boot(ctx context.Context, console io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.Timeout, fmt.Errorf("it ran longer than %s", m.Timeout))
	defer cancel()
	name, arguments, terminal := m.program()
	accelerator := "tcg"
	if m.Turns {
		accelerator = "tcg,thread=single"
	}
	arguments = append(arguments,
		"-accel", accelerator, "-smp", "2", "-m", "1536", "-display", "none", "-serial", "stdio", "-monitor", "none",
		"-nic", "none", "-no-reboot", "-kernel", m.Image, "-initrd", m.Initial,
		"-append", "console="+terminal+" panic=-1 quiet loglevel=1 "+m.Words)
	command := exec.CommandContext(ctx, name, arguments...)
	command.Stdout, command.Stderr = console, console
	command.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, errors.Join(err, context.Cause(ctx)))
	}
	return nil
}
