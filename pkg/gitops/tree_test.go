package gitops_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

// randomTree has short names, so that files, folders and prefixes of each
// other collide often.
func randomTree(rnd *rand.Rand) map[string]string {
	names := []string{"a", "b", "a.b", "a-b", "a0", "Ä", "with space", "-"}
	out := map[string]string{}
	for range rnd.IntN(12) {
		p := names[rnd.IntN(len(names))]
		for range rnd.IntN(3) {
			p += "/" + names[rnd.IntN(len(names))]
		}
		free := true
		for q := range out {
			free = free && !strings.HasPrefix(q+"/", p+"/") && !strings.HasPrefix(p+"/", q+"/")
		}
		if free {
			out[p] = strings.Repeat(string(rune('a'+rnd.IntN(26)))+"\x00\r\n", rnd.IntN(4))
		}
	}
	return out
}

// towards is the change that makes before into after.
func towards(before gitops.Tree, after map[string]string) map[string][]byte {
	out := map[string][]byte{}
	for name := range before {
		out[name] = nil
	}
	for name, data := range after {
		out[name] = []byte(data)
	}
	return out
}

func TestAnyTreeIsReadBackAsItWasCommitted(t *testing.T) {
	ctx := context.Background()
	dir := worktree(t, filepath.Join(sandbox(t), "repo"))
	untouched := git(t, dir, "ls-tree", "-r", "HEAD", "README", "bin", "link")
	r := open(t, gitops.Options{URL: dir})
	rnd := rand.New(rand.NewPCG(1, 2))
	states := map[gitops.Revision]map[string]string{}
	var order []gitops.Revision
	for i := range 60 {
		want, base := randomTree(rnd), head(t, r)
		rev, err := r.Commit(ctx, gitops.Change{
			Dir: "autopolicy/shop", Base: base, Files: towards(read(t, r, "autopolicy/shop"), want),
			Message: fmt.Sprint("State ", i), When: when,
		}, nil)
		if errors.Is(err, gitops.ErrNothingToCommit) {
			continue
		}
		if err != nil {
			t.Fatalf("seed 1,2 state %d: %v", i, err)
		}
		sameTree(t, read(t, r, "autopolicy/shop"), want)
		states[rev], order = want, append(order, rev)
		if got := git(t, dir, "status", "--porcelain"); got != "" {
			t.Fatalf("seed 1,2 state %d: git status is %s", i, got)
		}
	}
	if got := git(t, dir, "ls-tree", "-r", "HEAD", "README", "bin", "link"); got != untouched {
		t.Errorf("untouched paths are\n%s\nwant\n%s", got, untouched)
	}
	var logged []gitops.Revision
	for e, err := range r.Log(ctx, "autopolicy/shop") {
		if err != nil {
			t.Fatal(err)
		}
		logged = append(logged, e.Revision)
		if want, ok := states[e.Revision]; ok {
			tree, err := r.ReadAt(ctx, e.Revision, "autopolicy/shop")
			if err != nil {
				t.Fatal(err)
			}
			sameTree(t, tree, want)
		}
	}
	slices.Reverse(order)
	if len(logged) != len(order)+1 || !slices.Equal(logged[:len(order)], order) {
		t.Errorf("history has %d entries, want %d in order", len(logged), len(order)+1)
	}
	fsck(t, dir)
}

func TestSameChangeSameCommit(t *testing.T) {
	dir := sandbox(t)
	files := randomTree(rand.New(rand.NewPCG(3, 4)))
	revs := map[gitops.Revision]bool{}
	for i := range 4 {
		r := open(t, gitops.Options{URL: bare(t, filepath.Join(dir, fmt.Sprint(i)))})
		rev, err := r.Commit(context.Background(), gitops.Change{Dir: "d", Files: towards(nil, files), Message: "m", When: when}, nil)
		if err != nil {
			t.Fatal(err)
		}
		revs[rev] = true
	}
	if len(revs) != 1 {
		t.Errorf("commits differ: %v", slices.Collect(maps.Keys(revs)))
	}
}

