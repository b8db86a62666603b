package gitops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
)

// maxWords bounds what is kept of a server's messages, in bytes.
const maxWords = 2000

// newClient makes a client of its own: nothing is installed in go-git's
// package variables.
func newClient(protocol string) transport.Transport {
	if protocol == "ssh" {
		return gitssh.NewClient(nil)
	}
	return githttp.NewClient(&http.Client{Transport: boundedErrors{&http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		ForceAttemptHTTP2:     true,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: 5 * time.Minute, // a server-side hook may run long
		IdleConnTimeout:       connectTimeout,
	}}})
}

// boundedErrors cuts the pages that come with an HTTP error: go-git reads them
// whole.
type boundedErrors struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b boundedErrors) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(req)
	if err == nil && res.StatusCode >= 300 {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxWords), res.Body}
	}
	return res, err
}

// explain turns what go-git and the network say into the types of this
// package. Before a push was sent, every such error means that the remote is
// unchanged.
func (m *remote) explain(ctx context.Context, err error) error {
	var (
		hostKey *HostKeyError
		text    = err.Error()
		sent    = m.auth != nil
		isSSH   = m.endpoint.Protocol == "ssh"
	)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("talk to %s: %w", escape(m.url), context.Canceled)
	case ctx.Err() != nil || isTimeout(err):
		return &NetworkError{URL: m.url, Timeout: true, Err: inner(err)}
	case errors.As(err, &hostKey):
		return hostKey
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return &NotFoundError{URL: m.url, Remote: true}
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		_, words, _ := strings.Cut(text, ": ")
		return &AuthError{URL: m.url, Sent: sent, Words: onlyText(words)}
	case isSSH && strings.Contains(text, "unable to authenticate"):
		return &AuthError{URL: m.url, Sent: true, SSH: true}
	case isSSH && (strings.Contains(text, "denied") || strings.Contains(text, "not allowed")):
		return &AuthError{URL: m.url, Sent: true, SSH: true, Words: escape(text)}
	case notGit(err):
		return &NotRepositoryError{URL: m.url, Reason: "the server does not answer in git's protocol"}
	}
	return &NetworkError{URL: m.url, Err: inner(err)}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(inner(err), &t) && t.Timeout()
}

// inner drops the wrappers that repeat the URL.
func inner(err error) error {
	var (
		unexpected *plumbing.UnexpectedError // does not unwrap
		request    *url.Error
	)
	if errors.As(err, &unexpected) {
		err = unexpected.Err
	}
	if errors.As(err, &request) {
		err = request.Err
	}
	return err
}

func notGit(err error) bool {
	var data *packp.ErrUnexpectedData
	return errors.As(err, &data) || errors.Is(err, pktline.ErrInvalidPktLen)
}

// onlyText drops an HTML page, and escapes the rest.
func onlyText(s string) string {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "<") {
		return ""
	}
	return escape(s)
}

// serverWords takes a server's progress: it keeps the last lines, escaped, and
// passes them on. Lines that a carriage return overwrites are dropped.
type serverWords struct {
	out  io.Writer // may be nil
	line bytes.Buffer
	kept []string
}

// Write implements io.Writer; it returns an error only if out does.
func (w *serverWords) Write(p []byte) (int, error) {
	for _, c := range p {
		switch {
		case c == '\r':
			w.line.Reset()
		case c == '\n':
			line := w.line.String()
			w.line.Reset()
			w.add(line)
			if w.out == nil || strings.TrimSpace(line) == "" {
				continue
			}
			if _, err := fmt.Fprintf(w.out, "remote: %s\n", escape(line)); err != nil {
				return 0, err
			}
		case w.line.Len() < maxWords:
			w.line.WriteByte(c)
		}
	}
	return len(p), nil
}

func (w *serverWords) add(line string) {
	const most = 10
	if line = strings.TrimSpace(line); line == "" || line == "ok" {
		return
	}
	if w.kept = append(w.kept, escape(line)); len(w.kept) > most {
		w.kept = w.kept[len(w.kept)-most:]
	}
}

// String joins the kept lines.
func (w *serverWords) String() string { return strings.Join(w.kept, "; ") }
