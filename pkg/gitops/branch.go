package gitops

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

func (l *local) chooseBranch(name string) error {
	head, err := l.store.Reference(plumbing.HEAD)
	if err != nil {
		return &NotRepositoryError{URL: l.gitDir, Reason: "its HEAD cannot be read"}
	}
	current := head.Type() == plumbing.SymbolicReference && head.Target().IsBranch()
	switch {
	case name == "" && !current:
		return &BranchError{Reason: "HEAD is detached", Advice: "name the branch, or check one out with 'git switch'"}
	case name == "":
		l.branch = head.Target()
	default:
		l.branch = plumbing.NewBranchReferenceName(name)
	}
	if !current || l.branch != head.Target() {
		l.worktree = ""
	}
	if at, err := l.head(); err != nil || !at.IsZero() || l.worktree != "" || current && l.branch == head.Target() {
		return err
	}
	known, err := l.branches()
	if err == nil && len(known) > 0 { // else it becomes the first one
		err = missingBranch(name, known)
	}
	return err
}

func (l *local) branches() ([]string, error) {
	refs, err := l.store.IterReferences()
	if err != nil {
		return nil, fmt.Errorf("list branches: %w", err)
	}
	var out []string
	err = refs.ForEach(func(r *plumbing.Reference) error {
		if r.Name().IsBranch() {
			out = append(out, r.Name().Short())
		}
		return nil
	})
	return out, err
}

func missingBranch(name string, known []string) error {
	slices.Sort(known)
	known = known[:min(5, len(known))]
	return &BranchError{
		Branch: name, Reason: "does not exist",
		Advice: "create it, or name another one, such as " + escape(strings.Join(known, ", ")),
	}
}

// checkedOutElsewhere refuses a branch that another worktree has checked out:
// moving it would make that worktree look as if it took the commit back.
func (l *local) checkedOutElsewhere() error {
	heads, err := filepath.Glob(filepath.Join(l.commonDir, "worktrees", "*", "HEAD"))
	if err != nil {
		return fmt.Errorf("list worktrees: %w", err)
	}
	cfg, err := l.store.Config()
	if err != nil {
		return fmt.Errorf("read repository configuration: %w", err)
	}
	if !cfg.Core.IsBare {
		heads = append(heads, filepath.Join(l.commonDir, "HEAD"))
	}
	for _, h := range heads {
		data, err := os.ReadFile(h)
		if err != nil {
			return fmt.Errorf("list worktrees: %w", err)
		}
		mine := l.worktree != "" && filepath.Dir(h) == l.gitDir
		if ref, ok := strings.CutPrefix(strings.TrimSpace(string(data)), "ref: "); ok && ref == l.branch.String() && !mine {
			return &BranchError{
				Branch: l.branch.Short(), Reason: "is checked out in another worktree",
				Advice: "name that worktree's folder as the repository",
			}
		}
	}
	return nil
}

// checkUpstream refuses a branch that has diverged from its upstream as last
// fetched.
func (l *local) checkUpstream(head plumbing.Hash) error {
	cfg, err := l.store.Config()
	if err != nil {
		return fmt.Errorf("read repository configuration: %w", err)
	}
	b := cfg.Branches[l.branch.Short()]
	if b == nil || b.Merge == "" || head.IsZero() {
		return nil
	}
	upstream := b.Merge // of the remote ".", this repository
	if remote := cfg.Remotes[b.Remote]; remote != nil {
		for _, spec := range remote.Fetch {
			if spec.Match(b.Merge) {
				upstream = spec.Dst(b.Merge)
			}
		}
	}
	ref, err := l.store.Reference(upstream)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return nil // never fetched
	} else if err != nil {
		return fmt.Errorf("read upstream %s: %w", upstream.Short(), err)
	}
	if ref.Hash() == head {
		return nil
	}
	ours, err := isAncestor(l.store, head, ref.Hash())
	if err != nil || ours {
		return err
	}
	theirs, err := isAncestor(l.store, ref.Hash(), head)
	if err == nil && !theirs {
		err = &DivergedError{Branch: l.branch.Short(), Upstream: upstream.Short()}
	}
	return err
}

// isAncestor reports whether all of a is in b. At the edge of a shallow clone
// it cannot tell, and says so with true: such a clone is not refused.
func isAncestor(store *filesystem.Storage, a, b plumbing.Hash) (bool, error) {
	x, err := object.GetCommit(store, a)
	if err != nil {
		return false, storeError("read commit", a, err)
	}
	y, err := object.GetCommit(store, b)
	if err != nil {
		return false, storeError("read commit", b, err)
	}
	ok, err := x.IsAncestor(y)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		edges, edgeErr := store.Shallow()
		if edgeErr == nil && len(edges) > 0 {
			return true, nil
		}
	}
	if err != nil {
		return false, storeError("walk history of", b, err)
	}
	return ok, nil
}
