package gitops_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

func TestPushIsOvertaken(t *testing.T) {
	for name, c := range map[string]struct {
		races int32
		match func(*http.Request) bool
	}{
		"before the push looks at the branch":    {1, func(r *http.Request) bool { return r.URL.RawQuery == "service=git-receive-pack" }},
		"between its look and its pack":          {1, isPush},
		"four times in a row":                    {4, isPush},
		"again and again until it has no chance": {100, isPush},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sandbox(t)
			repo := bare(t, filepath.Join(dir, "repo.git"))
			rival := open(t, gitops.Options{URL: repo})
			commit(t, rival, map[string]string{"base": "1"})
			var races atomic.Int32
			s := gitServer(t, dir, func(_ http.ResponseWriter, r *http.Request) bool {
				if c.match(r) && races.Load() < c.races {
					commit(t, rival, map[string]string{fmt.Sprint("theirs-", races.Add(1)): "1"})
				}
				return false
			})
			r := open(t, gitops.Options{URL: s.URL + "/repo.git"})
			replays := int32(0)
			mine := change(t, r, map[string]string{"mine": "1"})
			rev, err := r.Commit(context.Background(), mine, func(_ context.Context, tree gitops.Tree, _ gitops.Revision) (gitops.Change, error) {
				if replays++; string(tree[fmt.Sprint("theirs-", replays)]) != "1" {
					t.Errorf("replay %d was given %v", replays, tree)
				}
				return mine, nil
			})
			var overtaken *gitops.OvertakenError
			if c.races > 5 {
				if !errors.As(err, &overtaken) || replays != 5 {
					t.Errorf("%d replays: %T %v", replays, err, err)
				}
				hint(t, err)
				return
			}
			if err != nil || replays != c.races {
				t.Fatalf("%d replays, want %d: %v", replays, c.races, err)
			}
			if git(t, repo, "rev-parse", "main") != string(rev) {
				t.Error("the remote does not have the commit")
			}
			if n := len(read(t, rival, "autopolicy/shop")); n != int(c.races)+2 {
				t.Errorf("%d files", n)
			}
			fsck(t, repo)
		})
	}
}

func TestReplayMayFindThatNothingIsLeftToDo(t *testing.T) {
	dir := sandbox(t)
	repo := bare(t, filepath.Join(dir, "repo.git"))
	rival := open(t, gitops.Options{URL: repo})
	s := gitServer(t, dir, nil)
	r := open(t, gitops.Options{URL: s.URL + "/repo.git"})
	c := change(t, r, map[string]string{"a": "1"})
	want := commit(t, rival, map[string]string{"a": "1"})
	_, err := r.Commit(context.Background(), c, func(context.Context, gitops.Tree, gitops.Revision) (gitops.Change, error) { return c, nil })
	if !errors.Is(err, gitops.ErrNothingToCommit) || git(t, repo, "rev-parse", "main") != string(want) {
		t.Errorf("%v", err)
	}
}

func TestRefusedPush(t *testing.T) {
	dir := sandbox(t)
	repo := bare(t, filepath.Join(dir, "repo.git"))
	commit(t, open(t, gitops.Options{URL: repo}), map[string]string{"a": "1"})
	hook := "#!/bin/sh\ncat >/dev/null\nprintf 'branch is protected \\033[31m\\n' >&2\nexit 1\n"
	write(t, filepath.Join(repo, "hooks/pre-receive"), hook)
	if err := os.Chmod(filepath.Join(repo, "hooks/pre-receive"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := open(t, gitops.Options{URL: gitServer(t, dir, nil).URL + "/repo.git"})
	before := head(t, r)
	_, err := r.Commit(context.Background(), change(t, r, map[string]string{"b": "1"}), nil)
	var refused *gitops.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), `branch is protected \x1b[31m`) || strings.Contains(err.Error(), "\x1b") {
		t.Fatalf("%T %v", err, err)
	}
	hint(t, err)
	if head(t, r) != before || git(t, repo, "rev-parse", "main") != string(before) {
		t.Error("the branch has moved")
	}
}

// hijack cuts the connection in the middle of an answer.
func hijack(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		c.Close()
	}
}

// passOn sends a push to another server and reads its answer.
func passOn(t *testing.T, url string, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	res, err := http.Post(url, r.Header.Get("Content-Type"), bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	if answer, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("push that was passed on: %s %q %v", res.Status, answer, err)
	}
}

func TestConnectionLostInAPush(t *testing.T) {
	for name, c := range map[string]struct {
		arrives, reachable bool
		check              func(err error) bool
	}{
		"after the commit arrived it is found there": {true, true, func(err error) bool { return err == nil }},
		"before it arrived the error says so": {false, true, func(err error) bool {
			var e *gitops.UncertainError
			return errors.As(err, &e) && e.Asked && strings.Contains(e.Error(), "does not have commit")
		}},
		"and the server is gone: nobody can tell": {true, false, func(err error) bool {
			var e *gitops.UncertainError
			return errors.As(err, &e) && !e.Asked
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sandbox(t)
			repo := bare(t, filepath.Join(dir, "repo.git"))
			old := commit(t, open(t, gitops.Options{URL: repo}), map[string]string{"a": "1"})
			inner := gitServer(t, dir, nil)
			var gone atomic.Bool
			s := gitServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
				if gone.Load() {
					hijack(w)
					return true
				}
				if !isPush(r) {
					return false
				}
				gone.Store(!c.reachable)
				if c.arrives {
					passOn(t, inner.URL+r.URL.Path, r)
				}
				hijack(w)
				return true
			})
			r := open(t, gitops.Options{URL: s.URL + "/repo.git"})
			rev, err := r.Commit(context.Background(), change(t, r, map[string]string{"b": "1"}), nil)
			if !c.check(err) {
				t.Fatalf("%T %v", err, err)
			}
			if err != nil {
				hint(t, err)
			}
			at := gitops.Revision(git(t, repo, "rev-parse", "main"))
			if (at != old) != c.arrives || err == nil && at != rev {
				t.Errorf("the remote is at %s, was at %s", at, old)
			}
		})
	}
}

func TestABranchThatWasRewritten(t *testing.T) {
	dir := sandbox(t)
	repo := bare(t, filepath.Join(dir, "repo.git"))
	local := open(t, gitops.Options{URL: repo})
	first := commit(t, local, map[string]string{"a": "1"})
	commit(t, local, map[string]string{"a": "2"})
	r := open(t, gitops.Options{URL: gitServer(t, dir, nil).URL + "/repo.git"})
	c := change(t, r, map[string]string{"mine": "1"})
	git(t, repo, "update-ref", "refs/heads/main", string(first))
	rev, err := r.Commit(context.Background(), c, func(context.Context, gitops.Tree, gitops.Revision) (gitops.Change, error) { return c, nil })
	if err != nil || git(t, repo, "rev-parse", string(rev)+"^") != string(first) {
		t.Errorf("%s %v", rev, err)
	}
}
