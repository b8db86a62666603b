// Command kubectl-autopolicy is the kubectl plugin: it gives pkg/cli the
// process's streams, signals and exit code, and nothing more.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/autopolicy/kubectl-autopolicy/pkg/cli"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	code := cli.Run(ctx, os.Args[0], os.Args[1:], streams, version)
	stop()
	os.Exit(code)
}
