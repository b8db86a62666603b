package cli

import (
	"errors"
	"os"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// Streams are the process's own. When nobody reads what is written any more, gone is
// called, so that the command can end as on Ctrl-C. The caller has the process ignore
// SIGPIPE: the kernel sends that for a network connection that breaks as well, which
// is no reason to end.
func Streams(gone func()) genericiooptions.IOStreams {
	return genericiooptions.IOStreams{In: os.Stdin, Out: output{os.Stdout, gone}, ErrOut: output{os.Stderr, gone}}
}

// output is a file that tells when its reader went away.
type output struct {
	*os.File
	gone func()
}

// Write implements io.Writer.
func (o output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		o.gone()
	}
	return n, err
}
