// Package credential asks the credential helpers that git's configuration names
// for the user and password of a server, in git's own protocol and in git's
// order. It is the one place of the product that runs other programs, because
// that is what a helper is: one that the user has chosen for their own git. Only
// the user's and the system's configuration may name one, never a repository's.
// It never tells a helper to store or to forget anything.
package credential

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/config"
)

const (
	// timeout bounds one helper; it may open a browser and wait for a person.
	timeout = 5 * time.Minute
	// maxAnswer bounds what a helper says, in bytes.
	maxAnswer = 64 << 10
)

// Answer is what a helper knows. It does not print itself.
type Answer struct{ Username, Password string }

// String keeps the password out of messages and logs.
func (Answer) String() string { return "credentials" }

// GoString is String for %#v.
func (Answer) GoString() string { return "credentials" }

// settings are git's for one server.
type settings struct {
	helpers  []string
	username string
	withPath bool
}

// Ask asks the helpers that the scopes, from the strongest on, configure for the
// server of an http or https URL, until one knows the password. Without one it
// returns false, and in the error what the helpers that did not work said.
func Ask(ctx context.Context, scopes []*config.Config, server *url.URL) (Answer, bool, error) {
	s := configured(scopes, server)
	answer := Answer{Username: s.username}
	if u := server.User.Username(); u != "" {
		answer.Username = u
	}
	var errs []error
	for _, helper := range s.helpers {
		stop, err := ask(ctx, helper, s, server, &answer)
		if ctx.Err() != nil {
			return answer, false, ctx.Err()
		}
		if err != nil {
			errs = append(errs, err) // as git does, the next one is asked
		}
		if answer.Password != "" {
			return answer, true, nil
		}
		if stop {
			break
		}
	}
	return answer, false, errors.Join(errs...)
}

// configured reads credential.* and credential.<url>.* for the server; an empty
// helper takes back those before it.
func configured(scopes []*config.Config, server *url.URL) settings {
	var s settings
	for i := len(scopes) - 1; i >= 0; i-- { // git reads the system's first
		section := scopes[i].Raw.Section("credential")
		take := func(key, value string) {
			switch {
			case strings.EqualFold(key, "helper") && value == "":
				s.helpers = nil
			case strings.EqualFold(key, "helper"):
				s.helpers = append(s.helpers, value)
			case strings.EqualFold(key, "username"):
				s.username = value
			case strings.EqualFold(key, "usehttppath"):
				s.withPath = strings.EqualFold(value, "true") || value == "1" || strings.EqualFold(value, "yes") || strings.EqualFold(value, "on")
			}
		}
		for _, o := range section.Options {
			take(o.Key, o.Value)
		}
		for _, sub := range section.Subsections {
			if !matches(sub.Name, server) {
				continue
			}
			for _, o := range sub.Options {
				take(o.Key, o.Value)
			}
		}
	}
	return s
}

// matches tells whether a pattern such as https://*.example.com/team is about
// the server.
func matches(pattern string, server *url.URL) bool {
	p, err := url.Parse(pattern)
	if err != nil || p.Host == "" || p.Scheme != server.Scheme {
		return false
	}
	if p.User.Username() != "" && p.User.Username() != server.User.Username() {
		return false
	}
	want, have := strings.Split(strings.ToLower(withPort(p)), "."), strings.Split(strings.ToLower(withPort(server)), ".")
	if len(want) != len(have) {
		return false
	}
	for i := range want {
		if want[i] != "*" && want[i] != have[i] {
			return false
		}
	}
	path := strings.Trim(p.Path, "/")
	at := strings.Trim(server.Path, "/")
	return path == "" || at == path || strings.HasPrefix(at, path+"/")
}

func withPort(u *url.URL) string {
	if u.Port() == "" {
		return u.Hostname() + ":" + map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Host
}

// ask runs one helper. stop says that it forbids to ask any other.
func ask(ctx context.Context, helper string, s settings, server *url.URL, answer *Answer) (stop bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var question strings.Builder
	fmt.Fprintf(&question, "protocol=%s\nhost=%s\n", server.Scheme, server.Host)
	if s.withPath {
		fmt.Fprintf(&question, "path=%s\n", strings.TrimPrefix(server.Path, "/"))
	}
	if answer.Username != "" {
		fmt.Fprintf(&question, "username=%s\n", answer.Username)
	}
	question.WriteString("\n")
	if strings.Count(question.String(), "\n") > 5 || strings.ContainsRune(question.String(), 0) {
		return false, errors.New("ask credential helper: the URL has a line end") // it would be another question
	}
	line := command(helper) + " get"
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "PATH="+searchPath())
	cmd.Stdin = strings.NewReader(question.String())
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{&out}, &limited{&words}
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(words.String())
		if i := strings.IndexByte(said, '\n'); i >= 0 {
			said = said[:i]
		}
		return false, fmt.Errorf("ask credential helper %q: %w: %s", name(helper), err, said)
	}
	return read(&out, answer), nil
}

// command is what git runs for a helper: a shell snippet, an absolute path, or
// the name of a program that begins with git-credential-.
func command(helper string) string {
	if snippet, ok := strings.CutPrefix(helper, "!"); ok {
		return snippet
	}
	if filepath.IsAbs(helper) {
		return helper
	}
	return "git-credential-" + helper
}

// name is the helper without arguments, which may hold what is secret.
func name(helper string) string {
	if strings.HasPrefix(helper, "!") {
		return "!..."
	}
	first, _, _ := strings.Cut(helper, " ")
	return first
}

// searchPath adds the folders in which git keeps its own helpers.
func searchPath() string {
	dirs := []string{os.Getenv("PATH")}
	if d := os.Getenv("GIT_EXEC_PATH"); d != "" {
		dirs = append(dirs, d)
	}
	if git, err := exec.LookPath("git"); err == nil {
		prefix := filepath.Dir(filepath.Dir(git))
		for _, d := range []string{"lib/git-core", "libexec/git-core", "mingw64/libexec/git-core"} {
			dirs = append(dirs, filepath.Join(prefix, filepath.FromSlash(d)))
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// read takes a helper's lines.
func read(out io.Reader, answer *Answer) (stop bool) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSuffix(lines.Text(), "\r"), "=")
		if !ok || strings.ContainsRune(value, 0) {
			continue
		}
		switch key {
		case "username":
			answer.Username = value
		case "password":
			answer.Password = value
		case "quit":
			stop = stop || value == "1" || value == "true"
		}
	}
	return stop
}

// limited keeps the beginning of what is written to it.
type limited struct{ to *bytes.Buffer }

// Write implements io.Writer; it never fails.
func (l *limited) Write(p []byte) (int, error) {
	if room := maxAnswer - l.to.Len(); room > 0 {
		l.to.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
