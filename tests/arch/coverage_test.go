package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every reason for a loss has a row on the page that users read, and every row
// there has a reason in the code and a test that exists.
func TestEveryLossHasARowAndEveryRowATest(t *testing.T) {
	page, err := os.ReadFile("../../docs/coverage.md")
	if err != nil {
		t.Fatal(err)
	}
	code, said := reasons(t), map[string]bool{}
	tests := testNames(t)
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "|---") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		for _, reason := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			said[reason[1]] = true
			if !code[reason[1]] {
				t.Errorf("docs/coverage.md explains %q, which nothing says", reason[1])
			}
		}
		named := regexp.MustCompile(`Test\w+`).FindAllString(cells[len(cells)-1], -1)
		if len(named) == 0 && !strings.HasSuffix(strings.TrimSpace(line), "| test |") {
			t.Errorf("no test forces %q", cells[0])
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(code)) {
		if !said[reason] {
			t.Errorf("docs/coverage.md does not explain %q", reason)
		}
	}
	for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(string(page), -1) {
		if !tests[name] {
			t.Errorf("docs/coverage.md names %s, which is no test", name)
		}
	}
	if len(code) < 30 {
		t.Errorf("only %d reasons are found in the code: the test shows nothing", len(code))
	}
}

// reasons are the texts under which the code counts losses: what is given to lose
// and miss, what lost is indexed by, what lossReasons and room give, and constants
// that say so by their names.
func reasons(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	var files []*ast.File
	for _, dir := range []string{"../../pkg/probe", "../../pkg/collector", "../../pkg/source/cluster", "../../pkg/behavior"} {
		files = append(files, parse(t, dir)...)
	}
	values := constants{}
	for _, file := range files {
		ast.Inspect(file, values.note)
	}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			for _, reason := range reasonsOf(n, values) {
				reason, _, _ = strings.Cut(reason, ": ") // the kind of fact
				all[reason] = true
			}
			return true
		})
	}
	delete(all, "")
	return all
}

// constants are the texts that names stand for, somewhere.
type constants map[string][]string

func (c constants) note(n ast.Node) bool {
	spec, ok := n.(*ast.ValueSpec)
	for i := 0; ok && i < min(len(spec.Names), len(spec.Values)); i++ {
		name := spec.Names[i].Name
		c[name] = append(c[name], texts(spec.Values[i], nil)...)
	}
	return true
}

func reasonsOf(n ast.Node, values constants) []string {
	switch n := n.(type) {
	case *ast.CallExpr:
		selector, ok := n.Fun.(*ast.SelectorExpr)
		if !ok || len(n.Args) == 0 {
			return nil
		}
		switch selector.Sel.Name {
		case "lose":
			return texts(n.Args[0], values)
		case "miss":
			var list []string
			for _, what := range texts(n.Args[0], nil) {
				list = append(list, "snapshot of "+what)
			}
			return list
		}
	case *ast.IndexExpr:
		if name := lastName(n.X); strings.EqualFold(name, "lost") || name == "Node" || name == "disowned" {
			return texts(n.Index, values)
		}
	case *ast.BinaryExpr: // with the program's name after it
		if list := texts(n.X, nil); len(list) == 1 && list[0] == "program re-entered: " {
			return list
		}
	case *ast.FuncDecl:
		if n.Name.Name == "lossReasons" || n.Name.Name == "room" {
			return returned(n)
		}
	}
	return nil
}

// returned gives all texts that a function may return.
func returned(f *ast.FuncDecl) []string {
	var list []string
	ast.Inspect(f.Body, func(n ast.Node) bool {
		statement, ok := n.(*ast.ReturnStmt)
		if !ok {
			return true
		}
		ast.Inspect(statement, func(v ast.Node) bool {
			if e, ok := v.(ast.Expr); ok {
				list = append(list, texts(e, nil)...)
			}
			return true
		})
		return false
	})
	return list
}

// texts is the value of a string literal, or those that a name stands for.
func texts(e ast.Expr, values constants) []string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if s, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return []string{s}
		}
	case *ast.Ident:
		return values[e.Name]
	case *ast.SelectorExpr:
		return values[e.Sel.Name]
	}
	return nil
}

func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func parse(t *testing.T, dir string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// testNames are all tests of the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, pattern := range []string{"../../pkg/*/*_test.go", "../../pkg/*/*/*_test.go", "../../tests/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(source), -1) {
				names[m[1]] = true
			}
		}
	}
	return names
}
