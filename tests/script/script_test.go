// Package script tells stories of the command line: each testdata/*.txtar runs
// the plugin's real main as a user would, against real git repositories and
// without a cluster, and reads what it says, what it exits with and what it
// leaves. It also holds docs/commands.md to the commands' own help.
package script

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/autopolicy/kubectl-autopolicy/pkg/cli"
)

const program = "kubectl-autopolicy"

var update = flag.Bool("update", false, "write docs/commands.md and the scripts' golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){program: func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		signal.Ignore(syscall.SIGPIPE)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		code := cli.Run(ctx, os.Args[0], os.Args[1:], cli.Streams(cancel), "v1.2.3")
		stop()
		os.Exit(code)
	}})
}

func TestScripts(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIPPED: the git program is not installed; the stories make and read repositories with it")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata", Setup: setup, Cmds: commands(),
		RequireExplicitExec: true, RequireUniqueNames: true, UpdateScripts: *update,
	})
}

// gitConfig is the user's: a name, and nothing that another machine would change.
const gitConfig = "[user]\n\tname = Jane Doe\n\temail = jane@example.com\n[init]\n\tdefaultBranch = main\n[commit]\n\tgpgSign = false\n"

// setup gives a story a home of its own. There is no KUBECONFIG, and nothing else
// of the environment of whoever runs the tests.
func setup(e *testscript.Env) error {
	home := filepath.Join(e.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(home, ".gitconfig"), []byte(gitConfig), 0o644); err != nil {
		return err
	}
	e.Setenv("HOME", home)
	e.Setenv("NO_COLOR", "1")
	e.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	e.Setenv("GIT_TERMINAL_PROMPT", "0")
	e.Values[snapshotsKey{}] = map[string]string{}
	return nil
}