// plant commits a tree made of raw entries below autopolicy/shop, as only a
// hostile client makes them.
func plant(t *testing.T, repo string, entries ...string) {
	t.Helper()
	object := func(kind, data string) string {
		out, err := tryGit(repo, data, "hash-object", "-w", "-t", kind, "--literally", "--stdin")
		if err != nil {
			t.Fatalf("git hash-object: %v %s", err, out)
		}
		return out
	}
	raw := func(hash string) string {
		var b [20]byte
		if _, err := fmt.Sscanf(hash, "%x", new([]byte)); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			fmt.Sscanf(hash[2*i:2*i+2], "%02x", &b[i])
		}
		return string(b[:])
	}
	blob := object("blob", "x\n")
	var tree strings.Builder
	for _, e := range entries {
		mode, name, _ := strings.Cut(e, " ")
		hash := blob
		if mode == "40000" {
			hash = object("tree", "100644 f\x00"+raw(blob))
		}
		tree.WriteString(mode + " " + name + "\x00" + raw(hash))
	}
	at := object("tree", tree.String())
	for _, dir := range []string{"shop", "autopolicy"} {
		at = object("tree", "40000 "+dir+"\x00"+raw(at))
	}
	rev, err := tryGit(repo, "", "commit-tree", "-m", "hostile", at)
	if err != nil {
		t.Fatalf("git commit-tree: %v %s", err, rev)
	}
	git(t, repo, "update-ref", "refs/heads/main", rev)
}

func TestHostileTrees(t *testing.T) {
	for name, c := range map[string]struct {
		entry string
		text  string // "" if it is read
	}{
		"a symbolic link":              {"120000 link", "autopolicy/shop/link is a symbolic link"},
		"a submodule":                  {"160000 sub", "autopolicy/shop/sub is a submodule"},
		"an unknown mode":              {"140000 what", "is of unknown kind"},
		"a name that climbs":           {"40000 ..", "leaves its folder"},
		"a name that stays":            {"40000 .", "leaves its folder"},
		"a git folder":                 {"40000 .git", ".git"},
		"a git folder in capitals":     {"40000 .GIT", ".git"},
		"a git folder of NTFS":         {"40000 GIT~1", ".git"},
		"a git folder with a dot":      {"40000 .git. ", ".git"},
		"a git folder of HFS+":         {"40000 .g\u200cit", ".git"},
		"a git folder's stream":        {"40000 .git::$INDEX_ALLOCATION", ".git"},
		"a slash in a name":            {"100644 a/../../b", "slash"},
		"a backslash in a name":        {`100644 a\b`, "backslash"},
		"a newline in a name":          {"100644 a\nb", "control"},
		"an escape sequence in a name": {"100644 a\x1b[31m", "control"},
		"invalid UTF-8":                {"100644 \xff", "UTF-8"},
		"a long name":                  {"100644 " + strings.Repeat("x", 256), "longer than"},
		"an executable file":           {"100755 run", ""},
		"a file of an old mode":        {"100664 group", ""},
		"other files with git in name": {"100644 .gitignore", ""},
	} {
		t.Run(name, func(t *testing.T) {
			repo := bare(t, filepath.Join(sandbox(t), "repo.git"))
			plant(t, repo, c.entry)
			r := open(t, gitops.Options{URL: repo})
			tree, _, err := r.Read(context.Background(), "autopolicy/shop")
			_, commitErr := r.Commit(context.Background(), change(t, r, map[string]string{"new": "1"}), nil)
			if c.text == "" {
				if err != nil || commitErr != nil || len(tree) != 1 {
					t.Fatalf("%v %v %v", tree, err, commitErr)
				}
				if got := git(t, repo, "cat-file", "tree", "main:autopolicy/shop"); /* raw: ls-tree tidies modes */ !strings.Contains(got, strings.Fields(c.entry)[0]) {
					t.Errorf("the entry's mode has changed: %s", got)
				}
				return
			}
			for _, err := range []error{err, commitErr} {
				var unsafe *gitops.UnsafeError
				if !errors.As(err, &unsafe) || !strings.Contains(err.Error(), c.text) {
					t.Fatalf("%T %v", err, err)
				}
				if strings.ContainsAny(err.Error(), "\x1b\n") || strings.Contains(err.Error(), "\xff") {
					t.Errorf("the error is not printable: %q", err)
				}
				hint(t, err)
			}
		})
	}
	t.Run("an entry that is there twice", func(t *testing.T) {
		repo := bare(t, filepath.Join(sandbox(t), "repo.git"))
		plant(t, repo, "100644 a", "40000 a")
		if _, _, err := open(t, gitops.Options{URL: repo}).Read(context.Background(), "autopolicy"); err == nil {
			t.Error("it was read")
		}
	})
	t.Run("a link or a file on the way to the folder", func(t *testing.T) {
		repo := bare(t, filepath.Join(sandbox(t), "repo.git"))
		plant(t, repo, "120000 link", "100644 z")
		r := open(t, gitops.Options{URL: repo})
		var unsafe *gitops.UnsafeError
		for _, dir := range []string{"autopolicy/shop/link", "autopolicy/shop/z/x"} {
			c := change(t, r, map[string]string{"n": "1"})
			c.Dir = dir
			_, _, err := r.Read(context.Background(), dir)
			if _, commitErr := r.Commit(context.Background(), c, nil); !errors.As(err, &unsafe) || !errors.As(commitErr, &unsafe) {
				t.Errorf("%s: %v, %v", dir, err, commitErr)
			}
		}
	})
}

