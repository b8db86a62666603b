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
