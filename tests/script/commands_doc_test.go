package script

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/autopolicy/kubectl-autopolicy/pkg/cli"
)

// commandsDoc is generated from what the commands say of themselves.
var commandsDoc = filepath.Join("..", "..", "docs", "commands.md")

const commandsDocHead = `<!-- Code generated from the commands' own help by "go test ./tests/script -update". DO NOT EDIT. -->

# Commands

What ` + "`--help`" + ` prints. The flags of ` + "`kubectl autopolicy`" + ` itself are the same for every command and
are listed once. Exit codes and ` + "`autopolicy.yaml`" + `: [configuration.md](configuration.md).
`

func TestCommandsDocIsWhatHelpPrints(t *testing.T) {
	want := commandsDocHead + section(t, "kubectl autopolicy", ask(t, "--help"))
	names := subcommands(t)
	if len(names) < 7 {
		t.Fatalf("only %q: the list of commands is broken", names)
	}
	for _, name := range names {
		help := ask(t, name, "--help")
		own, _, _ := strings.Cut(help, "\nGlobal Flags:\n")
		want += section(t, "kubectl autopolicy "+name, own)
	}
	if *update {
		if err := os.WriteFile(commandsDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(commandsDoc)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/commands.md is not what the commands say: run 'go test ./tests/script -run Doc -update'")
	}
}

// subcommands lists the commands as completion offers them, so that one which is
// added is not forgotten here.
func subcommands(t *testing.T) (names []string) {
	t.Helper()
	for line := range strings.Lines(ask(t, "__completeNoDesc", "")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != ':' && line != "help" {
			names = append(names, line)
		}
	}
	return names
}

func section(t *testing.T, heading, text string) string {
	t.Helper()
	if text = strings.TrimSpace(text); text == "" || strings.Contains(text, "```") {
		t.Fatalf("help of %s cannot be put into a page: %q", heading, text)
	}
	return "\n## " + heading + "\n\n```text\n" + text + "\n```\n"
}

// ask runs the plugin here, and gives what it says on standard output.
func ask(t *testing.T, args ...string) string {
	t.Helper()
	var out, errOut bytes.Buffer
	streams := genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &errOut}
	if code := cli.Run(context.Background(), program, args, streams, "v1.2.3"); code != cli.ExitDone {
		t.Fatalf("%q exits with %d: %s", args, code, errOut.String())
	}
	return out.String()
}
