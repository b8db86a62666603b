package gitops

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

var (
	// ErrNothingToCommit says that a change leaves the folder as it is.
	ErrNothingToCommit = errors.New("nothing to commit")
	// ErrNoRevision says that the repository does not have that object.
	ErrNoRevision = errors.New("no such revision in the repository")

	// errOvertaken tells Commit that the branch has moved and nothing was
	// changed.
	errOvertaken = errors.New("branch has moved")
)

// Every error type below has a Hint, a sentence of what a person can do.

// NotFoundError says that there is no repository at a path or URL, or none
// that these credentials may see.
type NotFoundError struct {
	URL    string
	Remote bool
}

func (e *NotFoundError) Error() string { return "repository " + escape(e.URL) + " does not exist" }

func (e *NotFoundError) Hint() string {
	if e.Remote {
		return "check the URL; a server also answers like this when the account may not see the repository (" + tokenHint + ")"
	}
	return "create it with 'git init --bare', or name an existing one"
}

// NotRepositoryError says that what is there cannot be used as a git
// repository.
type NotRepositoryError struct {
	URL    string
	Reason string
}

func (e *NotRepositoryError) Error() string {
	return escape(e.URL) + " is not a usable git repository: " + escape(e.Reason)
}

func (e *NotRepositoryError) Hint() string {
	return "name the folder that holds .git, a bare repository, or the URL that 'git clone' takes"
}

const tokenHint = "set " + EnvToken + ", and " + EnvUsername + " where the server wants a name, or configure a credential helper for git"

// AuthError says that the server wants credentials, or refused those it got.
type AuthError struct {
	URL string
	// Sent says that credentials were given, and refused.
	Sent bool
	SSH  bool
	// Words are the server's own, escaped; may be empty.
	Words string
}

func (e *AuthError) Error() string {
	s := escape(e.URL) + " wants credentials and none are set"
	if e.Sent {
		s = escape(e.URL) + " refused the credentials"
	}
	return withWords(s, e.Words)
}

func (e *AuthError) Hint() string {
	switch {
	case e.SSH:
		return "set " + EnvSSHKey + " to a private key that may write, or add one to the SSH agent"
	case e.Sent:
		return "check that the token in " + EnvToken + " is valid and may read and write this repository"
	}
	return tokenHint
}

// HostKeyError says that the SSH server could not be told to be the right one.
type HostKeyError struct {
	Host        string
	Fingerprint string // SHA256 of the key that the server showed
	Changed     bool   // another key is on record
	Err         error
}

func (e *HostKeyError) Error() string {
	if e.Changed {
		return fmt.Sprintf("host key of %s is not the one on record (it shows %s)", escape(e.Host), e.Fingerprint)
	}
	return fmt.Sprintf("host key of %s is not known (it shows %s)", escape(e.Host), e.Fingerprint)
}

func (e *HostKeyError) Unwrap() error { return e.Err }

func (e *HostKeyError) Hint() string {
	if e.Changed {
		return "somebody may be in between: compare the fingerprint with the server's own, then correct known_hosts"
	}
	return "compare the fingerprint with the server's own, then add the key to known_hosts or to the file that " + EnvKnownHosts + " names"
}

// BranchError says that a branch cannot be read or committed to.
type BranchError struct {
	Branch string // may be empty
	Reason string
	Advice string // may be empty
}

func (e *BranchError) Error() string {
	if e.Branch == "" {
		return "branch: " + e.Reason
	}
	return "branch " + escape(e.Branch) + " " + e.Reason
}

func (e *BranchError) Hint() string {
	if e.Advice == "" {
		return "name another branch"
	}
	return e.Advice
}

// DirtyError says that the folder in the worktree or the index is not as the
// branch has it.
type DirtyError struct {
	Dir   string
	Files []string // relative to the repository, sorted
}

func (e *DirtyError) Error() string {
	const most = 10
	files := make([]string, 0, most)
	for _, f := range e.Files[:min(most, len(e.Files))] {
		files = append(files, escape(f))
	}
	s := strings.Join(files, ", ")
	if n := len(e.Files) - len(files); n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	where := "folder " + escape(e.Dir)
	if e.Dir == "" {
		where = "the worktree"
	}
	return where + " has changes that are not committed: " + s
}

func (e *DirtyError) Hint() string {
	return "commit them, or discard them with 'git restore' and 'git clean'"
}

// BusyError says that a git operation is under way in the repository.
type BusyError struct{ What string }

