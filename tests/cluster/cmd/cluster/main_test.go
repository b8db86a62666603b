package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestACommandLineThatIsNotUnderstood(t *testing.T) {
	state := t.TempDir()
	for name, args := range map[string][]string{
		"no command":                        {},
		"a command that does not exist":     {"begin"},
		"a flag that does not exist":        {"up", "--size=3"},
		"a word where none belongs":         {"down", "now"},
		"an image without a program":        {"image", filepath.Join(state, "x.tar"), "localhost/x:1"},
		"an added file without a place":     {"image", "x.tar", "localhost/x:1", "--binary=x", "--add=file"},
		"a node to enter without a command": {"node", "node0"},
		"nothing to load":                   {"load"},
	} {
		t.Run(name, func(t *testing.T) {
			if len(args) > 1 {
				args = append(args, "--state="+state)
			}
			err := run(t.Context(), args, io.Discard, io.Discard)
			var out bytes.Buffer
			if code := report(&out, err); code != 2 {
				t.Errorf("exit code %d for %v, want 2", code, err)
			}
			if !strings.Contains(out.String(), "hint: see: cluster help") {
				t.Errorf("said %q, without a way on", out.String())
			}
		})
	}
}

func TestAClusterThatIsNotUpIsSaidWithAHint(t *testing.T) {
	for _, args := range [][]string{{"kubeconfig"}, {"env"}, {"load", "x.tar"}, {"node", "node0", "--", "true"}} {
		var out bytes.Buffer
		line := append([]string{args[0], "--state=" + t.TempDir()}, args[1:]...)
		if code := report(&out, run(t.Context(), line, io.Discard, io.Discard)); code != 1 {
			t.Errorf("cluster %s: exit code %d, want 1", args[0], code)
		}
		if want := "error: the cluster is not up\nhint: start it with: cluster up\n"; out.String() != want {
			t.Errorf("cluster %s said %q, want %q", args[0], out.String(), want)
		}
	}
}

func TestHelpNamesEveryCommandOnStdout(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"help"}, &stdout, &stderr); err != nil || stderr.Len() > 0 {
		t.Fatalf("error %v, stderr %q", err, stderr.String())
	}
	for _, c := range commands() {
		if !strings.Contains(stdout.String(), "cluster "+c.name+" ") {
			t.Errorf("help does not name %s", c.name)
		}
	}
}

func TestImageTakesFlagsAfterWordsAndArgumentsAfterDashes(t *testing.T) {
	dir := t.TempDir()
	program, out := filepath.Join(dir, "app"), filepath.Join(dir, "out.tar")
	if err := os.WriteFile(program, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), []string{"image", out, "localhost/app:1", "--binary", program, "--link=app:/bin/sh", "--", "--name=x"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"Entrypoint":["/app"]`, `"Cmd":["--name=x"]`, `"RepoTags":["localhost/app:1"]`, "bin/sh"} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("the image lacks %s", want)
		}
	}
}

func TestAnImageThatCannotBeWrittenLeavesNoFile(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.tar")
	if err := run(t.Context(), []string{"image", out, "localhost/app:1", "--binary=/does/not/exist"}, io.Discard, io.Discard); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a file was left")
	}
}
