package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// forge serves the repository of a workspace over HTTP to who has the token, with
// git's own server, and makes the workspace's configuration name it. It calls push
// before each push is taken.
func (w *world) forge(t *testing.T, token string, push func()) (dir, repository string) {
	t.Helper()
	dir, repository = w.workspace(t)
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	git(t, "-C", repository, "config", "http.receivepack", "true")
	backend := &cgi.Handler{
		Path: path, Args: []string{"http-backend"}, Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + os.Getenv("HOME")},
	}
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if _, password, ok := in.BasicAuth(); !ok || password != token {
			out.Header().Set("WWW-Authenticate", "Basic")
			http.Error(out, "a token is needed", http.StatusUnauthorized)
			return
		}
		if in.Method == http.MethodPost && strings.HasSuffix(in.URL.Path, "/git-receive-pack") {
			push()
		}
		backend.ServeHTTP(out, in)
	}))
	t.Cleanup(server.Close)
	config := fmt.Sprintf("apiVersion: autopolicy.dev/v1alpha1\nkind: Config\nrepository: %s/fleet.git\nauthor: {name: Test, email: test@example.com}\ncollector: {image: %q}\n", server.URL, collectorImage)
	if err := os.WriteFile(filepath.Join(dir, "autopolicy.yaml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, repository
}

// colleague commits a file to the repository and pushes it.
func colleague(t *testing.T, repository, file string) {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "clone")
	git(t, "clone", "-q", repository, clone)
	if err := os.WriteFile(filepath.Join(clone, file), []byte("theirs\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, "-C", clone, "add", file)
	git(t, "-C", clone, "-c", "user.name=Colleague", "-c", "user.email=colleague@example.com", "commit", "-q", "-m", "Add "+file)
	git(t, "-C", clone, "push", "-q", "origin", "HEAD:main")
}

const token = "t0ken-of-the-test"

func TestAPushThatWasOvertakenIsReplayed(t *testing.T) {
	w := needCluster(t)
	t.Setenv("AUTOPOLICY_GIT_TOKEN", token)
	var repository string
	var once sync.Once
	pushes := 0
	var dir string
	dir, repository = w.forge(t, token, func() {
		pushes++
		once.Do(func() { colleague(t, repository, "theirs-later") })
	})
	colleague(t, repository, "theirs-first")
	before := w.trace(t)
	r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "5s")
	r.wantsCode(t, 0)
	r.wants(t, "collector removed", "committed")
	w.nothingLeft(t, before)
	if pushes < 2 {
		t.Errorf("%d pushes: nobody overtook", pushes)
	}
	log := git(t, "-C", repository, "log", "--format=%an: %s", "main")
	authors := strings.Split(log, "\n")
	if len(authors) != 3 || !strings.HasPrefix(authors[0], "Test: ") || authors[1] != "Colleague: Add theirs-later" {
		t.Errorf("the log is\n%s", log)
	}
	files := git(t, "-C", repository, "ls-tree", "-r", "--name-only", "main")
	for _, want := range []string{"theirs-first", "theirs-later", "autopolicy/shop/kustomization.yaml"} {
		if !strings.Contains(files, want) {
			t.Errorf("%s is not in the repository", want)
		}
	}
	git(t, "-C", repository, "fsck", "--strict")
	if strings.Contains(r.out+r.errOut, token) {
		t.Error("the plugin prints the token")
	}
}

func TestAPushThatTheServerRefusesIsToldInItsWords(t *testing.T) {
	w := needCluster(t)
	t.Setenv("AUTOPOLICY_GIT_TOKEN", token)
	dir, repository := w.forge(t, token, func() {})
	colleague(t, repository, "theirs-first")
	hook := "#!/bin/sh\nprintf 'changes of policies\\033[2J need a review\\n' >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(repository, "hooks/pre-receive"), []byte(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	before := w.trace(t)
	r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "5s")
	r.wantsCode(t, 2)
	r.wants(t, "collector removed", "error: commit to ", "changes of policies", "need a review", "hint: ")
	r.harmless(t)
	w.nothingLeft(t, before)
	if commits(t, repository) != 1 {
		t.Error("something was committed")
	}
}

func TestARepositoryThatRefusesTheTokenIsToldBeforeAnythingIsDeployed(t *testing.T) {
	w := needCluster(t)
	t.Setenv("AUTOPOLICY_GIT_TOKEN", "wrong")
	dir, _ := w.forge(t, token, func() {})
	before := w.trace(t)
	r := w.plugin(t, dir, "discover", "-n", "shop", "--duration", "5s")
	r.wantsCode(t, 2)
	r.wants(t, "a token is needed", "AUTOPOLICY_GIT_TOKEN")
	if strings.Contains(r.errOut, "deploying") || addedLines(before, w.trace(t)) != "" {
		t.Error("something was deployed")
	}
}
