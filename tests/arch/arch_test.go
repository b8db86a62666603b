// Package arch holds the house to its plan: which room may import which, and
// what a pure room must not touch. It parses every Go file itself, for every
// operating system and build tag, so that no build cache and no tag hides one.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/autopolicy/kubectl-autopolicy/"

// room is a folder with everything below it and the rooms that it may import.
// A room is always free to import its own packages, except below pkg/engine.
type room struct {
	dir  string
	may  []string
	pure bool // reads no clock, file, network, environment or randomness
	// heavy are modules that only this room and others that name it may import.
	heavy []string
}

var left = []string{"pkg/behavior", "pkg/topology", "pkg/policy", "pkg/learn", "pkg/engine", "pkg/harden", "pkg/overlay"}

// rooms is the table of docs/architecture.md.
var rooms = []room{
	{dir: "bpf", heavy: []string{"github.com/cilium/ebpf"}},
	{dir: "manifests"},
	{dir: "manifests/image", may: []string{"manifests"}},
	{dir: "pkg/behavior", pure: true},
	{dir: "pkg/behavior/wire", may: []string{"pkg/behavior"}, pure: true},
	{dir: "pkg/probe", may: []string{"bpf", "pkg/behavior"}, heavy: []string{"github.com/cilium/ebpf"}},
	{dir: "pkg/collector", may: []string{"pkg/probe", "pkg/behavior"}},
	{dir: "pkg/topology", may: []string{"pkg/behavior"}, pure: true},
	{dir: "pkg/source", may: []string{"pkg/behavior", "pkg/topology", "manifests"}},
	{dir: "pkg/policy", may: []string{"pkg/behavior"}, pure: true},
	{dir: "pkg/learn", may: []string{"pkg/behavior", "pkg/topology", "pkg/policy"}, pure: true},
	{dir: "pkg/engine", may: []string{"pkg/policy", "pkg/behavior"}, pure: true},
	{dir: "pkg/harden", may: []string{"pkg/policy", "pkg/behavior", "pkg/engine"}, pure: true},
	{dir: "pkg/overlay", may: []string{"pkg/engine", "pkg/policy", "pkg/behavior"}, pure: true},
	{dir: "pkg/rollout", may: left, pure: true},
	{dir: "pkg/gitops", may: []string{"pkg/gitops/credential"}},
	{dir: "pkg/gitops/synced"},
	{dir: "pkg/gitops/credential"},
	{dir: "pkg/gitops/forge"},
	{dir: "pkg/web", may: append([]string{"pkg/rollout"}, left...)},
	{dir: "pkg/cli", may: append([]string{"pkg/source", "pkg/rollout", "pkg/gitops", "pkg/web", "manifests"}, left...)},
	{dir: "cmd/kubectl-autopolicy", may: []string{"pkg/cli"}},
	{dir: "cmd/autopolicy-collector", may: []string{"pkg/collector"}},
	{dir: "krew", may: []string{}},
}

// impure are packages of the standard library that a pure room must not import.
var impure = []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "io/ioutil", "syscall"}

func roomOf(dir string) (room, bool) {
	best, found := room{}, false
	for _, r := range rooms {
		if (dir == r.dir || strings.HasPrefix(dir, r.dir+"/")) && len(r.dir) > len(best.dir) {
			best, found = r, true
		}
	}
	return best, found
}

func TestEveryImportIsAllowed(t *testing.T) {
	files := 0
	for name, file := range parsed(t) {
		files++
		for _, problem := range check(name, file) {
			t.Errorf("%s: %s", name, problem)
		}
	}
	if files < 20 {
		t.Fatalf("only %d Go files found: the walk is broken", files)
	}
}

// check lists what a file may not do. Tests may import anything of ours and of
// others, so that they can prove things against the real programs; but no test
// makes an engine look at its sibling.
func check(name string, file *ast.File) (problems []string) {
	dir := path.Dir(name)
	r, ok := roomOf(dir)
	switch {
	case strings.HasPrefix(dir, "tests/") || strings.HasSuffix(name, "_test.go"):
		return nil
	case !ok:
		return []string{"this folder is no room of docs/architecture.md"}
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return []string{err.Error()}
		}
		ours, isOurs := strings.CutPrefix(imported, module)
		switch {
		case isOurs && !allowed(r, dir, ours):
			problems = append(problems, fmt.Sprintf("%s must not import %s", dir, ours))
		case r.pure && slices.Contains(impure, imported):
			problems = append(problems, fmt.Sprintf("%s is pure and must not import %s", dir, imported))
		}
		for _, other := range rooms {
			for _, heavy := range other.heavy {
				if strings.HasPrefix(imported, heavy) && !slices.Contains(r.heavy, heavy) && r.dir != "pkg/collector" {
					problems = append(problems, fmt.Sprintf("%s must not import %s", dir, imported))
				}
			}
		}
		// Programs that make something at build time are none of the product's.
		// A credential helper is a program by its nature.
		if buildTool := file.Name.Name == "main" && !strings.HasPrefix(dir, "cmd/"); imported == "os/exec" && !buildTool && dir != "pkg/gitops/credential" {
			problems = append(problems, "the product runs no other program")
		}
	}
	if r.pure {
		problems = append(problems, clocks(file)...)
	}
	return slices.Compact(problems)
}

