package forge

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Every error type below has a Hint, a sentence of what a person can do.

// UnknownError says that it cannot be told which forge a repository is on.
type UnknownError struct{ Host string }

func (e *UnknownError) Error() string {
	return "no forge is known for " + escape(e.Host)
}

// Hint says what a person can do about it.
func (e *UnknownError) Hint() string {
	return "name it with --forge (bitbucket, gitea, github or gitlab), or push without a pull request with --push"
}

// TokenError says that the forge wants a token, or refuses the one it got:
// expired, revoked, or without the right.
type TokenError struct {
	Kind  Kind
	Host  string
	Sent  bool
	Words string // the forge's own, escaped; may be empty
	// Right says that the token is known and may not do this.
	Right bool
}

func (e *TokenError) Error() string {
	s := escape(e.Host) + " wants a token and none is set"
	switch {
	case e.Sent && e.Right:
		s = escape(e.Host) + " does not let this token do that"
	case e.Sent:
		s = escape(e.Host) + " refused the token"
	}
	return withWords(s, e.Words)
}

// Hint says what a person can do about it.
func (e *TokenError) Hint() string {
	where := e.Kind.Variable() + " or AUTOPOLICY_TOKEN"
	switch {
	case e.Sent && e.Right:
		return "give the token in " + where + " the right to read and write pull requests (GitLab: scope api) of this repository"
	case e.Sent:
		return "it may have expired: make a new one and set it in " + where
	}
	return "set " + where
}

// RateError says that the forge answers no more requests for now.
type RateError struct {
	Host  string
	Until time.Time // zero if it does not say
	Words string
}

func (e *RateError) Error() string {
	s := escape(e.Host) + " is at its rate limit"
	if !e.Until.IsZero() {
		s += " until " + e.Until.UTC().Format(time.RFC3339)
	}
	return withWords(s, e.Words)
}

// Hint says what a person can do about it.
func (e *RateError) Hint() string {
	if e.Until.IsZero() {
		return "run the command again later: it goes on where it stopped"
	}
	return "run the command again after " + e.Until.Local().Format(time.TimeOnly) + ": it goes on where it stopped"
}

// NotFoundError says that the forge has no such repository, or none that the
// token may see.
type NotFoundError struct {
	Host, Path string
	Kind       Kind
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("%s has no %s", escape(e.Host), escape(e.Path))
}

// Hint says what a person can do about it.
func (e *NotFoundError) Hint() string {
	return "check the URL; a forge also answers like this when the token in " + e.Kind.Variable() + " may not see the repository"
}

// RefusedError says that the forge did not do what it was asked for.
type RefusedError struct {
	Host   string
	Status int // of HTTP
	Words  string
}

func (e *RefusedError) Error() string {
	return withWords(fmt.Sprintf("%s answered %d", escape(e.Host), e.Status), e.Words)
}

// Hint says what a person can do about it.
func (e *RefusedError) Hint() string {
	if e.Status >= 500 {
		return "the forge is in trouble: run the command again later"
	}
	return "see what the forge says; the branch is pushed, so the pull request can also be opened by hand"
}

// NetworkError says that the forge could not be reached.
type NetworkError struct {
	Host string
	Err  error
}

func (e *NetworkError) Error() string {
	return fmt.Sprintf("connection to %s: %s", escape(e.Host), escape(e.Err.Error()))
}

func (e *NetworkError) Unwrap() error { return e.Err }

// Hint says what a person can do about it.
func (e *NetworkError) Hint() string {
	if strings.Contains(e.Err.Error(), "x509:") {
		return "add the server's authority to the system's, or name its file in SSL_CERT_FILE"
	}
	return "check the host name, the network and HTTPS_PROXY"
}

// escape makes one printable line of a text that others have written.
func escape(s string) string {
	const most = 1000
	if len(s) > most {
		s = s[:most] + "..."
	}
	q := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func withWords(s, words string) string {
	if words == "" {
		return s
	}
	return s + ": " + words
}
