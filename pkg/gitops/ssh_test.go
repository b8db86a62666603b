package gitops_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

// sshServer is Debian's sshd in inetd mode behind a listener of the test, so
// that no port has to be chosen.
type sshServer struct{ addr, key, hostKey, user string }

func startSSH(t *testing.T, dir string) sshServer {
	t.Helper()
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Skip("SKIPPED: sshd is not installed; it is the server of this test")
	}
	if os.Geteuid() == 0 {
		// What the service's own unit makes before it starts sshd.
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Skip("SKIPPED: sshd run as root needs its folder below /run:", err)
		}
	}
	s := sshServer{key: filepath.Join(dir, "id"), user: "root"}
	if u := os.Getenv("USER"); u != "" && os.Geteuid() != 0 {
		s.user = u
	}
	for _, name := range []string{"id", "host", "other"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v %s", err, out)
		}
	}
	write(t, filepath.Join(dir, "sshd_config"), fmt.Sprintf(
		"HostKey %s/host\nAuthorizedKeysFile %s/id.pub\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nSetEnv HOME=%s GIT_CONFIG_NOSYSTEM=1\n",
		dir, dir, os.Getenv("HOME")))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f, err := c.(*net.TCPConn).File()
				if err != nil {
					return
				}
				defer f.Close()
				cmd := exec.Command(sshd, "-i", "-e", "-f", filepath.Join(dir, "sshd_config"))
				cmd.Stdin, cmd.Stdout = f, f
				cmd.Run()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	s.addr = l.Addr().String()
	s.hostKey = filepath.Join(dir, "host.pub")
	return s
}

// knownHosts writes a known_hosts file that has the public key file for the
// server's address.
func (s sshServer) knownHosts(t *testing.T, name, public string) []string {
	t.Helper()
	key, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	write(t, name, fmt.Sprintf("[%s]:%s %s", host, port, key))
	return []string{name}
}

func TestSSHRemote(t *testing.T) {
	dir := sandbox(t)
	s := startSSH(t, dir)
	repo := bare(t, filepath.Join(dir, "it's a repo.git"))
	good := gitops.Auth{SSHKeyFile: s.key, KnownHosts: s.knownHosts(t, filepath.Join(dir, "good"), s.hostKey)}
	url := "ssh://" + s.user + "@" + s.addr + repo

	r := open(t, gitops.Options{URL: url, Auth: good})
	commit(t, r, map[string]string{"a": "1"})
	rival := open(t, gitops.Options{URL: repo})
	commit(t, rival, map[string]string{"b": "1"})
	c := change(t, r, map[string]string{"c": "1"})
	replays := 0
	rev, err := r.Commit(context.Background(), c, func(context.Context, gitops.Tree, gitops.Revision) (gitops.Change, error) {
		replays++
		return c, nil
	})
	if err != nil || replays != 1 || git(t, repo, "rev-parse", "main") != string(rev) {
		t.Fatalf("%d replays: %v", replays, err)
	}
	sameTree(t, read(t, open(t, gitops.Options{URL: url, Auth: good}), "autopolicy/shop"), map[string]string{"a": "1", "b": "1", "c": "1"})
	fsck(t, repo)

	var (
		hostKey  *gitops.HostKeyError
		auth     *gitops.AuthError
		notFound *gitops.NotFoundError
	)
	empty := filepath.Join(dir, "empty")
	write(t, empty, "")
	for name, c := range map[string]struct {
		url  string
		auth gitops.Auth
		want any
		text string
	}{
		"a host key that is not known":   {url, gitops.Auth{SSHKeyFile: s.key, KnownHosts: []string{empty}}, &hostKey, "not known"},
		"no known_hosts file at all":     {url, gitops.Auth{SSHKeyFile: s.key}, &hostKey, "not known"},
		"a host key that has changed":    {url, gitops.Auth{SSHKeyFile: s.key, KnownHosts: s.knownHosts(t, filepath.Join(dir, "bad"), filepath.Join(dir, "other.pub"))}, &hostKey, "not the one on record"},
		"a key that may not log in":      {url, gitops.Auth{SSHKeyFile: filepath.Join(dir, "other"), KnownHosts: good.KnownHosts}, &auth, "refused"},
		"no key at all":                  {url, gitops.Auth{KnownHosts: good.KnownHosts}, &auth, "refused"},
		"a repository that is not there": {url + "x", good, &notFound, "does not exist"},
	} {
		_, err := gitops.Open(context.Background(), gitops.Options{URL: c.url, Auth: c.auth})
		if err == nil || !errors.As(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %T %v", name, err, err)
			continue
		}
		hint(t, err)
	}
	if errors.As(err, &hostKey); hostKey != nil && !strings.HasPrefix(hostKey.Fingerprint, "SHA256:") {
		t.Errorf("fingerprint is %s", hostKey.Fingerprint)
	}

	t.Run("a hook's refusal comes through", func(t *testing.T) {
		write(t, filepath.Join(repo, "hooks/pre-receive"), "#!/bin/sh\ncat >/dev/null\necho no entry >&2\nexit 1\n")
		if err := os.Chmod(filepath.Join(repo, "hooks/pre-receive"), 0o755); err != nil {
			t.Fatal(err)
		}
		r := open(t, gitops.Options{URL: url, Auth: good})
		var refused *gitops.RefusedError
		if _, err := r.Commit(context.Background(), change(t, r, map[string]string{"d": "1"}), nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "no entry") {
			t.Errorf("%T %v", err, err)
		}
	})
}

// A server that accepts and then says nothing must not hold a user who has
// pressed Ctrl-C.
func TestSSHHandshakeThatHangs(t *testing.T) {
	dir := sandbox(t)
	key := filepath.Join(dir, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: ssh-keygen is not installed: %v %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		if c, err := l.Accept(); err == nil {
			cancel()
			defer c.Close()
			<-t.Context().Done()
		}
	}()
	_, err = gitops.Open(ctx, gitops.Options{URL: "ssh://git@" + l.Addr().String() + "/x", Auth: gitops.Auth{SSHKeyFile: key}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%T %v", err, err)
	}
}
