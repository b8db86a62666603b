package gitops_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

const forReview = "autopolicy/shop/deny"

func ours(e gitops.LogEntry) bool { return e.Trailer("Autopolicy-Stage") != "" }

// reviewed is a bare repository with one commit, served over HTTP.
func reviewed(t *testing.T, before func(http.ResponseWriter, *http.Request) bool) (repo, url string) {
	t.Helper()
	dir := sandbox(t)
	repo = bare(t, filepath.Join(dir, "repo.git"))
	r := open(t, gitops.Options{URL: repo})
	c := change(t, r, map[string]string{"stage": "audit", "other": "1"})
	c.Message = "By a person\n"
	if _, err := r.Commit(t.Context(), c, nil); err != nil {
		t.Fatal(err)
	}
	return repo, gitServer(t, dir, before).URL + "/repo.git"
}

func propose(t *testing.T, url string, open_ bool) *gitops.Repository {
	t.Helper()
	r := open(t, gitops.Options{URL: url})
	if err := r.Propose(t.Context(), gitops.Review{Branch: forReview, Dir: "autopolicy/shop", Open: open_, Base: "Autopolicy-Base", Ours: ours}); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAReviewLeavesTheBranchThatIsRead(t *testing.T) {
	repo, url := reviewed(t, nil)
	main := git(t, repo, "rev-parse", "main")
	r := propose(t, url, false)
	first := commit(t, r, map[string]string{"stage": "deny"})
	if git(t, repo, "rev-parse", "main") != main || git(t, repo, "rev-parse", forReview) != string(first) || git(t, repo, "rev-parse", forReview+"~") != main {
		t.Error("the branches are not where they should be")
	}
	before, after, err := r.Offered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, map[string]string{"stage": "audit", "other": "1"})
	sameTree(t, after, map[string]string{"stage": "deny", "other": "1"})

	// While it is open, the next change goes on from it.
	second := commit(t, propose(t, url, true), map[string]string{"other": "2"})
	if git(t, repo, "rev-parse", string(second)+"~") != string(first) {
		t.Error("the open review was not gone on with")
	}
	// Not so once it was closed: it begins anew from main, forced.
	third := commit(t, propose(t, url, false), map[string]string{"third": "1"})
	if git(t, repo, "rev-parse", string(third)+"~") != main || git(t, repo, "rev-parse", forReview) != string(third) {
		t.Error("the closed review was not begun anew")
	}
	fsck(t, repo)
}

func TestWhatOneReviewIsBuiltOn(t *testing.T) {
	for name, c := range map[string]struct {
		between func(t *testing.T, repo string)
		open    bool
		want    map[string]string // of the folder, as the next change sees it
	}{
		"the base moved elsewhere: the review goes on": {func(t *testing.T, repo string) {
			r := open(t, gitops.Options{URL: repo, Branch: "main"})
			c := change(t, r, map[string]string{"x": "1"})
			c.Dir = "elsewhere"
			if _, err := r.Commit(context.Background(), c, nil); err != nil {
				t.Fatal(err)
			}
		}, true, map[string]string{"stage": "deny", "other": "1"}},
		"the base moved in the folder: it begins anew": {func(t *testing.T, repo string) {
			commit(t, open(t, gitops.Options{URL: repo, Branch: "main"}), map[string]string{"other": "2"})
		}, true, map[string]string{"stage": "audit", "other": "2"}},
		"the base was force-pushed to another history": {func(t *testing.T, repo string) {
			git(t, repo, "update-ref", "refs/heads/main", git(t, repo, "commit-tree", "-m", "Rewritten", "main^{tree}"))
		}, true, map[string]string{"stage": "audit", "other": "1"}},
		"it was merged": {func(t *testing.T, repo string) {
			git(t, repo, "update-ref", "refs/heads/main", forReview)
		}, false, map[string]string{"stage": "deny", "other": "1"}},
		"it was merged as another commit": {func(t *testing.T, repo string) {
			git(t, repo, "update-ref", "refs/heads/main", git(t, repo, "commit-tree", "-m", "Squashed", "-p", "main", forReview+"^{tree}"))
		}, false, map[string]string{"stage": "deny", "other": "1"}},
		"it was declined": {func(*testing.T, string) {}, false, map[string]string{"stage": "audit", "other": "1"}},
		"its branch was deleted": {func(t *testing.T, repo string) {
			git(t, repo, "update-ref", "-d", "refs/heads/"+forReview)
		}, false, map[string]string{"stage": "audit", "other": "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			repo, url := reviewed(t, nil)
			commit(t, propose(t, url, false), map[string]string{"stage": "deny"})
			c.between(t, repo)
			r := propose(t, url, c.open)
			sameTree(t, read(t, r, "autopolicy/shop"), c.want)
			rev := commit(t, r, map[string]string{"new": "1"})
			if git(t, repo, "rev-parse", forReview) != string(rev) {
				t.Error("the branch does not have the commit")
			}
			fsck(t, repo)
		})
	}
}

