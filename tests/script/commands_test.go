package script

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/cli"
)

type snapshotsKey struct{}

// commands are what the stories can say beside testscript's own words.
func commands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"bytes":     rawBytes,
		"edit":      edit,
		"exits":     exits,
		"plant":     plantCommand,
		"printable": printable,
		"objects":   objects,
		"snapshot":  snapshot,
		"unchanged": unchanged,
		"serve":     serve,
		"interrupt": interrupt,
	}
}

// arguments ends a story that has a command with too few arguments, or with a
// "!" that would not be looked at.
func arguments(ts *testscript.TestScript, neg bool, args []string, least int, usage string) {
	if neg || len(args) < least {
		ts.Fatalf("usage: %s", usage)
	}
}

// rawBytes puts bytes that no script can hold, given as in a Go string, into a
// file, or into a variable where the name is one that has no dot.
func rawBytes(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2, "bytes FILE|VARIABLE TEXT")
	text, err := strconv.Unquote(`"` + args[1] + `"`)
	ts.Check(err)
	if !strings.Contains(args[0], ".") {
		ts.Setenv(args[0], text)
		return
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// edit does to the working copy in $SHOP what a person's editor would, on top of
// what was learned: the first OLD of a file becomes NEW, and that is committed.
func edit(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 3, "edit FILE OLD NEW")
	ts.Check(ts.Exec("git", "-C", ts.Getenv("SHOP"), "reset", "-q", "--hard", "origin/main"))
	name := filepath.Join(ts.Getenv("SHOP"), args[0])
	was := ts.ReadFile(name)
	now := strings.Replace(was, args[1], strings.ReplaceAll(args[2], `\n`, "\n"), 1)
	if now == was {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(name, []byte(now), 0o644))
	ts.Check(ts.Exec("git", "-C", ts.Getenv("SHOP"), "commit", "-q", "-a", "-m", "Edit by hand"))
}

// exits runs a program and wants this exit code of it.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2, "exits CODE PROGRAM [ARG...]")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got, err := 0, ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit code is %d, want %d", got, want)
	}
}

// printable wants text that no terminal acts on: UTF-8, printable, ends of lines.
func printable(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "printable stdout|stderr|FILE...")
	for _, name := range args {
		text := ts.ReadFile(name)
		if text == "" {
			ts.Fatalf("%s is empty", name)
		}
		for line, s := range strings.Split(text, "\n") {
			if i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || !utf8.ValidString(s) {
				ts.Fatalf("%s: line %d is not printable: %+q", name, line+1, s)
			}
		}
	}
}

// objects prints KIND/NAME of each Kubernetes object of a YAML stream, and wants
// each to be one that kubectl would apply.
func objects(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "objects stdout|FILE")
	for i, document := range strings.Split("\n"+ts.ReadFile(args[0]), "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		var o struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Metadata   struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"metadata"`
		}
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			ts.Fatalf("document %d: %v", i, err)
		}
		if o.APIVersion == "" || o.Kind == "" || o.Metadata.Name == "" {
			ts.Fatalf("document %d is no object: %.200s", i, document)
		}
		fmt.Fprintf(ts.Stdout(), "%s/%s\n", o.Kind, o.Metadata.Name)
	}
}

// snapshot remembers every file of a folder.
func snapshot(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "snapshot FOLDER")
	ts.Value(snapshotsKey{}).(map[string]string)[args[0]] = digest(ts, args[0])
}

// unchanged wants every file of a folder as snapshot saw it.
func unchanged(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "unchanged FOLDER")
	was, ok := ts.Value(snapshotsKey{}).(map[string]string)[args[0]]
	if !ok {
		ts.Fatalf("there is no snapshot of %s", args[0])
	}
	if now := digest(ts, args[0]); now != was {
		ts.Fatalf("%s was written to:\nbefore:\n%safter:\n%s", args[0], was, now)
	}
}

func digest(ts *testscript.TestScript, folder string) string {
	var list strings.Builder
	root := ts.MkAbs(folder)
	ts.Check(filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		fmt.Fprintf(&list, "%x %s\n", sha256.Sum256(data), strings.TrimPrefix(name, root))
		return err
	}))
	return list.String()
}

// serve serves the repositories of a folder over HTTP with git's own server, which
// runs their hooks, and names it in $SERVER.
func serve(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "serve FOLDER")
	git, err := exec.LookPath("git")
	ts.Check(err)
	s := httptest.NewServer(&cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Stderr: io.Discard, // it also goes into the answer
		Env: []string{"GIT_PROJECT_ROOT=" + ts.MkAbs(args[0]), "GIT_HTTP_EXPORT_ALL=1", "HOME=" + ts.Getenv("HOME")},
	})
	ts.Defer(s.Close)
	ts.Setenv("SERVER", s.URL)
}

// interrupt runs the plugin against an API server that takes requests and never
// answers, presses Ctrl-C as soon as it has one, and wants exit code 130.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 1, "interrupt ARG...")
	asked := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	ts.Defer(s.Close)
	path, err := exec.LookPath(program)
	ts.Check(err)
	cmd := exec.Command(path, append(args, "--server", s.URL)...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), &stderr
	cmd.Env = []string{"HOME=" + ts.Getenv("HOME"), "PATH=" + ts.Getenv("PATH"), "TMPDIR=" + ts.Getenv("TMPDIR")}
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-asked:
		ts.Check(cmd.Process.Signal(os.Interrupt))
		err = <-ended
	case err = <-ended:
		ts.Fatalf("it ended before it asked the server: %v\n%s", err, stderr.String())
	}
	fmt.Fprint(ts.Stderr(), stderr.String())
	if code := cmd.ProcessState.ExitCode(); code != cli.ExitSignal {
		ts.Fatalf("exit code is %d (%v), want %d\n%s", code, err, cli.ExitSignal, stderr.String())
	}
}

func plantCommand(ts *testscript.TestScript, neg bool, args []string) {
	arguments(ts, neg, args, 2, "plant REPOSITORY STEP...")
	for _, step := range args[1:] {
		if err := plant(context.Background(), ts.MkAbs(args[0]), step); err != nil {
			ts.Fatalf("plant %s: %v", step, err)
		}
	}
}
