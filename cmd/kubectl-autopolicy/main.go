// Command kubectl-autopolicy is the kubectl plugin: it gives pkg/cli the
// process's streams, signals and exit code, and nothing more.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/autopolicy/kubectl-autopolicy/pkg/cli"
)

// version is set by the linker.
var version = "dev"

func main() {
	// A terminal that is closed and a pipe that nobody reads any more end a command
	// as Ctrl-C does: what it began is taken back.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(ctx)
	code := cli.Run(ctx, os.Args[0], os.Args[1:], cli.Streams(cancel), version)
	cancel()
	stop()
	os.Exit(code)
}
