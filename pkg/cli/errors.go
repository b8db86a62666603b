package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
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
	if len(all) == 0 && err != nil {
		if text := advice(err); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// advice is for errors that bring no hint of their own, because what can be done
// depends on the commands there are, or because they are not ours.
func advice(err error) string {
	var file *overlay.InvalidError
	var object *engine.InvalidError
	var unknown *rollout.UnknownWorkloadError
	var first *rollout.NoEarlierStageError
	var web *url.Error
	switch {
	case errors.As(err, &object):
		return "the policy is in the base folder of its workload or in custom; correct it and commit, or take back the commit that made it so"
	case errors.As(err, &file):
		return "correct the file and commit it, or take back the commit that made it so ('git log -p' shows which)"
	case errors.As(err, &unknown):
		return "name one that has, or learn it with 'kubectl autopolicy discover'; -n names another namespace"
	case errors.Is(err, rollout.ErrNoneChosen):
		return "'kubectl autopolicy status' lists the workloads; their waves are in rollout.yaml, their labels are those of their pods"
	case errors.As(err, &first):
		return "there is no promotion to take back; -n names another namespace"
	case errors.Is(err, rollout.ErrNothingObserved):
		return "observe for longer (--duration), while the workloads are in use"
	case errors.Is(err, cluster.ErrNoNamespace), errors.Is(err, cluster.ErrNoPods):
		return "-n names another namespace, --context another cluster"
	case apierrors.IsUnauthorized(err):
		return "the cluster does not know these credentials: log in to it again"
	case errors.As(err, &web) && !errors.Is(err, context.Canceled):
		return "check that the cluster runs and can be reached; --kubeconfig and --context name another one"
	}
	return ""
}

// noArguments refuses arguments of a command that has only flags.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return hinted(fmt.Errorf("%s takes no argument, and got %q", c.Name(), args[0]), fmt.Sprintf("see '%s --help'", c.CommandPath()))
}

// knownCommand refuses what is no command, and names those that it may be meant
// to be.
func knownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := fmt.Sprintf("see '%s --help'", c.CommandPath())
	if similar := c.SuggestionsFor(args[0]); len(similar) > 0 {
		hint = "did you mean " + strings.Join(similar, " or ") + "?"
	}
	return hinted(fmt.Errorf("unknown command %q", args[0]), hint)
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

// errNoCluster is for a command that needs a cluster where nothing names one.
var errNoCluster = errors.New("no cluster named: there is no kubeconfig")