func allowed(r room, dir, imported string) bool {
	to, ok := roomOf(imported)
	if !ok {
		return false
	}
	if to.dir == r.dir {
		// Engines share the root package and know nothing of each other.
		return r.dir != "pkg/engine" || imported == "pkg/engine" || strings.HasPrefix(imported, dir)
	}
	for _, may := range r.may {
		if imported == may || strings.HasPrefix(imported, may+"/") {
			return true
		}
	}
	return false
}

func clocks(file *ast.File) (problems []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && (sel.Sel.Name == "Now" || sel.Sel.Name == "Since" || sel.Sel.Name == "Sleep") {
				problems = append(problems, "a pure room reads no clock: time."+sel.Sel.Name)
			}
		}
		return true
	})
	return problems
}

func TestNoPackageVariablesButSentinels(t *testing.T) {
	for name, file := range parsed(t) {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "tests/") || ast.IsGenerated(file) {
			continue
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: no init functions: wire things up in one list", name)
			}
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, spec := range g.Specs {
				for _, id := range spec.(*ast.ValueSpec).Names {
					if id.IsExported() && !strings.HasPrefix(id.Name, "Err") && !(name == "manifests/manifests.go" || strings.HasPrefix(name, "manifests/")) {
						t.Errorf("%s: exported variable %s: state is passed in", name, id.Name)
					}
				}
			}
		}
	}
}

func TestEveryPackageSaysItsJob(t *testing.T) {
	documented := map[string]bool{}
	for name, file := range parsed(t) {
		if strings.HasSuffix(name, "_test.go") || ast.IsGenerated(file) {
			continue
		}
		dir := path.Dir(name)
		documented[dir] = documented[dir] || file.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no file has a package comment", dir)
		}
	}
}

// The check must catch what it is for.
func TestTheCheckRefuses(t *testing.T) {
	for name, c := range map[string]struct{ file, src string }{
		"an engine that knows its sibling":    {"pkg/engine/cilium/x.go", `package x; import _ "` + module + `pkg/engine/netpol"`},
		"a way back":                          {"pkg/behavior/x.go", `package x; import _ "` + module + `pkg/learn"`},
		"the plugin linking the probe":        {"pkg/cli/x.go", `package x; import _ "` + module + `pkg/probe"`},
		"the plugin linking the BPF loader":   {"pkg/source/cluster/x.go", `package x; import _ "github.com/cilium/ebpf"`},
		"a rollout that touches git":          {"pkg/rollout/x.go", `package x; import _ "` + module + `pkg/gitops"`},
		"a pure room that reads a file":       {"pkg/learn/x.go", `package x; import _ "os"`},
		"a pure room that reads the clock":    {"pkg/learn/x.go", `package x; import "time"; var _ = time.Now`},
		"a room that nobody planned":          {"pkg/helpers/x.go", `package x`},
		"the product calling another program": {"pkg/gitops/x.go", `package x; import _ "os/exec"`},
	} {
		t.Run(name, func(t *testing.T) {
			file, err := parser.ParseFile(token.NewFileSet(), c.file, c.src, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if len(check(c.file, file)) == 0 {
				t.Error("passed")
			}
		})
	}
}

// parsed gives every Go file of the main module by its slash path from the root.
func parsed(t *testing.T) map[string]*ast.File {
	t.Helper()
	root := os.DirFS(filepath.Join("..", ".."))
	files, set := map[string]*ast.File{}, token.NewFileSet()
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := path.Base(name); name != "." && (strings.HasPrefix(base, ".") || base == "testdata" || base == "dist" || base == "bin") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(root, path.Join(name, "go.mod")); err == nil && name != "." {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(set, name, src, parser.ParseComments)
		files[name] = file
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
