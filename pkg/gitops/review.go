package gitops

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Review offers changes of a folder for review: commits go to a branch of their
// own, from which others merge them.
type Review struct {
	// Branch is its short name. It is this program's own: where it has to be
	// begun anew, it is forced, though never over what was not seen.
	Branch string
	Dir    string // the folder that is changed
	// Open says that the branch is being reviewed. Then what it has is built
	// upon; else it is begun anew from the branch that is read.
	Open bool
	// Base is the trailer by which the first commit of the branch names the commit
	// that it was begun from: should the branch that is read be forced, what is
	// below is known not to be of the review.
	Base string
	// Ours tells this program's commits from others'. A branch that holds
	// anybody else's is not forced.
	Ours func(LogEntry) bool
}

type review struct {
	Review
	branch plumbing.ReferenceName
	at     plumbing.Hash // where the branch is; zero: it does not exist
	looked bool          // at is what the server said
}

// Propose makes Head, Read and Log see, and Commit go to, a branch for review.
// An open one is gone on with as long as the folder of the branch that is read
// has not changed since; otherwise it is begun anew. Only a remote has it.
func (r *Repository) Propose(ctx context.Context, v Review) error {
	m, ok := r.backend.(*remote)
	if !ok {
		return &BranchError{Branch: v.Branch, Reason: "cannot be offered for review from a local repository",
			Advice: "name the repository by its URL on the forge, or commit to the local branch with --push"}
	}
	name := plumbing.NewBranchReferenceName(v.Branch)
	if name.Validate() != nil || name == m.branch {
		return &BranchError{Branch: v.Branch, Reason: "is not a valid name for a branch to review"}
	}
	if m.at.IsZero() {
		return &BranchError{Branch: m.branch.Short(), Reason: "has no commit that a change could be compared with",
			Advice: "make a first commit, or push to it directly with --push"}
	}
	dir, err := cleanDir(v.Dir)
	if err != nil {
		return err
	}
	v.Dir = dir
	m.review = &review{Review: v, branch: name}
	return m.refresh(ctx)
}

// begin decides what commits are made on, when the branch that is read is at at
// and the one for review at offered.
func (m *remote) begin(at, offered plumbing.Hash) error {
	if v := m.review; v.looked && !offered.IsZero() && offered != v.at {
		v.Open = true // somebody else has just pushed to it: theirs is gone on with
	}
	start, err := m.start(at, offered)
	if err != nil {
		return err
	}
	m.at, m.tip, m.review.at, m.review.looked = at, start, offered, true
	return nil
}

func (m *remote) start(at, offered plumbing.Hash) (plumbing.Hash, error) {
	if offered.IsZero() {
		return at, nil
	}
	merged, err := isAncestor(m.store, offered, at)
	if err != nil || merged {
		return at, err
	}
	if m.review.Open {
		same, err := m.untouched(at, offered)
		if err != nil {
			return at, err
		}
		if same {
			return offered, nil
		}
	}
	return at, m.onlyOurs(at, offered)
}

// untouched reports whether the folder of the branch that is read is as it was
// where the branch for review left it: merging that will be no conflict.
func (m *remote) untouched(at, offered plumbing.Hash) (bool, error) {
	a, err := object.GetCommit(m.store, at)
	if err != nil {
		return false, storeError("read commit", at, err)
	}
	b, err := object.GetCommit(m.store, offered)
	if err != nil {
		return false, storeError("read commit", offered, err)
	}
	bases, err := a.MergeBase(b)
	if err != nil {
		return false, storeError("compare history of", offered, err)
	}
	r := Repository{store: m.store}
	now, err := r.folderID(a.TreeHash, m.review.Dir)
	for i := 0; err == nil && i < len(bases); i++ {
		var then plumbing.Hash
		then, err = r.folderID(bases[i].TreeHash, m.review.Dir)
		if then != now {
			return false, err
		}
	}
	return err == nil && len(bases) > 0, err
}

// onlyOurs refuses to throw away what others have put on the branch.
func (m *remote) onlyOurs(at, offered plumbing.Hash) error {
	r := Repository{store: m.store}
	for h := offered; ; {
		if known, err := isAncestor(m.store, h, at); err != nil || known {
			return err
		}
		c, err := object.GetCommit(m.store, h)
		if err != nil {
			return storeError("read commit", h, err)
		}
		if len(c.ParentHashes) > 1 || m.review.Ours == nil || !m.review.Ours(entryOf(c)) {
			return &BranchError{
				Branch: m.review.branch.Short(),
				Reason: fmt.Sprintf("has commit %s by %s, which would be lost", h.String()[:10], escape(c.Author.Name)),
				Advice: "merge its pull request, or delete the branch if nobody needs it, and run the command again",
			}
		}
		parent, err := r.firstParent(c)
		if err != nil || parent == nil {
			return err // the branch has a history of its own, all of it ours
		}
		if m.review.Base != "" && entryOf(c).Trailer(m.review.Base) == parent.Hash.String() {
			return nil
		}
		h = parent.Hash
	}
}

// Leave goes back from a branch for review to the branch that is read, as it now
// is.
func (r *Repository) Leave(ctx context.Context) error {
	if m, ok := r.backend.(*remote); ok {
		m.review = nil
	}
	return r.backend.refresh(ctx)
}

// messageOf is a commit's message: the change's own, with the trailer of the first
// commit of a branch for review.
func (r *Repository) messageOf(c Change, head plumbing.Hash) string {
	m, ok := r.backend.(*remote)
	if !ok || m.review == nil || m.review.Base == "" || head != m.at {
		return c.Message
	}
	message := strings.TrimRight(c.Message, "\n")
	if len(parseTrailers(message)) == 0 {
		message += "\n"
	}
	return message + "\n" + m.review.Base + ": " + head.String() + "\n"
}

// Offered returns what the branch for review changes of the folder, and what the
// folder was: that is what a pull request shows.
func (r *Repository) Offered(ctx context.Context) (before, after Tree, err error) {
	m, ok := r.backend.(*remote)
	if !ok || m.review == nil {
		return nil, nil, errors.New("compare branches: nothing is offered for review")
	}
	if before, err = r.readCommit(ctx, m.at, m.review.Dir); err == nil {
		after, err = r.readCommit(ctx, m.tip, m.review.Dir)
	}
	return before, after, err
}
