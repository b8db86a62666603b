//go:build linux && amd64

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// remote is a child of a service's process in which we make system calls, as code
// does that somebody smuggled into the service: it has the service's executable,
// user, capabilities, filters and descriptors. It is made and used by one thread,
// which traces it.
type remote struct {
	pid     int
	call    uint64 // where a system call instruction is
	scratch uint64 // memory for arguments
	used    uint64
	gone    bool
	visit   func(port int) error // has a client connect to the pod
}

// scratchSize is room for the arguments of one attack.
const scratchSize = 64 << 10

// fork has the process make a child, and leaves the process as it was. The caller
// has locked its thread, and ends the child with exit.
func fork(pid int) (_ *remote, err error) {
	call, err := callAddress(pid)
	if err != nil {
		return nil, err
	}
	if err := unix.PtraceAttach(pid); err != nil {
		return nil, fmt.Errorf("attach to process %d: %w", pid, err)
	}
	detached := false
	defer func() {
		if !detached {
			err = errors.Join(err, unix.PtraceDetach(pid))
		}
	}()
	if err := stopped(pid, unix.SIGSTOP); err != nil {
		return nil, err
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACEFORK|unix.PTRACE_O_TRACEVFORK|unix.PTRACE_O_TRACECLONE); err != nil {
		return nil, err
	}
	var before unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &before); err != nil {
		return nil, err
	}
	child, result, err := 0, uint64(0), error(nil)
	for _, number := range []uint64{unix.SYS_CLONE, unix.SYS_FORK} { // what one filter lacks another may have
		child, result, err = advance(pid, before, call, number, uint64(unix.SIGCHLD))
		if child != 0 || err != nil {
			break
		}
	}
	if err := errors.Join(err, unix.PtraceSetRegs(pid, &before)); err != nil {
		return nil, err
	}
	detached = true
	if err := unix.PtraceDetach(pid); err != nil {
		return nil, err
	}
	if child == 0 {
		return nil, fmt.Errorf("%w: %w", errNoChild, errnoOf(result))
	}
	r := &remote{pid: child, call: call}
	if err := stopped(child, unix.SIGSTOP); err != nil {
		return nil, err
	}
	r.scratch, err = r.do(unix.SYS_MMAP, 0, scratchSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0), 0)
	return r, err
}

// callAddress finds a system call instruction in the process's vDSO.
func callAddress(pid int) (uint64, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.Contains(line, "[vdso]") {
			continue
		}
		from, to, _ := strings.Cut(strings.Fields(line)[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err := errors.Join(err, err2); err != nil {
			return 0, err
		}
		code := make([]byte, end-start)
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			return 0, err
		}
		defer memory.Close()
		if _, err := memory.ReadAt(code, int64(start)); err != nil {
			return 0, err
		}
		if i := bytes.Index(code, []byte{0x0f, 0x05}); i >= 0 {
			return start + uint64(i), nil
		}
	}
	return 0, fmt.Errorf("process %d has no vDSO with a system call", pid)
}

// stopped waits until the process stops with the signal; others are passed on.
func stopped(pid int, want unix.Signal) error {
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
		switch {
		case !status.Stopped():
			return errEnded
		case status.StopSignal() == want:
			return nil
		}
		if err := unix.PtraceCont(pid, int(status.StopSignal())); err != nil {
			return err
		}
	}
}

var errEnded = errors.New("the process ended")

// errNoChild comes with the error for which the process could not be forked.
var errNoChild = errors.New("no child process")

// advance makes the stopped process do one system call. It gives the child that came
// of it, if any.
func advance(pid int, regs unix.PtraceRegs, at uint64, number uint64, args ...uint64) (child int, result uint64, err error) {
	var a [6]uint64
	copy(a[:], args)
	regs.Rip, regs.Rax, regs.Orig_rax = at, number, ^uint64(0)
	regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
	if err := unix.PtraceSetRegs(pid, &regs); err != nil {
		return 0, 0, err
	}
	for {
		if err := unix.PtraceSingleStep(pid); err != nil {
			return child, 0, err
		}
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			return child, 0, err
		}
		if !status.Stopped() {
			return child, 0, errEnded
		}
		if status.StopSignal() != unix.SIGTRAP {
			continue // a signal that was on its way: it is not for the one that we made up
		}
		if cause := status.TrapCause(); cause > 0 {
			message, err := unix.PtraceGetEventMsg(pid)
			if err != nil {
				return child, 0, err
			}
			child = int(message)
			continue
		}
		var after unix.PtraceRegs
		err := unix.PtraceGetRegs(pid, &after)
		return child, after.Rax, err
	}
}

// errnoOf is the error that a system call returned, nil for none.
func errnoOf(result uint64) error {
	if n := -int64(result); n > 0 && n < 4096 {
		return unix.Errno(n)
	}
	return nil
}

// do makes a system call.
func (r *remote) do(number uint64, args ...uint64) (uint64, error) {
	if r.gone {
		return 0, errEnded
	}
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(r.pid, &regs); err != nil {
		return 0, err
	}
	_, result, err := advance(r.pid, regs, r.call, number, args...)
	if err != nil {
		r.gone = true
		return 0, err
	}
	return result, errnoOf(result)
}

// bytes puts an argument into the child's memory.
func (r *remote) bytes(b []byte) uint64 {
	at := r.scratch + r.used
	r.used += (uint64(len(b)) + 15) &^ 15
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", r.pid), os.O_WRONLY, 0)
	if err != nil || r.used > scratchSize {
		return 0 // the call will fail with EFAULT
	}
	defer memory.Close()
	if _, err := memory.WriteAt(b, int64(at)); err != nil {
		return 0
	}
	return at
}

// text is a C string.
func (r *remote) text(s string) uint64 { return r.bytes(append([]byte(s), 0)) }

// list is an argument or environment vector.
func (r *remote) list(texts ...string) uint64 {
	var b []byte
	for _, s := range texts {
		b = binary.LittleEndian.AppendUint64(b, r.text(s))
	}
	return r.bytes(binary.LittleEndian.AppendUint64(b, 0))
}

// exec becomes another program; after that nothing more can be asked of the child,
// which runs on by itself.
func (r *remote) exec(path string, args ...string) error {
	_, err := r.do(unix.SYS_EXECVE, r.text(path), r.list(args...), r.list("PATH=/usr/sbin:/usr/bin:/sbin:/bin"))
	return r.became(err)
}

func (r *remote) became(err error) error {
	if err == nil {
		r.gone = true
		return unix.PtraceDetach(r.pid)
	}
	return err
}

// exit ends the child without a word to its parent.
func (r *remote) exit() error {
	if r.gone {
		return nil
	}
	if _, err := r.do(unix.SYS_EXIT_GROUP, 0); err != nil && !errors.Is(err, errEnded) {
		return errors.Join(err, unix.Kill(r.pid, unix.SIGKILL))
	}
	return nil
}

// within calls f with a child of the process, on a thread of its own.
func within(pid int, visit func(port int) error, f func(*remote) error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with this: a tracer is a thread
		done <- func() error {
			r, err := fork(pid)
			if err != nil {
				return err
			}
			r.visit = visit
			err = f(r)
			if ended := r.exit(); ended != nil && err == nil {
				err = ended
			}
			return err
		}()
	}()
	return <-done
}
