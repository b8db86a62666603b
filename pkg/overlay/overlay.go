// Package overlay turns rendered objects into the Kustomize tree of one
// namespace and a tree back into objects. It is the only place that knows how
// the files lie and how a stage is written, and it proves that a tree builds.
//
// A tree comes out of a repository that anybody may have written to. So nothing
// here touches a disk, a network or another program: what kustomize would fetch,
// run or read from elsewhere is refused before kustomize sees it. The package
// decides nothing about stages and never writes below custom/.
package overlay

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Files and folders of a namespace's tree.
const (
	Kustomization = "kustomization.yaml" // what is applied; one line a workload names its stage
	NamespaceFile = "namespace.yaml"     // the namespace's posture annotations
	Custom        = "custom"             // people's own; never written
	workloads     = "workloads"
	base          = "base"
)

// Tree holds the files of one namespace: bytes by slash path, relative to the
// namespace's folder. Values are shared and never written to.
type Tree map[string][]byte

// With is the tree after changes: a nil value deletes the file. The receiver
// stays as it is.
func (t Tree) With(changes map[string][]byte) Tree {
	n := make(Tree, len(t)+len(changes))
	maps.Copy(n, t)
	for p, data := range changes {
		if data == nil {
			delete(n, p)
		} else {
			n[p] = data
		}
	}
	return n
}

// Paths lists the files in order.
func (t Tree) Paths() []string { return slices.Sorted(maps.Keys(t)) }

// Index lists the files of a tree in order, so that those of many folders are
// found without going through all of them each time.
type Index []string

// Index is that of the tree as it is now.
func (t Tree) Index() Index { return t.Paths() }

// Below lists, in order, the files under a folder, with their whole paths. The
// result is a part of the index: it is not to be written to.
func (x Index) Below(folder string) []string {
	from, _ := slices.BinarySearch(x, folder+"/")
	to, _ := slices.BinarySearch(x, folder+"0") // '0' comes after '/'
	return x[from:to:to]
}

// InvalidError is a file of the tree that cannot be used as it stands.
type InvalidError struct {
	File   string
	Line   int // from 1; 0 when the whole file is meant
	Reason string
}

// Error implements error.
func (e *InvalidError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", printable(e.File), e.Line, e.Reason)
	}
	return printable(e.File) + ": " + e.Reason
}

// Folder is where the files of a workload lie.
func Folder(slug string) string { return path.Join(workloads, slug) }

// BaseFolder is where the learned rules of a workload lie.
func BaseFolder(slug string) string { return path.Join(workloads, slug, base) }

// StageFolder is the folder that a kustomization lists for a workload at stage.
func StageFolder(slug string, stage policy.Stage) string {
	return path.Join(workloads, slug, string(stage))
}

// Slugs lists, in order, the workloads that the tree has a folder for, whether
// they are applied or not.
func Slugs(t Tree) []string {
	seen := map[string]bool{}
	for p := range t {
		if rest, ok := strings.CutPrefix(p, workloads+"/"); ok {
			if slug, _, ok := strings.Cut(rest, "/"); ok {
				seen[slug] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// CheckSlug refuses a slug that could not be one folder of the tree: the name
// comes from an API object or from a file that somebody handed in.
func CheckSlug(slug string) error {
	ok := slug != "" && len(slug) <= 253 && slug[0] != '.' && slug[0] != '-' && !strings.Contains(slug, "..") &&
		!strings.ContainsFunc(slug, func(r rune) bool {
			return r != '-' && r != '.' && (r < 'a' || r > 'z') && (r < '0' || r > '9')
		})
	if !ok {
		return fmt.Errorf("workload name %q: want lower case letters, digits, dashes and dots", slug)
	}
	return nil
}

// checkPaths refuses names that are not plain relative paths.
func checkPaths(t Tree) error {
	for _, p := range t.Paths() {
		if !fs.ValidPath(p) || p == "." || strings.ContainsAny(p, "\\\x00\n\r") {
			return &InvalidError{File: p, Reason: "is not a plain path inside the folder"}
		}
	}
	return nil
}

// printable keeps text from a repository from reaching a terminal as control
// characters.
func printable(s string) string {
	quoted := fmt.Sprintf("%+q", s)
	if quoted == `"`+s+`"` {
		return s
	}
	return quoted
}