func TestAReviewIsNeverForcedOverOthersCommits(t *testing.T) {
	repo, url := reviewed(t, nil)
	commit(t, propose(t, url, false), map[string]string{"stage": "deny"})
	theirs := git(t, repo, "commit-tree", "-m", "By hand", "-p", forReview, forReview+"^{tree}")
	git(t, repo, "update-ref", "refs/heads/"+forReview, theirs)

	r := open(t, gitops.Options{URL: url})
	err := r.Propose(t.Context(), gitops.Review{Branch: forReview, Dir: "autopolicy/shop", Ours: ours})
	var branch *gitops.BranchError
	if !errors.As(err, &branch) || !strings.Contains(err.Error(), theirs[:10]) {
		t.Fatalf("%v", err)
	}
	hint(t, err)
	// Going on from them loses nothing.
	rev := commit(t, propose(t, url, true), map[string]string{"new": "1"})
	if git(t, repo, "rev-parse", string(rev)+"~") != theirs {
		t.Error("their commit is lost")
	}
}

// Two people promote different workloads at once: both changes are in the one
// pull request, the second judged on top of the first.
func TestTwoReviewsAtOnceBecomeOne(t *testing.T) {
	var rival func()
	var raced atomic.Bool
	repo, url := reviewed(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if isPush(r) && rival != nil && raced.CompareAndSwap(false, true) {
			rival()
		}
		return false
	})
	other := propose(t, url, false)
	rival = func() { commit(t, other, map[string]string{"theirs": "1"}) }
	mine := propose(t, url, false)
	c := change(t, mine, map[string]string{"mine": "1"})
	replays := 0
	rev, err := mine.Commit(t.Context(), c, func(_ context.Context, _ gitops.Tree, _ gitops.Revision) (gitops.Change, error) {
		replays++
		return c, nil
	})
	if err != nil || replays != 1 {
		t.Fatalf("%d replays: %v", replays, err)
	}
	if git(t, repo, "rev-parse", forReview) != string(rev) {
		t.Error("the branch does not have the commit")
	}
	tree := read(t, open(t, gitops.Options{URL: repo, Branch: forReview}), "autopolicy/shop")
	if string(tree["mine"]) != "1" || string(tree["theirs"]) != "1" {
		t.Errorf("the branch has %v", tree)
	}
	fsck(t, repo)
}

func TestALostConnectionWhilePushingAReviewIsSettled(t *testing.T) {
	var cut atomic.Bool
	var pass string
	repo, url := reviewed(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !isPush(r) || !cut.CompareAndSwap(false, true) {
			return false
		}
		passOn(t, pass+r.URL.Path, r)
		hijack(w)
		return true
	})
	pass = gitServer(t, filepath.Dir(repo), nil).URL
	rev := commit(t, propose(t, url, false), map[string]string{"stage": "deny"})
	if git(t, repo, "rev-parse", forReview) != string(rev) {
		t.Error("the commit is not there")
	}
}

func TestARefusedReviewChangesNothing(t *testing.T) {
	repo, url := reviewed(t, nil)
	write(t, filepath.Join(repo, "hooks/update"), "#!/bin/sh\necho 'branch names must begin with feature/' >&2\nexit 1\n")
	if err := os.Chmod(filepath.Join(repo, "hooks/update"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := propose(t, url, false)
	_, err := r.Commit(t.Context(), change(t, r, map[string]string{"stage": "deny"}), nil)
	var refused *gitops.RefusedError
	if !errors.As(err, &refused) || refused.Branch != forReview || !strings.Contains(err.Error(), "must begin with feature/") {
		t.Fatalf("%v", err)
	}
	if out, err := tryGit(repo, "", "rev-parse", "--verify", "-q", forReview); err == nil {
		t.Errorf("the branch is at %s", out)
	}
}

func TestWhatCannotBeReviewed(t *testing.T) {
	dir := sandbox(t)
	local := open(t, gitops.Options{URL: worktree(t, filepath.Join(dir, "local"))})
	empty := bare(t, filepath.Join(dir, "empty.git"))
	remote := open(t, gitops.Options{URL: gitServer(t, dir, nil).URL + "/" + filepath.Base(empty)})
	repo, url := reviewed(t, nil)
	_ = repo
	for name, c := range map[string]struct {
		r      *gitops.Repository
		branch string
	}{
		"a local repository":         {local, forReview},
		"an empty repository":        {remote, forReview},
		"the branch itself":          {open(t, gitops.Options{URL: url}), "main"},
		"a name that git refuses":    {open(t, gitops.Options{URL: url}), "a..b"},
		"a name that leaves refs":    {open(t, gitops.Options{URL: url}), "../../x"},
		"a name with a control byte": {open(t, gitops.Options{URL: url}), "a\x01b"},
	} {
		err := c.r.Propose(t.Context(), gitops.Review{Branch: c.branch, Dir: "autopolicy/shop", Ours: ours})
		var branch *gitops.BranchError
		if !errors.As(err, &branch) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		hint(t, err)
	}
}
