package gitops_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

// gitServer serves the repositories below root with the real git
// http-backend. before, if not nil, sees each request, and answers it itself
// where it returns true.
func gitServer(t *testing.T, root string, before func(w http.ResponseWriter, r *http.Request) bool) *httptest.Server {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Skip("SKIPPED: the git program is not installed; its http-backend is the server of this test")
	}
	backend := &cgi.Handler{
		Path: path, Args: []string{"http-backend"},
		Stderr: io.Discard, // it also goes into the answer
		Env:    []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + os.Getenv("HOME")},
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before == nil || !before(w, r) {
			backend.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func isPush(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-receive-pack")
}

func withTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func TestHTTPRemote(t *testing.T) {
	dir := sandbox(t)
	temp := withTempDir(t)
	repo := bare(t, filepath.Join(dir, "repo.git"))
	s := gitServer(t, dir, nil)
	var progress bytes.Buffer
	o := gitops.Options{URL: s.URL + "/repo.git", Author: author, Progress: &progress}

	first, err := gitops.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if first.Branch() != "main" || head(t, first) != "" {
		t.Errorf("empty remote: branch %s at %q", first.Branch(), head(t, first))
	}
	for i := range 5 {
		commit(t, first, map[string]string{"a": strings.Repeat("line\n", 100+i), "b/c": "1"})
	}
	git(t, repo, "gc", "-q") // deltas
	second := open(t, o)
	sameTree(t, read(t, second, "autopolicy"), map[string]string{"shop/a": strings.Repeat("line\n", 104), "shop/b/c": "1"})
	n := 0
	for e, err := range second.Log(context.Background(), "autopolicy") {
		if n++; err != nil || e.Author != author {
			t.Fatalf("%+v %v", e, err)
		}
	}
	if n != 5 {
		t.Errorf("%d log entries", n)
	}
	rev := commit(t, second, map[string]string{"a": ""})
	if git(t, repo, "rev-parse", "main") != string(rev) {
		t.Error("the push did not arrive")
	}
	if head(t, first) == rev {
		t.Error("head moved without a refresh")
	}
	if err := first.Refresh(context.Background()); err != nil || head(t, first) != rev {
		t.Errorf("refresh: %v", err)
	}
	fsck(t, repo)
	if !strings.Contains(progress.String(), "remote: ") || strings.Contains(progress.String(), "\r") {
		t.Errorf("progress is %q", progress.String())
	}
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("temporary clones are left: %v %v", left, err)
	}
}

func TestHTTPBranches(t *testing.T) {
	dir := sandbox(t)
	w := worktree(t, filepath.Join(dir, "w"))
	git(t, w, "switch", "-qc", "release/1")
	git(t, dir, "clone", "-q", "--bare", w, "repo.git")
	repo := filepath.Join(dir, "repo.git")
	git(t, repo, "config", "http.receivepack", "true")
	s := gitServer(t, dir, nil)

	if r := open(t, gitops.Options{URL: s.URL + "/repo.git"}); r.Branch() != "release/1" {
		t.Errorf("HEAD is %s", r.Branch())
	}
	main := open(t, gitops.Options{URL: s.URL + "/repo.git", Branch: "main"})
	before := git(t, repo, "ls-tree", "HEAD", "README", "bin", "link")
	rev := commit(t, main, map[string]string{"new": "1"})
	if git(t, repo, "rev-parse", "main") != string(rev) || git(t, repo, "rev-parse", "main^") != git(t, repo, "rev-parse", "release/1") {
		t.Error("the wrong branch has moved")
	}
	if after := git(t, repo, "ls-tree", "main", "README", "bin", "link"); after != before {
		t.Errorf("untouched paths are\n%s\nwant\n%s", after, before)
	}
	var branch *gitops.BranchError
	_, err := gitops.Open(context.Background(), gitops.Options{URL: s.URL + "/repo.git", Branch: "none"})
	if !errors.As(err, &branch) || !strings.Contains(hint(t, err), "main, release/1") {
		t.Errorf("%T %v", err, err)
	}
	git(t, repo, "symbolic-ref", "HEAD", "refs/heads/gone")
	if _, err = gitops.Open(context.Background(), gitops.Options{URL: s.URL + "/repo.git"}); !errors.As(err, &branch) {
		t.Errorf("dangling HEAD: %T %v", err, err)
	}
}

