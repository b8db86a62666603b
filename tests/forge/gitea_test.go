// Package forge runs the built plugin against a real Gitea: pull requests over
// HTTP and SSH, opened, updated, declined and merged by a person, and what goes
// wrong on the way. "make e2e-gitops" builds Gitea and runs it.
package forge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gitea is a server of one test run. Its administrator is the person who merges.
type gitea struct {
	url, ssh string // where it serves
	token    string // of the administrator
	log      string
}

const admin = "ada"

func startGitea(t *testing.T) *gitea {
	t.Helper()
	program, static := os.Getenv("AUTOPOLICY_GITEA"), os.Getenv("AUTOPOLICY_GITEA_STATIC")
	if program == "" || static == "" {
		t.Skip("SKIPPED: 'make e2e-gitops' builds the Gitea that this needs")
	}
	dir := t.TempDir()
	web, ssh := freePort(t), freePort(t)
	g := &gitea{url: "http://" + web, ssh: ssh, log: filepath.Join(dir, "gitea.log")}
	config := filepath.Join(dir, "app.ini")
	write(t, config, ini(dir, static, web, ssh))
	log, err := os.Create(g.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	gitea := func(args ...string) *exec.Cmd {
		cmd := exec.Command(program, append([]string{"--config", config, "--work-path", dir}, args...)...)
		cmd.Env = append(os.Environ(), "GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT=true", "HOME="+dir, "GITEA_WORK_DIR="+dir)
		cmd.Stderr = log
		return cmd
	}
	if err := gitea("migrate").Run(); err != nil {
		t.Fatalf("gitea migrate: %v\n%s", err, g.said())
	}
	server := gitea("web")
	server.Stdout = log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(os.Interrupt)
		server.Wait()
		if t.Failed() {
			t.Log(g.said())
		}
	})
	g.await(t)
	out, err := gitea("admin", "user", "create", "--admin", "--username", admin, "--password", "right-Password-1", "--email", admin+"@example.com",
		"--must-change-password=false", "--access-token", "--access-token-scopes", "all").Output()
	fields := strings.Fields(string(out))
	for i, f := range fields {
		if f == "created" && i+1 < len(fields) {
			g.token = strings.Trim(fields[len(fields)-1], ".")
		}
		if len(f) == 40 {
			g.token = f
		}
	}
	if err != nil || len(g.token) != 40 {
		t.Fatalf("make the administrator: %v\n%s\n%s", err, out, g.said())
	}
	return g
}

func ini(dir, static, web, ssh string) string {
	host, port, _ := strings.Cut(web, ":")
	_, sshPort, _ := strings.Cut(ssh, ":")
	return fmt.Sprintf(`APP_NAME = test
RUN_USER = %s
RUN_MODE = prod
[server]
HTTP_ADDR = %s
HTTP_PORT = %s
ROOT_URL = http://%s/
STATIC_ROOT_PATH = %s
APP_DATA_PATH = %s/data
OFFLINE_MODE = true
START_SSH_SERVER = true
SSH_DOMAIN = 127.0.0.1
SSH_LISTEN_HOST = 127.0.0.1
SSH_LISTEN_PORT = %s
SSH_PORT = %s
BUILTIN_SSH_SERVER_USER = git
[database]
DB_TYPE = sqlite3
PATH = %s/gitea.db
[repository]
ROOT = %s/repositories
DEFAULT_BRANCH = main
[security]
INSTALL_LOCK = true
SECRET_KEY = only-for-this-test
PASSWORD_HASH_ALGO = pbkdf2_v2
[service]
DISABLE_REGISTRATION = true
[indexer]
ISSUE_INDEXER_TYPE = db
[cron]
ENABLED = false
[mailer]
ENABLED = false
[log]
MODE = console
LEVEL = warn
`, runUser(), host, port, web, static, dir, sshPort, sshPort, dir, dir)
}

func runUser() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return os.Getenv("USER")
}

// freePort is an address of loopback that nobody listened on just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (g *gitea) said() string {
	data, err := os.ReadFile(g.log)
	if err != nil {
		return err.Error()
	}
	return "gitea said: " + string(data[max(0, len(data)-4000):])
}

func (g *gitea) await(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, "Gitea serves", func() bool {
		res, err := http.Get(g.url + "/api/healthz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// call asks Gitea's API as the administrator, and fails the test on any status
// but those of success.
func (g *gitea) call(t *testing.T, method, path string, in, out any) {
	t.Helper()
	if status, body := g.try(t, method, path, in, out); status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, status, body)
	}
}

func (g *gitea) try(t *testing.T, method, path string, in, out any) (int, string) {
	t.Helper()
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(context.Background(), method, g.url+"/api/v1"+path, &body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "token "+g.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if out != nil && res.StatusCode < 300 {
		if err := json.Unmarshal(data, out); err != nil {
			t.Fatalf("%s %s: %v\n%s", method, path, err, data)
		}
	}
	return res.StatusCode, string(data)
}

// repository makes one with a first commit, and returns its name.
func (g *gitea) repository(t *testing.T, name string) string {
	t.Helper()
	g.call(t, http.MethodPost, "/user/repos", map[string]any{"name": name, "auto_init": true, "default_branch": "main"}, nil)
	return admin + "/" + name
}

type pull struct {
	Number int    `json:"number"`
	Title  string `json:"title"`
	Body   string `json:"body"`
	State  string `json:"state"`
	Merged bool   `json:"merged"`
	Head   struct {
		Ref string `json:"ref"`
		SHA string `json:"sha"`
	} `json:"head"`
	Labels []struct {
		Name string `json:"name"`
	} `json:"labels"`
	Reviewers []struct {
		Login string `json:"login"`
	} `json:"requested_reviewers"`
	Mergeable bool `json:"mergeable"`
	Commits   int  `json:"commits"`
}

func (g *gitea) pulls(t *testing.T, repository, state string) []pull {
	t.Helper()
	var list []pull
	g.call(t, http.MethodGet, "/repos/"+repository+"/pulls?state="+state, nil, &list)
	return list
}

// merge is the person's button. Gitea looks whether it can be merged in the
// background, and refuses until it has.
func (g *gitea) merge(t *testing.T, repository string, number int) {
	t.Helper()
	eventually(t, time.Minute, "the pull request can be merged", func() bool {
		status, _ := g.try(t, http.MethodPost, fmt.Sprintf("/repos/%s/pulls/%d/merge", repository, number), map[string]any{"Do": "merge"}, nil)
		return status < 300
	})
}

func eventually(t *testing.T, limit time.Duration, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}

func write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}
