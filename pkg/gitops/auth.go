package gitops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops/credential"
)

// Environment variables that AuthFromEnv reads.
const (
	EnvToken      = "AUTOPOLICY_GIT_TOKEN"
	EnvUsername   = "AUTOPOLICY_GIT_USERNAME"
	EnvSSHKey     = "AUTOPOLICY_GIT_SSH_KEY"
	EnvPassphrase = "AUTOPOLICY_GIT_SSH_PASSPHRASE"
	EnvKnownHosts = "AUTOPOLICY_GIT_KNOWN_HOSTS"
)

// connectTimeout bounds the dialling of a server, not the transfer.
const connectTimeout = 20 * time.Second

// Auth holds credentials. Fields that are empty fall back to the URL's user
// information, and for SSH to the agent and the usual files of ~/.ssh.
type Auth struct {
	Username string
	Token    string // token or password for HTTP
	// SSHKeyFile is a private key; with it neither the agent nor ~/.ssh is asked.
	SSHKeyFile    string
	SSHPassphrase string
	// KnownHosts are files in the format of known_hosts. The host key is
	// always checked.
	KnownHosts []string
}

// AuthFromEnv reads the credentials from the environment that getenv gives.
// SSH_KNOWN_HOSTS counts where AUTOPOLICY_GIT_KNOWN_HOSTS is not set.
func AuthFromEnv(getenv func(string) string) Auth {
	hosts := getenv(EnvKnownHosts)
	if hosts == "" {
		hosts = getenv("SSH_KNOWN_HOSTS")
	}
	return Auth{
		Username:      getenv(EnvUsername),
		Token:         getenv(EnvToken),
		SSHKeyFile:    getenv(EnvSSHKey),
		SSHPassphrase: getenv(EnvPassphrase),
		KnownHosts:    filepath.SplitList(hosts),
	}
}

// String keeps credentials out of messages and logs.
func (a Auth) String() string { return "credentials" }

// GoString is String for %#v.
func (a Auth) GoString() string { return a.String() }

// method takes the user information out of ep and returns how to
// authenticate; nil for HTTP without credentials.
func (a Auth) method(ep *transport.Endpoint) (transport.AuthMethod, error) {
	name, secret := ep.User, ep.Password
	ep.User, ep.Password = "", ""
	if ep.Protocol == "ssh" {
		return a.sshMethod(ep, name)
	}
	if a.Username != "" {
		name = a.Username
	}
	if a.Token != "" {
		secret = a.Token
	}
	switch {
	case name == "" && secret == "":
		return nil, nil
	case name == "":
		name = "git" // servers that know a token do not look at the name
	}
	return &githttp.BasicAuth{Username: name, Password: secret}, nil
}

// askHelpers asks git's credential helpers, once and only when the server wanted
// credentials and was sent none. It reports whether it is worth trying again, and
// adds to err what helpers that failed have said.
func (m *remote) askHelpers(ctx context.Context, err *error) bool {
	var auth *AuthError
	if m.asked || m.endpoint.Protocol == "ssh" || !errors.As(*err, &auth) || auth.Sent {
		return false
	}
	m.asked = true
	scopes, problem := m.configuration()
	if problem == nil {
		var server *url.URL
		if server, problem = url.Parse(m.url); problem == nil {
			var answer credential.Answer
			var ok bool
			if answer, ok, problem = credential.Ask(ctx, scopes, server); ok {
				m.auth = &githttp.BasicAuth{Username: answer.Username, Password: answer.Password}
				return true
			}
		}
	}
	if problem != nil {
		auth.Words = strings.Trim(auth.Words+"; "+escape(problem.Error()), "; ")
	}
	return false
}

// sshAuth adds a time limit and the host key check to the public keys.
type sshAuth struct {
	gitssh.PublicKeysCallback
}

// ClientConfig implements go-git's interface.
func (a *sshAuth) ClientConfig() (*ssh.ClientConfig, error) {
	c, err := a.PublicKeysCallback.ClientConfig()
	if err == nil {
		c.Timeout = connectTimeout
	}
	return c, err
}

func (a Auth) sshMethod(ep *transport.Endpoint, name string) (transport.AuthMethod, error) {
	host := ep.Host
	if real := gitssh.DefaultSSHConfig.Get(host, "Hostname"); real != "" {
		host = real
	}
	if name == "" {
		name = a.Username
	}
	if name == "" {
		name = gitssh.DefaultSSHConfig.Get(ep.Host, "User")
	}
	if name == "" {
		u, err := user.Current()
		if err != nil {
			return nil, fmt.Errorf("name the SSH user: %w", err)
		}
		name = u.Username
	}
	port := ep.Port
	if port == 0 {
		port = gitssh.DefaultPort
	}
	m := &sshAuth{}
	m.User = name
	if err := a.setHostKeyCheck(m, net.JoinHostPort(host, strconv.Itoa(port))); err != nil {
		return nil, err
	}
	if a.SSHKeyFile != "" {
		signer, err := readKey(a.SSHKeyFile, a.SSHPassphrase)
		if err != nil {
			return nil, err
		}
		m.Callback = func() ([]ssh.Signer, error) { return []ssh.Signer{signer}, nil }
		return m, nil
	}
	m.Callback = func() ([]ssh.Signer, error) { return usualSigners(a.SSHPassphrase) }
	return m, nil
}

// setHostKeyCheck asks the server for a key of a kind that is on record, and
// compares it.
func (a Auth) setHostKeyCheck(m *sshAuth, addr string) error {
	files := a.KnownHosts
	if len(files) == 0 {
		home, err := os.UserHomeDir()
		if err != nil {
			return fmt.Errorf("find known_hosts: %w", err)
		}
		for _, f := range []string{filepath.Join(home, ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"} {
			if _, err := os.Stat(f); err == nil {
				files = append(files, f)
			}
		}
	}
	db, err := knownhosts.NewDB(files...)
	if err != nil {
		return fmt.Errorf("read known_hosts: %w", err)
	}
	check := db.HostKeyCallback()
	m.HostKeyAlgorithms = db.HostKeyAlgorithms(addr)
	m.HostKeyCallback = func(host string, remote net.Addr, key ssh.PublicKey) error {
		err := check(host, remote, key)
		if err == nil {
			return nil
		}
		return &HostKeyError{
			Host: host, Fingerprint: ssh.FingerprintSHA256(key),
			Changed: knownhosts.IsHostKeyChanged(err), Err: err,
		}
	}
	return nil
}

func readKey(file, passphrase string) (ssh.Signer, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read SSH key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) && passphrase != "" {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(pem, []byte(passphrase))
	}
	if err != nil {
		return nil, fmt.Errorf("read SSH key %s: %w", escape(file), err)
	}
	return signer, nil
}

// usualSigners are the agent's keys and the default files of ~/.ssh. A file
// that needs another passphrase is passed over, as ssh does without a terminal.
func usualSigners(passphrase string) ([]ssh.Signer, error) {
	var out []ssh.Signer
	if agent, err := gitssh.NewSSHAgentAuth("git"); err == nil {
		if out, err = agent.Callback(); err != nil {
			return nil, fmt.Errorf("ask SSH agent for keys: %w", err)
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fmt.Errorf("find SSH keys: %w", err)
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		signer, err := readKey(filepath.Join(home, ".ssh", name), passphrase)
		var locked *ssh.PassphraseMissingError
		switch {
		case err == nil:
			out = append(out, signer)
		case !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &locked):
			return nil, err
		}
	}
	return out, nil
}
