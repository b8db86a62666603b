package gitops_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

func TestBareRepository(t *testing.T) {
	for _, scheme := range []string{"", "file://"} {
		t.Run("an empty repository gets its first commit through "+scheme+"path", func(t *testing.T) {
			dir := bare(t, filepath.Join(sandbox(t), "repo.git"))
			r := open(t, gitops.Options{URL: scheme + dir})
			if tree, rev, err := r.Read(context.Background(), "autopolicy"); err != nil || len(tree) != 0 || rev != "" {
				t.Fatalf("empty repository: %v %q %v", tree, rev, err)
			}
			first := commit(t, r, map[string]string{"a.yaml": "a\n", "base/b.yaml": "b\n"})
			sameTree(t, read(t, r, "autopolicy"), map[string]string{"shop/a.yaml": "a\n", "shop/base/b.yaml": "b\n"})
			fsck(t, dir)
			want := "Ada ada@example.org Ada ada@example.org 1772597167 main"
			if got := git(t, dir, "log", "-1", "--format=%an %ae %cn %ce %at %D", "main"); got != strings.Replace(want, "main", "HEAD -> main", 1) {
				t.Errorf("commit is %q", got)
			}
			if got := git(t, dir, "log", "-1", "--format=%B", string(first)); got != "Learn shop\n\nWhy.\n\nAutopolicy-Stage: audit" {
				t.Errorf("message is %q", got)
			}
			if got := git(t, dir, "show", "main:autopolicy/shop/base/b.yaml"); got != "b" {
				t.Errorf("git shows %q", got)
			}
		})
	}
}

