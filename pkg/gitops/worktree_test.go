package gitops_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

func TestWorktreeFollowsTheCommit(t *testing.T) {
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	untouched := git(t, dir, "ls-tree", "-r", "HEAD", "README", "bin", "link")
	write(t, filepath.Join(dir, "README"), "edited\n")
	write(t, filepath.Join(dir, "staged"), "s\n")
	git(t, dir, "add", "staged")
	write(t, filepath.Join(dir, "untracked"), "u\n")
	want := git(t, dir, "status", "--porcelain")

	r := open(t, gitops.Options{URL: dir})
	commit(t, r, map[string]string{"rollout.yaml": "stage: deny\n", "old.yaml": "", "workloads/web/base/new.yaml": "n\n"})

	// The index must be right before git looks at a file again.
	if out, err := tryGit(dir, "", "diff-files", "--name-only", "--", "autopolicy"); err != nil || out != "" {
		t.Errorf("git diff-files: %v %s", err, out)
	}
	if got := git(t, dir, "status", "--porcelain"); got != want {
		t.Errorf("git status is\n%s\nwant\n%s", got, want)
	}
	if got := git(t, dir, "ls-tree", "-r", "HEAD", "README", "bin", "link"); got != untouched {
		t.Errorf("untouched paths are\n%s\nwant\n%s", got, untouched)
	}
	data, err := os.ReadFile(filepath.Join(dir, "autopolicy/shop/workloads/web/base/new.yaml"))
	if err != nil || string(data) != "n\n" {
		t.Errorf("file on disk: %q %v", data, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "autopolicy/shop/old.yaml")); !os.IsNotExist(err) {
		t.Errorf("deleted file: %v", err)
	}
	if got := git(t, dir, "reflog", "-1", "--format=%gs"); got != "commit: Learn shop" {
		t.Errorf("reflog says %q", got)
	}
	fsck(t, dir)

	t.Run("a second commit, and one that empties the folder", func(t *testing.T) {
		commit(t, r, map[string]string{"rollout.yaml": "stage: audit\n"})
		commit(t, r, map[string]string{"rollout.yaml": "", "workloads/web/base/new.yaml": ""})
		if _, err := os.Lstat(filepath.Join(dir, "autopolicy")); !os.IsNotExist(err) {
			t.Errorf("empty folder: %v", err)
		}
		if got := git(t, dir, "status", "--porcelain"); got != want {
			t.Errorf("git status is\n%s\nwant\n%s", got, want)
		}
		fsck(t, dir)
	})
}

func TestAFileAndAFolderTakeEachOthersName(t *testing.T) {
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	r := open(t, gitops.Options{URL: dir})
	commit(t, r, map[string]string{"old.yaml": "", "old.yaml/inside": "1"})
	commit(t, r, map[string]string{"old.yaml/inside": "", "old.yaml": "2"})
	if got := git(t, dir, "status", "--porcelain"); got != "" {
		t.Errorf("git status is %s", got)
	}
	var unsafe *gitops.UnsafeError
	for _, files := range []map[string]string{{"old.yaml/x": "1"}, {"rollout.yaml/x/y": "1"}} {
		if _, err := r.Commit(context.Background(), change(t, r, files), nil); !errors.As(err, &unsafe) {
			t.Errorf("%v: %v", files, err)
		}
	}
}

func TestModesAreKept(t *testing.T) {
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	r := open(t, gitops.Options{URL: dir})
	c := change(t, r, map[string]string{"run": "#!/bin/bash\n"})
	c.Dir = "bin"
	if _, err := r.Commit(context.Background(), c, nil); err != nil {
		t.Fatal(err)
	}
	if got := git(t, dir, "ls-tree", "HEAD", "bin/run"); !strings.HasPrefix(got, "100755") {
		t.Errorf("entry is %s", got)
	}
	if got := git(t, dir, "status", "--porcelain"); got != "" {
		t.Errorf("git status is %s", got)
	}
}

