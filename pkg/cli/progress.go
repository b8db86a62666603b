package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// progressEvery is how often a log, which is no terminal, gets a line of
// progress.
const progressEvery = 10 * time.Second

// progress tells on standard error what is going on. On a terminal the line of
// a long step is written over; elsewhere it is repeated now and then.
type progress struct {
	out      io.Writer
	quiet    bool
	terminal bool
	open     bool // a line is being written over
	last     time.Time
	now      func() time.Time
}

func (a *app) progress() *progress {
	return &progress{out: a.ErrOut, quiet: a.quiet, terminal: isTerminal(a.ErrOut), now: a.now}
}

// isTerminal tells whether w is one that takes escape sequences.
func isTerminal(w io.Writer) bool {
	f, ok := w.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}

// say writes a line that stays.
func (p *progress) say(format string, args ...any) {
	if p.quiet {
		return
	}
	p.end()
	fmt.Fprintln(p.out, printable(fmt.Sprintf(format, args...)))
}

// update replaces the line of the step that is under way.
func (p *progress) update(format string, args ...any) {
	if p.quiet {
		return
	}
	text := printable(fmt.Sprintf(format, args...))
	switch {
	case p.terminal:
		fmt.Fprint(p.out, "\r\x1b[K"+text)
		p.open = true
	case p.now().Sub(p.last) >= progressEvery:
		p.last = p.now()
		fmt.Fprintln(p.out, text)
	}
}

// end finishes a line that is being written over.
func (p *progress) end() {
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}
