package gitops_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// need skips without a program that is the judge of a test.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: %s is not installed; it is the judge of this test", p)
		}
	}
}

func TestSSHSignaturesAreGitsOwn(t *testing.T) {
	need(t, "ssh-keygen")
	for name, c := range map[string]struct {
		kind  []string
		agent bool
		// configured gives user.signingKey; empty: the key is named as an option.
		configured func(dir string) string
		option     func(dir string) gitops.Signing
	}{
		"a private key":                      {kind: []string{"ed25519"}, option: func(d string) gitops.Signing { return gitops.Signing{Key: d + "/key"} }},
		"a locked private key":               {kind: []string{"ed25519", "-N", "open"}, option: func(d string) gitops.Signing { return gitops.Signing{Key: d + "/key", Passphrase: "open"} }},
		"an RSA key":                         {kind: []string{"rsa"}, option: func(d string) gitops.Signing { return gitops.Signing{Key: d + "/key"} }},
		"an ECDSA key":                       {kind: []string{"ecdsa"}, option: func(d string) gitops.Signing { return gitops.Signing{Key: d + "/key"} }},
		"a public key with the other beside": {kind: []string{"ed25519"}, option: func(d string) gitops.Signing { return gitops.Signing{Key: d + "/key.pub"} }},
		"git's configuration, a file":        {kind: []string{"ed25519"}, configured: func(d string) string { return d + "/key.pub" }},
		"git's configuration, the agent":     {kind: []string{"ed25519"}, agent: true, configured: func(d string) string { return d + "/moved.pub" }},
		"git's configuration, the key itself": {kind: []string{"ed25519"}, agent: true, configured: func(d string) string {
			data, _ := os.ReadFile(d + "/moved.pub")
			return "key::" + strings.TrimSpace(string(data))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sandbox(t)
			args := append([]string{"-q", "-f", dir + "/key", "-t"}, c.kind...)
			if len(c.kind) == 1 {
				args = append(args, "-N", "")
			}
			run(t, "ssh-keygen", args...)
			public, err := os.ReadFile(dir + "/key.pub")
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir+"/allowed", author.Email+" "+string(public))
			if c.agent {
				need(t, "ssh-agent", "ssh-add")
				startAgent(t, dir)
				run(t, "ssh-add", "-q", dir+"/key")
				if err := errors.Join(os.Remove(dir+"/key"), os.Rename(dir+"/key.pub", dir+"/moved.pub")); err != nil {
					t.Fatal(err)
				}
			}
			repo := worktree(t, filepath.Join(dir, "repo"))
			git(t, repo, "config", "gpg.ssh.allowedSignersFile", dir+"/allowed")
			o := gitops.Options{URL: repo}
			if c.option != nil {
				o.Signing = c.option(dir)
			} else {
				git(t, repo, "config", "commit.gpgSign", "true")
				git(t, repo, "config", "gpg.format", "ssh")
				git(t, repo, "config", "user.signingKey", c.configured(dir))
			}
			rev := commit(t, open(t, o), map[string]string{"a": "1"})
			out, err := tryGit(repo, "", "-c", "gpg.format=ssh", "verify-commit", "-v", string(rev))
			if err != nil || !strings.Contains(out, `Good "git" signature for ada@example.org`) {
				t.Errorf("git verify-commit: %v\n%s", err, out)
			}
			fsck(t, repo)
		})
	}
}

