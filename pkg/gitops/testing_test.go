package gitops_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

var (
	when   = time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	author = gitops.Signature{Name: "Ada", Email: "ada@example.org"}
)

// sandbox gives git and go-git a home of their own, and skips without git.
func sandbox(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIPPED: the git program is not installed; it is the judge of these tests")
	}
	dir := t.TempDir()
	t.Setenv("HOME", filepath.Join(dir, "home"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "home", ".config"))
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	t.Setenv("SSH_AUTH_SOCK", "")
	if err := os.Mkdir(filepath.Join(dir, "home"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := "[user]\n\tname = Home\n\temail = home@example.org\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n"
	write(t, filepath.Join(dir, "home", ".gitconfig"), config)
	return dir
}

func write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// git runs the real program and returns its output without the last newline.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tryGit(dir, "", args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryGit(dir, stdin string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return strings.TrimRight(string(out), "\n"), err
}

// bare makes an empty bare repository that may be pushed to over HTTP.
func bare(t *testing.T, dir string) string {
	t.Helper()
	git(t, ".", "init", "-q", "--bare", dir)
	git(t, dir, "config", "http.receivepack", "true")
	return dir
}

// clone makes a worktree with one commit that holds a file, a link, an
// executable and a folder of ours.
func worktree(t *testing.T, dir string) string {
	t.Helper()
	git(t, ".", "init", "-q", dir)
	write(t, filepath.Join(dir, "README"), "hello\n")
	write(t, filepath.Join(dir, "bin/run"), "#!/bin/sh\n")
	write(t, filepath.Join(dir, "autopolicy/shop/rollout.yaml"), "stage: audit\n")
	write(t, filepath.Join(dir, "autopolicy/shop/old.yaml"), "old\n")
	if err := os.Chmod(filepath.Join(dir, "bin/run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("README", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-q", "-m", "First")
	return dir
}

func open(t *testing.T, o gitops.Options) *gitops.Repository {
	t.Helper()
	if o.Author == (gitops.Signature{}) {
		o.Author = author
	}
	r, err := gitops.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func head(t *testing.T, r *gitops.Repository) gitops.Revision {
	t.Helper()
	h, err := r.Head()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func read(t *testing.T, r *gitops.Repository, dir string) gitops.Tree {
	t.Helper()
	tree, _, err := r.Read(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// change is a change on top of the repository's head; "" deletes a file.
func change(t *testing.T, r *gitops.Repository, files map[string]string) gitops.Change {
	t.Helper()
	c := gitops.Change{
		Dir: "autopolicy/shop", Base: head(t, r), Files: map[string][]byte{},
		Message: "Learn shop\n\nWhy.\n\nAutopolicy-Stage: audit\n", When: when,
	}
	for name, data := range files {
		c.Files[name] = []byte(data)
		if data == "" {
			c.Files[name] = nil
		}
	}
	return c
}

func commit(t *testing.T, r *gitops.Repository, files map[string]string) gitops.Revision {
	t.Helper()
	rev, err := r.Commit(context.Background(), change(t, r, files), nil)
	if err != nil {
		t.Fatal(err)
	}
	if h := head(t, r); h != rev {
		t.Fatalf("head is %s after commit of %s", h, rev)
	}
	return rev
}

func sameTree(t *testing.T, got gitops.Tree, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("tree has %d files, want %d", len(got), len(want))
	}
	for name, data := range want {
		if !bytes.Equal(got[name], []byte(data)) {
			t.Errorf("%s is %q, want %q", name, got[name], data)
		}
	}
}

// hint returns the hint of an error that must have one.
func hint(t *testing.T, err error) string {
	t.Helper()
	h, ok := err.(interface{ Hint() string })
	if !ok || h.Hint() == "" {
		t.Errorf("%T has no hint", err)
		return ""
	}
	return h.Hint()
}

func fsck(t *testing.T, dir string) {
	t.Helper()
	if out, err := tryGit(dir, "", "fsck", "--strict", "--no-dangling"); err != nil {
		t.Errorf("git fsck: %v\n%s", err, out)
	}
}
