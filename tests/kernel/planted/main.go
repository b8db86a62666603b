//go:build linux

// Command planted does one of everything that a collector must see, each thing at a
// known place: see package plant. It runs as the program of a container, and says on
// its output how each thing went, one a line: ok, absent or failed, name, reason.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/autopolicy/kubectl-autopolicy/tests/kernel/plant"
)

func main() {
	runtime.LockOSThread() // capabilities and the mount namespace are a thread's
	if err := act(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "planted:", err)
		os.Exit(1)
	}
}

func act(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("no role is given")
	}
	role, rest := arguments[0], arguments[1:]
	input := bufio.NewReader(os.Stdin)
	switch role {
	case "nothing", "/plant/script":
		return nil
	case "execveat":
		return plant.Execveat(rest[0])
	case "run":
		return plant.Start(rest[0], rest[1:]...)
	case "read":
		_, err := os.ReadFile(rest[0])
		return err
	case plant.RoleExec, plant.RoleProbe, plant.RoleCompat:
		plant.Run(role, runtime.GOARCH, report)
		return nil
	case plant.RoleMain:
		plant.Run(role, runtime.GOARCH, report)
		return wait(input)
	case plant.RoleHeld:
		plant.Run(role, runtime.GOARCH, report)
		if err := wait(input); err != nil {
			return err
		}
		later := plant.Later()
		report(later.Name, later.Do())
		return wait(input)
	}
	return fmt.Errorf("unknown role %q", role)
}

// wait says that everything is done and stays until it is told to go on, or nobody is
// there any more to tell it.
func wait(input *bufio.Reader) error {
	fmt.Println("done")
	if _, err := input.ReadString('\n'); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func report(name string, err error) {
	switch {
	case err == nil:
		fmt.Printf("ok\t%s\n", name)
	case errors.Is(err, plant.ErrAbsent):
		fmt.Printf("absent\t%s\t%v\n", name, err)
	default:
		fmt.Printf("failed\t%s\t%v\n", name, err)
	}
}