func TestDirtyFolder(t *testing.T) {
	const shop = "autopolicy/shop/"
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string)
		want []string // nil: the commit is made
	}{
		"an edited file is refused": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, shop, "rollout.yaml"), "stage: none!\n")
		}, []string{shop + "rollout.yaml"}},
		"a staged edit is refused": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, shop, "rollout.yaml"), "x\n")
			git(t, dir, "add", "-A")
			write(t, filepath.Join(dir, shop, "rollout.yaml"), "stage: audit\n")
		}, []string{shop + "rollout.yaml"}},
		"a deleted file and a new one are both named": {func(t *testing.T, dir string) {
			git(t, dir, "mv", shop+"old.yaml", shop+"b.yaml")
		}, []string{shop + "b.yaml", shop + "old.yaml"}},
		"an untracked file is refused": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, shop, "custom/p.yaml"), "x")
		}, []string{shop + "custom/p.yaml"}},
		"an executable bit is refused": {func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, shop, "old.yaml"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, []string{shop + "old.yaml"}},
		"a folder that became a link out of the repository is refused": {func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, "autopolicy"), filepath.Join(dir, "../outside")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("../outside", filepath.Join(dir, "autopolicy")); err != nil {
				t.Fatal(err)
			}
		}, []string{shop + "old.yaml", shop + "rollout.yaml"}},
		"an ignored file that would be overwritten is refused": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, ".git/info/exclude"), "*.yaml\n")
			write(t, filepath.Join(dir, shop, "new.yaml"), "precious")
		}, []string{shop + "new.yaml"}},
		"ignored files do not count": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, ".gitignore"), "*.swp\n")
			write(t, filepath.Join(dir, shop, ".gitignore"), "/tmp/\n")
			git(t, dir, "add", "-A")
			git(t, dir, "commit", "-qm", "Ignore")
			write(t, filepath.Join(dir, shop, ".a.swp"), "x")
			write(t, filepath.Join(dir, shop, "tmp/x"), "x")
		}, nil},
		"changes elsewhere do not count": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "autopolicy/other/x"), "x")
			write(t, filepath.Join(dir, "autopolicy/shop.yaml"), "x")
		}, nil},
		"line ends that git turns do not count": {func(t *testing.T, dir string) {
			git(t, dir, "config", "core.autocrlf", "true")
			write(t, filepath.Join(dir, shop, "rollout.yaml"), "stage: audit\r\n")
		}, nil},
		"a sparse checkout without the folder does not count": {func(t *testing.T, dir string) {
			git(t, dir, "sparse-checkout", "set", "bin")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := worktree(t, filepath.Join(sandbox(t), "repo"))
			c.make(t, dir)
			before := git(t, dir, "rev-parse", "HEAD")
			status := git(t, dir, "status", "--porcelain")
			r := open(t, gitops.Options{URL: dir})
			checked := r.Check(context.Background(), "autopolicy/shop")
			rev, err := r.Commit(context.Background(), change(t, r, map[string]string{"new.yaml": "n\n"}), nil)
			if after := git(t, dir, "status", "--porcelain"); after != status {
				t.Errorf("git status was\n%s\nis\n%s", status, after)
			}
			if c.want == nil {
				if err != nil || checked != nil || string(rev) != git(t, dir, "rev-parse", "HEAD") {
					t.Errorf("commit %s: %v, check: %v", rev, err, checked)
				}
				return
			}
			var dirty *gitops.DirtyError
			if !errors.As(err, &dirty) || strings.Join(dirty.Files, " ") != strings.Join(c.want, " ") {
				t.Fatalf("%T %v", err, err)
			}
			hint(t, err)
			if git(t, dir, "rev-parse", "HEAD") != before {
				t.Error("HEAD has moved")
			}
		})
	}
}

func TestBusyRepository(t *testing.T) {
	for name, file := range map[string]string{
		"a locked index is refused": "index.lock", "an unfinished merge is refused": "MERGE_HEAD",
		"a locked branch is refused": "refs/heads/main.lock",
	} {
		t.Run(name, func(t *testing.T) {
			dir := worktree(t, filepath.Join(sandbox(t), "repo"))
			write(t, filepath.Join(dir, ".git", file), "")
			r := open(t, gitops.Options{URL: dir})
			before := head(t, r)
			_, err := r.Commit(context.Background(), change(t, r, map[string]string{"n": "1"}), nil)
			var busy *gitops.BusyError
			if !errors.As(err, &busy) || head(t, r) != before {
				t.Fatalf("%T %v", err, err)
			}
			hint(t, err)
			if _, err := os.Stat(filepath.Join(dir, ".git", file)); err != nil {
				t.Errorf("another program's file is gone: %v", err)
			}
			if err := os.Remove(filepath.Join(dir, ".git", file)); err != nil {
				t.Fatal(err)
			}
			if got := git(t, dir, "status", "--porcelain"); got != "" {
				t.Errorf("git status is %s", got)
			}
		})
	}
}

func TestDivergedBranch(t *testing.T) {
	dir := sandbox(t)
	origin := worktree(t, filepath.Join(dir, "origin"))
	git(t, dir, "clone", "-q", origin, "clone")
	clone := filepath.Join(dir, "clone")
	r := open(t, gitops.Options{URL: clone})
	commit(t, r, map[string]string{"ahead": "1"}) // ahead is fine
	commit(t, r, map[string]string{"ahead": "2"})

	commit(t, open(t, gitops.Options{URL: origin}), map[string]string{"theirs": "1"})
	git(t, clone, "fetch", "-q")
	var diverged *gitops.DivergedError
	_, err := r.Commit(context.Background(), change(t, r, map[string]string{"x": "1"}), nil)
	if !errors.As(err, &diverged) || diverged.Upstream != "origin/main" || diverged.Branch != "main" {
		t.Fatalf("%T %v", err, err)
	}
	hint(t, err)
	git(t, clone, "pull", "-q", "--rebase")
	commit(t, r, map[string]string{"x": "1"})
}

