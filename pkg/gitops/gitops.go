// Package gitops reads a folder of a git repository and commits changes to
// it: a local path, bare or with a worktree, or a remote behind HTTP(S) or
// SSH. It knows nothing of policy, and it never runs the git program, a hook
// or a filter, never forces a ref, and never leaves a commit half made.
//
// What a repository contains is hostile until checked: paths, file kinds and
// sizes in the folder are validated before a byte is handed out, and a remote's
// words are escaped. Messages and names that Log returns are raw; a caller
// escapes them before they reach a terminal.
package gitops

import (
	"context"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// Limits of the folder that is read or written; a folder beyond them is an
// UnsafeError. A namespace's overlay is some tens of files of some kilobytes,
// so they bound what a hostile repository can cost, not what a user may have.
const (
	MaxFileSize  = 1 << 20  // bytes of one file
	MaxFiles     = 10_000   // files in the folder; as many subfolders
	MaxTotalSize = 64 << 20 // bytes of all files in the folder
	maxReplays   = 5        // how often a commit is made anew on a moved branch
	maxTreeSize  = 32 << 20 // bytes of one tree object
	maxDepth     = 64       // components of a path
	// DefaultBranch is the branch that an empty remote repository starts with.
	DefaultBranch = "main"
)

// Revision is the full hexadecimal id of a commit; "" stands for the state
// of a branch before its first commit.
type Revision string

// Tree holds the regular files of a folder: slash-separated path relative to
// the folder, and content.
type Tree map[string][]byte

// Signature names a person or program in a commit.
type Signature struct{ Name, Email string }

// Options says which repository to open, and as whom.
type Options struct {
	// URL is a local path, or a file, http, https, ssh or scp-like URL. Its
	// user information is used, and never shown.
	URL string
	// Branch is a short name; "" is the remote's HEAD or the current branch.
	Branch string
	Auth   Auth
	// Author is also the committer. Where it is zero, git's configuration
	// decides when something is committed.
	Author Signature
	// Signing says what commits are signed with; zero: as git's configuration says.
	Signing Signing
	// Progress receives the server's own progress lines, escaped; may be nil.
	Progress io.Writer
}

// Repository is one branch of an opened repository. It is not safe for
// concurrent use; several processes may use the same repository.
type Repository struct {
	store   *filesystem.Storage
	backend backend
	branch  plumbing.ReferenceName
	author  Signature
	signing Signing
	url     string // without user information
}

// backend is what local and remote repositories do differently.
type backend interface {
	// head returns the branch's newest known commit, or the zero hash.
	head() (plumbing.Hash, error)
	// refresh learns of commits that others have made.
	refresh(ctx context.Context) error
	// check refuses when a commit to dir on top of head would do harm; it
	// returns errOvertaken where the branch is not at head any more.
	check(ctx context.Context, dir string, head plumbing.Hash) error
	// publish moves the branch from p.old to p.new, and no other. It
	// returns errOvertaken, and has changed nothing, where the branch is not
	// at p.old.
	publish(ctx context.Context, p proposal) error
	// configuration is git's: the repository's own, if it is the user's, the
	// user's and the system's, the strongest first.
	configuration() ([]*config.Config, error)
	close() error
}

// Open opens a local repository in place, or clones one branch of a remote
// into a temporary directory that Close removes. An empty repository is no
// error.
func Open(ctx context.Context, o Options) (*Repository, error) {
	loc, err := parseLocation(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Branch != "" {
		if plumbing.NewBranchReferenceName(o.Branch).Validate() != nil {
			return nil, &BranchError{Branch: o.Branch, Reason: "is not a valid branch name"}
		}
	}
	if loc.endpoint == nil {
		return openLocal(loc.path, o)
	}
	return openRemote(ctx, loc.endpoint, o)
}

// Close removes the temporary clone of a remote. A local repository stays as
// it is.
func (r *Repository) Close() error { return r.backend.close() }

// Branch returns the short name of the branch that is read and committed to.
func (r *Repository) Branch() string { return r.branch.Short() }

// URL returns where the repository is, without user information.
func (r *Repository) URL() string { return r.url }

// Head returns the newest known commit of the branch, "" if it has none. For
// a remote that is what Open, Refresh or Commit last saw.
func (r *Repository) Head() (Revision, error) {
	h, err := r.backend.head()
	return revision(h), err
}

// Refresh learns of the commits that others have pushed to the remote.
func (r *Repository) Refresh(ctx context.Context) error { return r.backend.refresh(ctx) }

// Check returns the error that Commit to dir would meet before it writes:
// no author, no key to sign with, a dirty folder, a diverged branch. It changes nothing.
func (r *Repository) Check(ctx context.Context, dir string) error {
	dir, err := cleanDir(dir)
	if err != nil {
		return err
	}
	if _, err := r.signature(); err != nil {
		return err
	}
	if _, err := r.signer(); err != nil {
		return err
	}
	head, err := r.backend.head()
	if err != nil {
		return err
	}
	err = r.backend.check(ctx, dir, head)
	if errors.Is(err, errOvertaken) {
		err = &OvertakenError{Branch: r.Branch()}
	}
	return err
}

// Read returns the files of dir at the head of the branch, and that head. dir
// is slash-separated and relative to the repository, "" is all of it. A folder
// that does not exist is an empty tree. For a local worktree the committed
// files count, not those on disk.
func (r *Repository) Read(ctx context.Context, dir string) (Tree, Revision, error) {
	head, err := r.backend.head()
	if err != nil {
		return nil, "", err
	}
	t, err := r.readCommit(ctx, head, dir)
	return t, revision(head), err
}

// ReadAt returns the files of dir at rev, a full commit id of the repository.
// A commit that is not there is an ErrNoRevision.
func (r *Repository) ReadAt(ctx context.Context, rev Revision, dir string) (Tree, error) {
	if rev != "" && !plumbing.IsHash(string(rev)) {
		return nil, ErrNoRevision
	}
	return r.readCommit(ctx, plumbing.NewHash(string(rev)), dir)
}

// LogEntry is one commit that changed the folder. Its texts are as the commit
// has them, not escaped.
type LogEntry struct {
	Revision Revision
	Parent   Revision // first parent; "" for the first commit
	Author   Signature
	When     time.Time // author date
	Message  string
	Trailers []Trailer
}

// Trailer is a "Key: value" line of a message's last paragraph.
type Trailer struct{ Key, Value string }

// Trailer returns the value of the last trailer of that name, compared
// without case as git does, or "".
func (e LogEntry) Trailer(key string) string {
	for i := len(e.Trailers) - 1; i >= 0; i-- {
		if strings.EqualFold(e.Trailers[i].Key, key) {
			return e.Trailers[i].Value
		}
	}
	return ""
}

// Log iterates the commits that changed dir, newest first, along the first
// parents: what a merge brought in is the merge's change. So the entries are
// the states that the branch has had, in order. The iteration ends after the
// first error.
func (r *Repository) Log(ctx context.Context, dir string) iter.Seq2[LogEntry, error] {
	return func(yield func(LogEntry, error) bool) {
		if err := r.log(ctx, dir, yield); err != nil {
			yield(LogEntry{}, err)
		}
	}
}

func (r *Repository) log(ctx context.Context, dir string, yield func(LogEntry, error) bool) error {
	dir, err := cleanDir(dir)
	if err != nil {
		return err
	}
	at, err := r.backend.head()
	if err != nil || at.IsZero() {
		return err
	}
	commit, err := object.GetCommit(r.store, at)
	if err != nil {
		return storeError("read commit", at, err)
	}
	for commit != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		parent, err := r.firstParent(commit)
		if err != nil {
			return err
		}
		var before plumbing.Hash // of the folder; zero where it is absent
		after, err := r.folderID(commit.TreeHash, dir)
		if err != nil {
			return err
		}
		e := entryOf(commit)
		if parent != nil {
			e.Parent = revision(parent.Hash)
			if before, err = r.folderID(parent.TreeHash, dir); err != nil {
				return err
			}
		}
		if after != before && !yield(e, nil) {
			return nil
		}
		commit = parent
	}
	return nil
}

func entryOf(c *object.Commit) LogEntry {
	return LogEntry{
		Revision: revision(c.Hash),
		Author:   Signature{c.Author.Name, c.Author.Email},
		When:     c.Author.When,
		Message:  c.Message,
		Trailers: parseTrailers(c.Message),
	}
}

// firstParent returns nil for the first commit, and at the edge of a shallow
// clone, as git does.
func (r *Repository) firstParent(c *object.Commit) (*object.Commit, error) {
	if len(c.ParentHashes) == 0 {
		return nil, nil
	}
	edges, err := r.store.Shallow()
	if err != nil {
		return nil, storeError("read shallow edges of", c.Hash, err)
	}
	for _, e := range edges {
		if e == c.Hash {
			return nil, nil
		}
	}
	p, err := object.GetCommit(r.store, c.ParentHashes[0])
	if err != nil {
		return nil, storeError("read commit", c.ParentHashes[0], err)
	}
	return p, nil
}

// parseTrailers reads the last paragraph of message, unless it is the subject
// or holds a line that is neither a trailer nor the continuation of one.
func parseTrailers(message string) []Trailer {
	text := strings.TrimRight(strings.ReplaceAll(message, "\r\n", "\n"), "\n")
	i := strings.LastIndex(text, "\n\n")
	if i < 0 {
		return nil
	}
	var out []Trailer
	for _, line := range strings.Split(text[i+2:], "\n") {
		if len(out) > 0 && (strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")) {
			out[len(out)-1].Value += " " + strings.TrimSpace(line)
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || key == "" || strings.ContainsFunc(key, func(c rune) bool {
			return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
		}) {
			return nil
		}
		out = append(out, Trailer{key, strings.TrimSpace(value)})
	}
	return out
}

func revision(h plumbing.Hash) Revision {
	if h.IsZero() {
		return ""
	}
	return Revision(h.String())
}
