//go:build linux

package plant

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func process(path, parent string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Process, Path: path, Parent: parent}
}

func processes() []Thing {
	thing := func(name string, do func() error, facts ...behavior.Fact) Thing {
		return Thing{Name: name, Role: RoleMain, Do: do, Facts: facts}
	}
	gone := process(Dir+"/gone", Program)
	gone.Deleted = true
	script := process(Dir+"/script", Program)
	script.Interpreter = Child
	byChild := file("by-child", behavior.Read)
	byChild.Exe = Child
	return []Thing{
		thing("exec", run(Child, "read", Dir+"/by-child"), process(Child, Program), byChild),
		thing("exec of a child", run(Child, "run", Program, "nothing"), process(Program, Child)),
		thing("script", do(func() error { return os.WriteFile(Dir+"/script", []byte("#!"+Child+" nothing\n"), 0o755) }, run(Dir+"/script")), script),
		thing("memfd", execMemory, process("memfd:payload", Program)),
		thing("deleted", execDeleted, gone),
		thing("execveat", execAt, process(Dir+"/at", Program)),
	}
}

// run is Start as a step.
func run(path string, arguments ...string) func() error {
	return func() error { return Start(path, arguments...) }
}

// Start runs a program and waits for its end.
func Start(path string, arguments ...string) error {
	p, err := os.StartProcess(path, append([]string{path}, arguments...), &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return err
	}
	state, err := p.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("%s: %s", path, state)
	}
	return err
}

func copyProgram(to *os.File) error {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	_, err = to.Write(program)
	return err
}

func execMemory() error {
	fd, err := unix.MemfdCreate("payload", 0)
	if err != nil {
		return err
	}
	memory := os.NewFile(uintptr(fd), "memfd")
	defer memory.Close()
	if err := copyProgram(memory); err != nil {
		return err
	}
	return Start(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd), "nothing")
}

// reopened copies the program to a path and gives a descriptor of it to read only:
// a file that is open for writing cannot be executed.
func reopened(path string) (*os.File, error) {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		return nil, err
	}
	if err := copyProgram(to); err != nil {
		return nil, err
	}
	if err := to.Close(); err != nil {
		return nil, err
	}
	return os.Open(path)
}

func execDeleted() error {
	program, err := reopened(Dir + "/gone")
	if err != nil {
		return err
	}
	defer program.Close()
	if err := os.Remove(Dir + "/gone"); err != nil {
		return err
	}
	return Start(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()), "nothing")
}

// execAt has a child of the program become another by execveat(2): the child is the
// program itself first.
func execAt() error {
	program, err := reopened(Dir + "/at")
	if err != nil {
		return err
	}
	if err := program.Close(); err != nil {
		return err
	}
	return Start(Program, "execveat", Dir+"/at")
}

// Execveat becomes the program at path, in whose name it never returns.
func Execveat(path string) error {
	runtime.LockOSThread()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	argument, err := unix.BytePtrFromString("nothing")
	if err != nil {
		return err
	}
	arguments := []*byte{argument, argument, nil}
	environment := []*byte{nil}
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&arguments[0])), uintptr(unsafe.Pointer(&environment[0])), unix.AT_EMPTY_PATH, 0)
	return fmt.Errorf("execveat %s: %w", path, errno)
}