// A few objects of some bytes can stand for more paths than any machine holds.
func TestATreeThatMultiplies(t *testing.T) {
	repo := bare(t, filepath.Join(sandbox(t), "repo.git"))
	at, err := tryGit(repo, "", "mktree")
	if err != nil {
		t.Fatal(at)
	}
	for range 12 {
		var in strings.Builder
		for i := range 10 {
			fmt.Fprintf(&in, "040000 tree %s\t%d\n", at, i)
		}
		if at, err = tryGit(repo, in.String(), "mktree"); err != nil {
			t.Fatal(at)
		}
	}
	git(t, repo, "update-ref", "refs/heads/main", git(t, repo, "commit-tree", "-m", "bomb", at))
	var unsafe *gitops.UnsafeError
	if _, _, err := open(t, gitops.Options{URL: repo}).Read(context.Background(), ""); !errors.As(err, &unsafe) {
		t.Errorf("%T %v", err, err)
	}
}

func TestLimits(t *testing.T) {
	ctx := context.Background()
	repo := bare(t, filepath.Join(sandbox(t), "repo.git"))
	r := open(t, gitops.Options{URL: repo})
	fill := func(n int, data []byte) gitops.Change {
		c := change(t, r, nil)
		for i := range n {
			c.Files[fmt.Sprintf("%d/%d", i%100, i)] = data
		}
		return c
	}
	var unsafe *gitops.UnsafeError
	for name, c := range map[string]gitops.Change{
		"a file that is too large": fill(1, make([]byte, gitops.MaxFileSize+1)),
		"too many files":           fill(gitops.MaxFiles+1, []byte("x")),
		"too much in all":          fill(gitops.MaxTotalSize/gitops.MaxFileSize+1, make([]byte, gitops.MaxFileSize)),
	} {
		if _, err := r.Commit(ctx, c, nil); !errors.As(err, &unsafe) {
			t.Errorf("%s: %T %v", name, err, err)
		}
	}
	if _, err := r.Commit(ctx, fill(1, bytes.Repeat([]byte("x"), gitops.MaxFileSize)), nil); err != nil {
		t.Errorf("a file of the largest size: %v", err)
	}
	for name, spoil := range map[string]func(c *gitops.Change){
		"no message":                     func(c *gitops.Change) { c.Message = " \n" },
		"a message with a NUL":           func(c *gitops.Change) { c.Message = "a\x00b" },
		"no date":                        func(c *gitops.Change) { c.When = when.AddDate(-2025, 0, 0) },
		"a path that climbs":             func(c *gitops.Change) { c.Files["../../x"] = []byte("x") },
		"an absolute path":               func(c *gitops.Change) { c.Files["/x"] = []byte("x") },
		"a folder that climbs":           func(c *gitops.Change) { c.Dir = "../x" },
		"a folder of git's own":          func(c *gitops.Change) { c.Dir = ".git/hooks" },
		"an absolute folder":             func(c *gitops.Change) { c.Dir = "/etc" },
		"a path with an empty component": func(c *gitops.Change) { c.Files["a//b"] = []byte("x") },
	} {
		c, before := change(t, r, map[string]string{"fine": name}), head(t, r)
		spoil(&c)
		if _, err := r.Commit(ctx, c, nil); err == nil || head(t, r) != before {
			t.Errorf("%s: committed", name)
		}
	}
}