func startAgent(t *testing.T, dir string) {
	t.Helper()
	socket := filepath.Join(dir, "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Process.Kill(); agent.Wait() })
	t.Setenv("SSH_AUTH_SOCK", socket)
	for range 1000 {
		if err := exec.Command("ssh-add", "-l").Run(); err == nil || agent.ProcessState == nil && exitCode(err) == 1 {
			return
		}
	}
	t.Fatal("the SSH agent does not answer")
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

func TestOpenPGPSignaturesAreGPGsOwn(t *testing.T) {
	need(t, "gpg")
	dir := sandbox(t)
	home, err := os.MkdirTemp("", "gpg-") // its sockets' names must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GNUPGHOME", home)
	t.Cleanup(func() {
		exec.Command("gpgconf", "--kill", "all").Run() // none may have been started
		os.RemoveAll(home)
	})
	run(t, "gpg", "--batch", "--quiet", "--passphrase", "open", "--pinentry-mode", "loopback", "--quick-gen-key", "Ada <ada@example.org>", "ed25519", "sign", "never")
	write(t, dir+"/locked.asc", run(t, "gpg", "--batch", "--quiet", "--passphrase", "open", "--pinentry-mode", "loopback", "--armor", "--export-secret-keys"))

	repo := worktree(t, filepath.Join(dir, "repo"))
	rev := commit(t, open(t, gitops.Options{URL: repo, Signing: gitops.Signing{Key: dir + "/locked.asc", Passphrase: "open"}}), map[string]string{"a": "1"})
	if out, err := tryGit(repo, "", "verify-commit", string(rev)); err != nil || !strings.Contains(out, "Good signature from \"Ada <ada@example.org>\"") {
		t.Errorf("git verify-commit: %v\n%s", err, out)
	}
	fsck(t, repo)

	_, err = open(t, gitops.Options{URL: repo, Signing: gitops.Signing{Key: dir + "/locked.asc", Passphrase: "wrong"}}).Commit(
		t.Context(), change(t, open(t, gitops.Options{URL: repo}), map[string]string{"b": "1"}), nil)
	var signing *gitops.SigningError
	if !errors.As(err, &signing) || !strings.Contains(hint(t, signing), gitops.EnvSigningPassphrase) {
		t.Errorf("a wrong passphrase: %v", err)
	}
}

func TestACommitThatCannotBeSignedIsNotMade(t *testing.T) {
	need(t, "ssh-keygen")
	for name, c := range map[string]struct {
		config map[string]string
		key    string
		want   string
	}{
		"gpg's agent is not spoken to":    {map[string]string{"user.signingKey": "0xABCDEF"}, "", "gpg's key 0xABCDEF"},
		"no key is named":                 {map[string]string{"gpg.format": "ssh"}, "", "names no key"},
		"X.509 is not supported":          {map[string]string{"gpg.format": "x509"}, "", "format x509"},
		"the file is not there":           {nil, "/nonexistent", "read the key"},
		"the file holds no key":           {nil, "README", "neither a private nor a public key"},
		"the agent does not have it":      {nil, "stranger.pub", "does not have the key SHA256:"},
		"nor does a forgotten passphrase": {nil, "locked", "is locked"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sandbox(t)
			repo := worktree(t, filepath.Join(dir, "repo"))
			run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "x", "-f", dir+"/locked")
			run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", dir+"/stranger")
			if err := os.Remove(dir + "/stranger"); err != nil {
				t.Fatal(err)
			}
			write(t, dir+"/README", "no key\n")
			git(t, repo, "config", "commit.gpgSign", "true")
			for k, v := range c.config {
				git(t, repo, "config", k, v)
			}
			key := c.key
			if key != "" && !filepath.IsAbs(key) {
				key = filepath.Join(dir, key)
			}
			r := open(t, gitops.Options{URL: repo, Signing: gitops.Signing{Key: key}})
			before := head(t, r)
			var signing *gitops.SigningError
			if err := r.Check(t.Context(), "autopolicy/shop"); !errors.As(err, &signing) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("check: %v", err)
			}
			hint(t, signing)
			if _, err := r.Commit(t.Context(), change(t, r, map[string]string{"a": "1"}), nil); !errors.As(err, &signing) || head(t, r) != before {
				t.Errorf("commit: %v", err)
			}
			// The way out that the hint names.
			unsigned := commit(t, open(t, gitops.Options{URL: repo, Signing: gitops.Signing{Key: gitops.NoSigning}}), map[string]string{"a": "1"})
			if out := git(t, repo, "cat-file", "commit", string(unsigned)); strings.Contains(out, "gpgsig") {
				t.Errorf("signed in spite of it:\n%s", out)
			}
		})
	}
}

func TestSigningDoesNotPrintItsPassphrase(t *testing.T) {
	s := gitops.Signing{Key: "k", Passphrase: "secret"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if strings.Contains(fmt.Sprintf(format, s), "secret") {
			t.Errorf("%s prints it", format)
		}
	}
}
