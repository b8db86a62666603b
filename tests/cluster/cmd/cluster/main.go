// Command cluster starts and stops a real Kubernetes cluster on this machine,
// and makes and loads the images that run on it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/autopolicy/kubectl-autopolicy/tests/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(report(os.Stderr, run(ctx, os.Args[1:], os.Stdout, os.Stderr)))
}

// report prints err with its hint, and returns the exit code: 0 for none, 2
// for a command line that is not understood, else 1.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(w, "error:", err)
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		fmt.Fprintln(w, "hint:", hint.Hint())
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// run carries out one command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == cluster.SuperviseCommand {
		return cluster.Supervise(ctx, args[1:])
	}
	for _, c := range commands() {
		if len(args) > 0 && c.name == args[0] {
			return c.do(ctx, args[1:], stdout, stderr)
		}
	}
	asked := len(args) > 0 && (args[0] == "help" || args[0] == "--help" || args[0] == "-h")
	w := stderr
	if asked {
		w = stdout
	}
	fmt.Fprintln(w, "A real Kubernetes cluster on this machine, for tests.\n\nUsage:")
	for _, c := range commands() {
		fmt.Fprintf(w, "  cluster %-70s %s\n", c.name+" "+c.usage, c.what)
	}
	fmt.Fprintln(w, "\nEvery command takes --name=NAME and --state=DIR (or AUTOPOLICY_CLUSTER_STATE).")
	if asked {
		return nil
	}
	return &usageError{"no command, or one that does not exist"}
}

// usageError is a command line that cannot be carried out.
type usageError struct{ what string }

func (e *usageError) Error() string { return e.what }

// Hint says where the right form is.
func (e *usageError) Hint() string { return "see: cluster help" }