func TestHTTPAuthentication(t *testing.T) {
	const secret = "s3cr3t-token"
	dir := sandbox(t)
	bare(t, filepath.Join(dir, "repo.git"))
	var status atomic.Int32
	s := gitServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
		name, token, ok := r.BasicAuth()
		switch {
		case !ok:
			w.Header().Set("WWW-Authenticate", "Basic")
			http.Error(w, "who are you?\x1b[31m", http.StatusUnauthorized)
		case token != secret || name == "":
			http.Error(w, "not you", int(status.Load()))
		default:
			return false
		}
		return true
	})
	url := s.URL + "/repo.git"
	at := func(user string) string { return strings.Replace(url, "://", "://"+user+"@", 1) }
	env := func(name string) string {
		return map[string]string{gitops.EnvToken: secret, gitops.EnvUsername: "ada"}[name]
	}
	for name, o := range map[string]gitops.Options{
		"a token":                          {URL: url, Auth: gitops.Auth{Token: secret}},
		"a token from the environment":     {URL: url, Auth: gitops.AuthFromEnv(env)},
		"a token in the URL":               {URL: at("ada:" + secret)},
		"a name in the URL and a token":    {URL: at("ada"), Auth: gitops.Auth{Token: secret}},
		"a token that overrides the URL's": {URL: at("ada:wrong"), Auth: gitops.Auth{Token: secret}},
	} {
		r := open(t, o)
		if _, err := r.Commit(context.Background(), change(t, r, map[string]string{"a": name}), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r.URL() != url {
			t.Errorf("%s: URL is shown as %s", name, r.URL())
		}
	}
	for name, c := range map[string]struct {
		o      gitops.Options
		status int
		sent   bool
		text   string
	}{
		"no token":                  {gitops.Options{URL: url}, 401, false, "wants credentials"},
		"a wrong token":             {gitops.Options{URL: url, Auth: gitops.Auth{Token: secret + "x"}}, 401, true, "refused the credentials: not you"},
		"a token without the right": {gitops.Options{URL: at("ada:" + secret + "x")}, 403, true, "refused the credentials: not you"},
	} {
		status.Store(int32(c.status))
		_, err := gitops.Open(context.Background(), c.o)
		var auth *gitops.AuthError
		if !errors.As(err, &auth) || auth.Sent != c.sent || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %T %v", name, err, err)
			continue
		}
		if all := fmt.Sprintf("%v %+v %s", err, c.o.Auth, hint(t, err)); strings.Contains(all, secret) || strings.Contains(all, "\x1b") {
			t.Errorf("%s: error tells too much: %s", name, all)
		} else if !strings.Contains(all, gitops.EnvToken) {
			t.Errorf("%s: hint does not name the variable: %s", name, all)
		}
	}
}

// Credentials must not follow a redirect to another server.
func TestRedirectDoesNotCarryTheToken(t *testing.T) {
	dir := sandbox(t)
	bare(t, filepath.Join(dir, "repo.git"))
	var leaked atomic.Bool
	other := gitServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
		leaked.Store(leaked.Load() || r.Header.Get("Authorization") != "")
		return false
	})
	s := gitServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.URL+r.URL.String(), http.StatusFound)
		return true
	})
	open(t, gitops.Options{URL: s.URL + "/repo.git", Auth: gitops.Auth{Token: "secret"}})
	if leaked.Load() {
		t.Error("the token was sent to another server")
	}
}

func TestHTTPErrors(t *testing.T) {
	dir := sandbox(t)
	bare(t, filepath.Join(dir, "repo.git"))
	s := gitServer(t, dir, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasPrefix(r.URL.Path, "/page"):
			fmt.Fprint(w, "<html>welcome</html>")
		case strings.HasPrefix(r.URL.Path, "/broken"):
			http.Error(w, "boom", http.StatusInternalServerError)
		case strings.HasPrefix(r.URL.Path, "/slow"):
			<-r.Context().Done()
		default:
			return false
		}
		return true
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String() + "/x"
	l.Close()
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	defer tls.Close()

	var (
		notFound *gitops.NotFoundError
		notRepo  *gitops.NotRepositoryError
		network  *gitops.NetworkError
	)
	for name, c := range map[string]struct {
		url  string
		want any
	}{
		"a repository that is not there":  {s.URL + "/none.git", &notFound},
		"a page that is no repository":    {s.URL + "/page", &notRepo},
		"a server that fails":             {s.URL + "/broken", &network},
		"a port that is closed":           {closed, &network},
		"a certificate that is not known": {tls.URL + "/x", &network},
	} {
		_, err := gitops.Open(context.Background(), gitops.Options{URL: c.url})
		if !errors.As(err, c.want) {
			t.Errorf("%s: %T %v", name, err, err)
			continue
		}
		hint(t, err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := gitops.Open(ctx, gitops.Options{URL: s.URL + "/slow"}); !errors.As(err, &network) || !network.Timeout {
		t.Errorf("a deadline: %T %v", err, err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	cancel()
	if _, err := gitops.Open(ctx, gitops.Options{URL: s.URL + "/slow"}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call: %T %v", err, err)
	}
}

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
		"before it arrived the error says so":        {false, true, func(err error) bool { var e *gitops.NetworkError; return errors.As(err, &e) }},
		"and the server is gone: nobody can tell":    {true, false, func(err error) bool { var e *gitops.UncertainError; return errors.As(err, &e) }},
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