func (e *BusyError) Error() string { return "repository is busy: " + escape(e.What) }

func (e *BusyError) Hint() string {
	return "finish or abort it; if no git program is running, remove the lock file"
}

// DivergedError says that a local branch and its upstream each have commits
// that the other lacks.
type DivergedError struct{ Branch, Upstream string }

func (e *DivergedError) Error() string {
	return "branch " + escape(e.Branch) + " has diverged from " + escape(e.Upstream)
}

func (e *DivergedError) Hint() string {
	return "bring them together with 'git pull --rebase' or 'git merge' first"
}

// RefusedError says that the server did not take the push: a hook, a
// protected branch. The remote is unchanged.
type RefusedError struct{ Branch, Words string }

func (e *RefusedError) Error() string {
	return withWords("push to "+escape(e.Branch)+" was refused, the remote is unchanged", e.Words)
}

func (e *RefusedError) Hint() string {
	return "push to a branch that is not protected, or ask the repository's owner for the right to"
}

// OvertakenError says that others moved the branch each time before the commit
// could be made. The branch does not have the commit.
type OvertakenError struct {
	Branch  string
	Replays int
}

func (e *OvertakenError) Error() string {
	if e.Replays == 0 {
		return "branch " + escape(e.Branch) + " has moved since it was read, nothing was committed"
	}
	return fmt.Sprintf("branch %s was moved by others %d times in a row, nothing was committed", escape(e.Branch), e.Replays+1)
}

func (e *OvertakenError) Hint() string { return "run the command again" }

// NetworkError says that the server could not be reached or broke off, before
// anything was changed there.
type NetworkError struct {
	URL     string
	Timeout bool
	Err     error
}

func (e *NetworkError) Error() string {
	if e.Timeout {
		return fmt.Sprintf("connection to %s timed out: %s", escape(e.URL), escape(e.Err.Error()))
	}
	return fmt.Sprintf("connection to %s: %s", escape(e.URL), escape(e.Err.Error()))
}

func (e *NetworkError) Unwrap() error { return e.Err }

func (e *NetworkError) Hint() string {
	if strings.Contains(e.Err.Error(), "x509:") {
		return "add the server's authority to the system's, or name its file in SSL_CERT_FILE"
	}
	return "check the host name, the network and HTTPS_PROXY; nothing was changed"
}

// UncertainError says that the connection was lost during a push, before the
// server's answer.
type UncertainError struct {
	Revision Revision
	URL      string
	// Asked says that the server was reached once more, and did not have the
	// commit; it can only appear if the server still works on the push.
	Asked bool
	Err   error
}

func (e *UncertainError) Error() string {
	if e.Asked {
		return fmt.Sprintf("connection to %s was lost during the push, the remote does not have commit %s: %s",
			escape(e.URL), e.Revision, escape(e.Err.Error()))
	}
	return fmt.Sprintf("connection to %s was lost during the push, commit %s may or may not be there: %s",
		escape(e.URL), e.Revision, escape(e.Err.Error()))
}

func (e *UncertainError) Unwrap() error { return e.Err }

func (e *UncertainError) Hint() string {
	return "run the command again: it commits only what the remote does not have"
}

// WorktreeError says that the commit is made, but that a file of the worktree
// or its index is still the old one.
type WorktreeError struct {
	Revision Revision
	Path     string
	Err      error
}

func (e *WorktreeError) Error() string {
	return fmt.Sprintf("commit %s is made, but the worktree's %s was not updated: %s",
		e.Revision, escape(e.Path), escape(e.Err.Error()))
}

func (e *WorktreeError) Unwrap() error { return e.Err }

func (e *WorktreeError) Hint() string {
	return "correct the cause, then 'git restore --staged --worktree' the path"
}

// UnsafeError says that a path of the folder is refused: what it is, how it is
// called, or how much it is.
type UnsafeError struct{ Path, Reason string }

func (e *UnsafeError) Error() string { return "path " + escape(e.Path) + " " + e.Reason }

func (e *UnsafeError) Hint() string {
	return "the folder may only hold regular files with plain names; remove this one from the repository"
}

// AuthorError says that nobody is named as the author of a commit.
type AuthorError struct{ Reason string }

func (e *AuthorError) Error() string { return "author of the commit: " + e.Reason }

func (e *AuthorError) Hint() string {
	return "set it with 'git config --global user.name' and 'user.email'"
}

// escape makes one printable line of a text that others have written. Plain
// text stays as it is.
func escape(s string) string {
	const most = 2000
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
