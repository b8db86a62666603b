package gitops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// untracked adds the files below dir that the index does not know and that no
// ignore file names.
func (w *worktree) untracked(ctx context.Context, dir string, dirty map[string]bool) error {
	patterns, err := gitignore.LoadGlobalPatterns(osfs.New("/"))
	if err != nil {
		return fmt.Errorf("read global ignore file: %w", err)
	}
	exclude, err := os.ReadFile(filepath.Join(w.commonDir, "info", "exclude"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read ignore file: %w", err)
	}
	patterns = append(patterns, parseIgnore(exclude, nil)...)
	for _, d := range append([]string{"."}, parents(join(dir, "x"))...) {
		if d != dir { // its own are read by the walk
			patterns = append(patterns, w.ignoreFile(d)...)
		}
	}
	top := filepath.FromSlash(dir)
	if top == "" {
		top = "."
	}
	if _, err := w.root.Lstat(top); err != nil {
		return nil // the folder is not there
	}
	return fs.WalkDir(w.root.FS(), filepath.ToSlash(top), func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("list worktree: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		case p == ".git":
			return skip(d)
		case w.byPath[p] != nil:
			return nil
		case p != "." && gitignore.NewMatcher(patterns).Match(strings.Split(p, "/"), d.IsDir()):
			return skip(d)
		case d.IsDir():
			patterns = append(patterns, w.ignoreFile(p)...)
		default:
			dirty[p] = true
		}
		return nil
	})
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// ignoreFile returns the patterns of a folder's .gitignore; one that is not
// there or cannot be read ignores nothing.
func (w *worktree) ignoreFile(dir string) []gitignore.Pattern {
	data, err := w.root.ReadFile(filepath.FromSlash(path.Join(dir, ".gitignore")))
	if err != nil {
		return nil
	}
	var domain []string
	if dir != "." {
		domain = strings.Split(dir, "/")
	}
	return parseIgnore(data, domain)
}

func parseIgnore(data []byte, domain []string) []gitignore.Pattern {
	var out []gitignore.Pattern
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, gitignore.ParsePattern(line, domain))
		}
	}
	return out
}