func TestAChangeThatChangesNothing(t *testing.T) {
	r := open(t, gitops.Options{URL: bare(t, filepath.Join(sandbox(t), "repo.git"))})
	rev := commit(t, r, map[string]string{"a": "1"})
	for name, files := range map[string]map[string]string{
		"the same bytes": {"a": "1"}, "no file": {}, "a deleted file that is not there": {"x/y": ""},
	} {
		if _, err := r.Commit(context.Background(), change(t, r, files), nil); !errors.Is(err, gitops.ErrNothingToCommit) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if head(t, r) != rev {
		t.Error("the branch has moved")
	}
}

func TestAnEmptyFileIsNotADeletedOne(t *testing.T) {
	r := open(t, gitops.Options{URL: bare(t, filepath.Join(sandbox(t), "repo.git"))})
	c := change(t, r, nil)
	c.Files = map[string][]byte{"empty": {}}
	if _, err := r.Commit(context.Background(), c, nil); err != nil {
		t.Fatal(err)
	}
	if data, ok := read(t, r, "autopolicy/shop")["empty"]; !ok || len(data) != 0 {
		t.Errorf("file is %q, %v", data, ok)
	}
}

func TestAStaleBase(t *testing.T) {
	r := open(t, gitops.Options{URL: bare(t, filepath.Join(sandbox(t), "repo.git"))})
	stale := change(t, r, map[string]string{"mine": "1"})
	other := commit(t, r, map[string]string{"theirs": "1"})

	var overtaken *gitops.OvertakenError
	if _, err := r.Commit(context.Background(), stale, nil); !errors.As(err, &overtaken) {
		t.Fatalf("without replay: %v", err)
	}
	calls := 0
	_, err := r.Commit(context.Background(), stale, func(_ context.Context, tree gitops.Tree, at gitops.Revision) (gitops.Change, error) {
		calls++
		if at != other || string(tree["theirs"]) != "1" {
			t.Errorf("replay was given %s %v", at, tree)
		}
		return stale, nil
	})
	if err != nil || calls != 1 {
		t.Fatalf("%d replays: %v", calls, err)
	}
	sameTree(t, read(t, r, "autopolicy/shop"), map[string]string{"mine": "1", "theirs": "1"})

	stop := errors.New("decided otherwise")
	_, err = r.Commit(context.Background(), stale, func(context.Context, gitops.Tree, gitops.Revision) (gitops.Change, error) {
		return gitops.Change{}, stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("replay's error was lost: %v", err)
	}
}

func TestManyWritersLoseNothing(t *testing.T) {
	dir := bare(t, filepath.Join(sandbox(t), "repo.git"))
	const writers = 4 // fewer than the replays, so that none is overtaken for good
	var wg sync.WaitGroup
	for i := range writers {
		r := open(t, gitops.Options{URL: dir})
		c := change(t, r, map[string]string{fmt.Sprint("file-", i): "x"})
		wg.Go(func() {
			_, err := r.Commit(context.Background(), c, func(context.Context, gitops.Tree, gitops.Revision) (gitops.Change, error) { return c, nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := git(t, dir, "rev-list", "--count", "main"); got != fmt.Sprint(writers) {
		t.Errorf("%s commits", got)
	}
	if n := len(read(t, open(t, gitops.Options{URL: dir}), "autopolicy/shop")); n != writers {
		t.Errorf("%d files", n)
	}
	fsck(t, dir)
}

// The lock of a ref must be the one that git takes: neither side may lose a
// commit. (The index is no such proof: git reads it before it locks it, so two
// git programs can undo each other there.)
func TestGitMovesTheBranchAtTheSameTime(t *testing.T) {
	dir := bare(t, filepath.Join(sandbox(t), "repo.git"))
	r := open(t, gitops.Options{URL: dir})
	commit(t, r, map[string]string{"base": "1"})
	const rounds = 12
	done := make(chan int)
	go func() {
		made := 0
		for made < rounds && t.Context().Err() == nil {
			// Each step fails when the other side was faster or holds the lock.
			at, err := tryGit(dir, "", "rev-parse", "main")
			if err != nil {
				continue
			}
			next, err := tryGit(dir, "", "commit-tree", "-p", at, "-m", fmt.Sprint("theirs ", made), at+"^{tree}")
			if err != nil {
				continue
			}
			if _, err := tryGit(dir, "", "update-ref", "refs/heads/main", next, at); err == nil {
				made++
			}
		}
		done <- made
	}()
	for made := 0; made < rounds; {
		c := change(t, r, map[string]string{fmt.Sprint("mine-", made): "1"})
		_, err := r.Commit(context.Background(), c, func(context.Context, gitops.Tree, gitops.Revision) (gitops.Change, error) { return c, nil })
		var busy *gitops.BusyError
		var overtaken *gitops.OvertakenError
		switch {
		case err == nil:
			made++
		case !errors.As(err, &busy) && !errors.As(err, &overtaken):
			t.Fatal(err)
		}
	}
	theirs := <-done
	if got := git(t, dir, "rev-list", "--count", "main"); got != fmt.Sprint(1+rounds+theirs) {
		t.Errorf("%s commits, want 1 + %d + %d", got, rounds, theirs)
	}
	if n := len(read(t, r, "autopolicy/shop")); n != 1+rounds {
		t.Errorf("%d files, want %d", n, 1+rounds)
	}
	fsck(t, dir)
}

func TestOpenRefuses(t *testing.T) {
	dir := sandbox(t)
	git(t, dir, "init", "-q", "--bare", "full.git")
	commit(t, open(t, gitops.Options{URL: filepath.Join(dir, "full.git")}), map[string]string{"a": "1"})
	w := worktree(t, filepath.Join(dir, "detached"))
	git(t, w, "checkout", "-q", "--detach")
	write(t, filepath.Join(dir, "file"), "x")
	write(t, filepath.Join(dir, "folder/x"), "x")
	git(t, dir, "init", "-q", "--bare", "partial.git")
	git(t, filepath.Join(dir, "partial.git"), "config", "core.repositoryformatversion", "1")
	git(t, filepath.Join(dir, "partial.git"), "config", "extensions.objectformat", "sha256")

	var (
		notFound *gitops.NotFoundError
		notRepo  *gitops.NotRepositoryError
		branch   *gitops.BranchError
	)
	for name, c := range map[string]struct {
		o    gitops.Options
		want any
		text string
	}{
		"a path that does not exist":        {gitops.Options{URL: filepath.Join(dir, "none")}, &notFound, "does not exist"},
		"a file URL that does not exist":    {gitops.Options{URL: "file://" + dir + "/none"}, &notFound, "does not exist"},
		"a file":                            {gitops.Options{URL: filepath.Join(dir, "file")}, &notRepo, "is a file"},
		"a folder that is no repository":    {gitops.Options{URL: filepath.Join(dir, "folder")}, &notRepo, "no HEAD"},
		"no URL":                            {gitops.Options{}, &notRepo, "no path"},
		"a remote helper":                   {gitops.Options{URL: "ext::sh -c id"}, &notRepo, "helpers"},
		"an unknown scheme":                 {gitops.Options{URL: "git://host/x"}, &notRepo, "only paths"},
		"a malformed URL":                   {gitops.Options{URL: "https://user:secret@ho st/x"}, &notRepo, "malformed"},
		"a URL with a query":                {gitops.Options{URL: "https://host/x?token=secret"}, &notRepo, "query"},
		"objects named by SHA-256":          {gitops.Options{URL: filepath.Join(dir, "partial.git")}, &notRepo, "objectformat=sha256"},
		"a branch that does not exist":      {gitops.Options{URL: filepath.Join(dir, "full.git"), Branch: "x"}, &branch, "branch x does not exist"},
		"a branch name that is not one":     {gitops.Options{URL: filepath.Join(dir, "full.git"), Branch: "a..b"}, &branch, "not a valid"},
		"a detached HEAD without a branch":  {gitops.Options{URL: w}, &branch, "HEAD is detached"},
		"a branch that climbs out of refs":  {gitops.Options{URL: w, Branch: "../../x"}, &branch, "not a valid"},
		"an escape sequence in the address": {gitops.Options{URL: "\x1b[31mred"}, &notRepo, `\x1b[31mred`},
	} {
		_, err := gitops.Open(context.Background(), c.o)
		if err == nil || !errors.As(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %T %v", name, err, err)
			continue
		}
		if all := err.Error() + hint(t, err); strings.Contains(all, "secret") || strings.Contains(all, "\x1b") {
			t.Errorf("%s: error tells too much: %s", name, all)
		}
	}
}

func TestAuthor(t *testing.T) {
	dir := sandbox(t)
	repo := bare(t, filepath.Join(dir, "repo.git"))
	commitAs := func(a gitops.Signature) (string, error) {
		r, err := gitops.Open(context.Background(), gitops.Options{URL: repo, Author: a})
		if err != nil {
			t.Fatal(err)
		}
		rev, err := r.Commit(context.Background(), change(t, r, map[string]string{"a": t.Name() + a.Name + fmt.Sprint(head(t, r))}), nil)
		if err != nil {
			return "", err
		}
		return git(t, repo, "log", "-1", "--format=%an <%ae>", string(rev)), nil
	}
	expect := func(a gitops.Signature, want string) {
		t.Helper()
		if got, err := commitAs(a); got != want || err != nil {
			t.Errorf("author is %q, want %q: %v", got, want, err)
		}
	}
	expect(gitops.Signature{}, "Home <home@example.org>")
	git(t, repo, "config", "user.name", "Repo")
	expect(gitops.Signature{}, "Repo <home@example.org>")
	expect(author, "Ada <ada@example.org>")

	git(t, repo, "config", "--unset", "user.name")
	if err := os.Remove(filepath.Join(dir, "home/.gitconfig")); err != nil {
		t.Fatal(err)
	}
	var missing *gitops.AuthorError
	for _, a := range []gitops.Signature{{}, {Name: "x"}, {Name: "a\nb", Email: "x"}, {Name: "a", Email: "<x>"}} {
		if _, err := commitAs(a); !errors.As(err, &missing) {
			t.Errorf("author %q: %v", a, err)
		} else {
			hint(t, err)
		}
	}
}

func TestLog(t *testing.T) {
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	first := head(t, open(t, gitops.Options{URL: dir}))
	git(t, dir, "commit", "-q", "--allow-empty", "-m", "Empty")
	write(t, filepath.Join(dir, "README"), "other\n")
	git(t, dir, "commit", "-qam", "Elsewhere")
	r := open(t, gitops.Options{URL: dir})
	second := commit(t, r, map[string]string{"new": "1"})
	git(t, dir, "switch", "-qc", "side")
	write(t, filepath.Join(dir, "autopolicy/shop/side"), "1")
	git(t, dir, "add", "-A")
	git(t, dir, "commit", "-qm", "Side")
	git(t, dir, "switch", "-q", "main")
	git(t, dir, "commit", "-q", "--allow-empty", "-m", "Main goes on")
	git(t, dir, "merge", "-q", "--no-ff", "-m", "Merge side", "side")

	var got []gitops.LogEntry
	for e, err := range r.Log(context.Background(), "autopolicy/shop") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	if len(got) != 3 || got[0].Message != "Merge side\n" || got[1].Revision != second || got[2].Revision != first {
		t.Fatalf("log is %+v", got)
	}
	if got[2].Parent != "" || got[1].Parent == first || got[1].Author != author || !got[1].When.Equal(when) {
		t.Errorf("entry is %+v", got[1])
	}
	if got[1].Trailer("autopolicy-stage") != "audit" || got[0].Trailer("x") != "" {
		t.Errorf("trailers are %v", got[1].Trailers)
	}
	for e := range r.Log(context.Background(), "autopolicy/shop") {
		if e.Revision != got[0].Revision {
			t.Error("order changed")
		}
		break
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range r.Log(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled log: %v", err)
		}
	}
	for range r.Log(context.Background(), "no/such/folder") {
		t.Error("a folder that never was has a history")
	}

	before, err := r.ReadAt(context.Background(), first, "autopolicy/shop")
	if err != nil {
		t.Fatal(err)
	}
	sameTree(t, before, map[string]string{"rollout.yaml": "stage: audit\n", "old.yaml": "old\n"})
	for _, rev := range []gitops.Revision{"HEAD", "0123456789012345678901234567890123456789", first[:10]} {
		if _, err := r.ReadAt(context.Background(), rev, ""); !errors.Is(err, gitops.ErrNoRevision) {
			t.Errorf("revision %s: %v", rev, err)
		}
	}
}

func TestAShallowCloneHasTheHistoryItHas(t *testing.T) {
	dir := sandbox(t)
	w := worktree(t, filepath.Join(dir, "repo"))
	commit(t, open(t, gitops.Options{URL: w}), map[string]string{"new": "1"})
	git(t, dir, "clone", "-q", "--depth=1", "file://"+w, "shallow")
	r, n := open(t, gitops.Options{URL: filepath.Join(dir, "shallow")}), 0
	for e, err := range r.Log(context.Background(), "autopolicy") {
		if n++; err != nil || e.Parent != "" {
			t.Fatalf("%+v %v", e, err)
		}
	}
	if n != 1 {
		t.Errorf("%d entries", n)
	}
	commit(t, r, map[string]string{"new": "2"})
}