func TestOtherBranchesAndWorktrees(t *testing.T) {
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	git(t, dir, "branch", "policies")
	linked := filepath.Join(dir, "../linked")

	t.Run("a branch that is not checked out moves alone", func(t *testing.T) {
		write(t, filepath.Join(dir, "autopolicy/shop/rollout.yaml"), "edited\n")
		status := git(t, dir, "status", "--porcelain")
		rev := commit(t, open(t, gitops.Options{URL: dir, Branch: "policies"}), map[string]string{"p": "1"})
		if git(t, dir, "rev-parse", "policies") != string(rev) || git(t, dir, "status", "--porcelain") != status {
			t.Error("the checked-out branch was touched")
		}
	})
	t.Run("a linked worktree is followed, and its branch refused from elsewhere", func(t *testing.T) {
		git(t, dir, "worktree", "add", "-q", linked, "policies")
		var branch *gitops.BranchError
		r := open(t, gitops.Options{URL: dir, Branch: "policies"})
		if _, err := r.Commit(context.Background(), change(t, r, map[string]string{"q": "1"}), nil); !errors.As(err, &branch) {
			t.Errorf("%T %v", err, err)
		}
		commit(t, open(t, gitops.Options{URL: linked}), map[string]string{"q": "1"})
		if got := git(t, linked, "status", "--porcelain"); got != "" {
			t.Errorf("git status is %s", got)
		}
	})
	t.Run("a detached HEAD with a branch named moves the branch alone", func(t *testing.T) {
		git(t, dir, "checkout", "-q", "--", ".")
		git(t, dir, "checkout", "-q", "--detach")
		commit(t, open(t, gitops.Options{URL: dir, Branch: "main"}), map[string]string{"r": "1"})
		if got := git(t, dir, "status", "--porcelain"); got != "" {
			t.Errorf("git status is %s", got)
		}
	})
	t.Run("a branch that was switched since is refused", func(t *testing.T) {
		git(t, dir, "switch", "-q", "main")
		r := open(t, gitops.Options{URL: dir})
		git(t, dir, "switch", "-qc", "elsewhere")
		var branch *gitops.BranchError
		if _, err := r.Commit(context.Background(), change(t, r, map[string]string{"s": "1"}), nil); !errors.As(err, &branch) {
			t.Errorf("%T %v", err, err)
		}
	})
	t.Run("packed refs and packed objects are read and moved", func(t *testing.T) {
		git(t, dir, "gc", "-q")
		r := open(t, gitops.Options{URL: dir})
		commit(t, r, map[string]string{"t": "1"})
		git(t, dir, "gc", "-q", "--prune=now")
		commit(t, r, map[string]string{"t": "2"})
		fsck(t, dir)
	})
}

func TestAnEmptyWorktreeGetsItsFirstCommit(t *testing.T) {
	dir := filepath.Join(sandbox(t), "repo")
	git(t, ".", "init", "-q", "-b", "trunk", dir)
	r := open(t, gitops.Options{URL: dir})
	commit(t, r, map[string]string{"a": "1"})
	if got := git(t, dir, "status", "--porcelain", "-b"); got != "## trunk" || r.Branch() != "trunk" {
		t.Errorf("git status is %s", got)
	}
}

func TestACommitWhileTheChangeIsMadeAnew(t *testing.T) {
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	r := open(t, gitops.Options{URL: dir})
	c := change(t, r, map[string]string{"mine": "1"})
	c.Base, c.Files["rollout.yaml"] = "", []byte("stage: deny\n")
	replays := 0
	_, err := r.Commit(context.Background(), c, func(_ context.Context, tree gitops.Tree, _ gitops.Revision) (gitops.Change, error) {
		if replays++; replays == 1 {
			write(t, filepath.Join(dir, "autopolicy/shop/theirs"), "1")
			git(t, dir, "add", "-A")
			git(t, dir, "commit", "-qm", "Theirs")
		} else if string(tree["theirs"]) != "1" {
			t.Errorf("replay was given %v", tree)
		}
		return c, nil
	})
	if err != nil || replays != 2 {
		t.Fatalf("%d replays: %v", replays, err)
	}
	sameTree(t, read(t, r, "autopolicy/shop"), map[string]string{"mine": "1", "theirs": "1", "rollout.yaml": "stage: deny\n", "old.yaml": "old\n"})
	if got := git(t, dir, "status", "--porcelain"); got != "" {
		t.Errorf("git status is %s", got)
	}
}

func TestAnEmptyFolderInTheWayOfAFile(t *testing.T) {
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	r := open(t, gitops.Options{URL: dir})
	if err := os.MkdirAll(filepath.Join(dir, "autopolicy/shop/sub/new"), 0o755); err != nil {
		t.Fatal(err) // git does not see it, and a rename stumbles over it
	}
	before := head(t, r)
	_, err := r.Commit(context.Background(), change(t, r, map[string]string{"sub/new": "1"}), nil)
	var dirty *gitops.DirtyError
	if !errors.As(err, &dirty) || head(t, r) != before {
		t.Errorf("%T %v", err, err)
	}
}
