package cli

import (
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// silentError ends a command with an exit code when all is said already.
type silentError struct{ code int }

func (e *silentError) Error() string { return "not yet" }

// hintError adds to an error what the user can do about it.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// Hint implements the interface that hints looks for.
func (e *hintError) Hint() string { return e.hint }

func hinted(err error, hint string) error { return &hintError{err, hint} }

// hints collects what the errors joined or wrapped in err advise, each once, the
// outermost first.
func hints(err error) []string {
	var all []string
	var walk func(error)
	walk = func(err error) {
		if err == nil {
			return
		}
		if h, ok := err.(interface{ Hint() string }); ok {
			if text := h.Hint(); text != "" && !slices.Contains(all, text) {
				all = append(all, text)
			}
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			walk(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, each := range e.Unwrap() {
				walk(each)
			}
		}
	}
	walk(err)
	return all
}

// printable keeps the lines of a text that may quote a server or a pod, and
// escapes whatever else a terminal would act on. It is the last fence, not the
// only one.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(behavior.Escape(string(r)))
	}
	return b.String()
}

// errNoRepository is for a command that needs a repository and was given none.
var errNoRepository = errors.New("no GitOps repository named")
