package cli

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// folder is one namespace's folder in an opened repository, as it was read.
type folder struct {
	repository *gitops.Repository
	dir        string
	tree       overlay.Tree
	base       gitops.Revision
	// review is how commits get to the branch; nil: they are pushed to it.
	review *review
	// judged is what a promotion's last plan was decided by.
	judged *rollout.Verdicts
}

// open opens the repository and reads the namespace's folder. With write it also
// makes sure that a commit to it could be made, so that nobody observes for an
// hour to learn that it cannot.
func (a *app) open(ctx context.Context, f repositoryFlags, namespace string, write bool) (*folder, error) {
	return a.openFor(ctx, f, namespace, write, nil)
}

// openFor is open for a command whose changes v brings to the branch, nil for a
// push.
func (a *app) openFor(ctx context.Context, f repositoryFlags, namespace string, write bool, v *review) (*folder, error) {
	repository, err := gitops.Open(ctx, f.options())
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	o := &folder{repository: repository, dir: path.Join(f.path, namespace)}
	if write && v != nil {
		o.review = v
		if err := v.propose(ctx, repository, o.dir); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare the pull request: %w", err), repository.Close())
		}
	}
	if write {
		err = repository.Check(ctx, o.dir)
	}
	if err == nil {
		var tree gitops.Tree
		tree, o.base, err = repository.Read(ctx, o.dir)
		o.tree = overlay.Tree(tree)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s of repository %s: %w", o.dir, repository.URL(), err), repository.Close())
	}
	return o, nil
}

// blame says in which folder of the repository the file is that an error is about.
func (f *folder) blame(err error) error {
	var file *overlay.InvalidError
	var object *engine.InvalidError
	var mismatch *rollout.StageMismatchError
	if errors.As(err, &file) {
		err = file // which command met it on what way does not help
	}
	if file != nil || errors.As(err, &object) || errors.As(err, &mismatch) {
		return fmt.Errorf("folder %s of repository %s: %w", f.dir, f.repository.URL(), err)
	}
	return err
}

// learned refuses a folder that has nothing in it yet.
func (f *folder) learned(s *setup) error {
	if len(f.tree) > 0 {
		return nil
	}
	return hinted(fmt.Errorf("%s has no policies for namespace %s", f.where(), s.namespace),
		"run 'kubectl autopolicy discover' first; -n names another namespace")
}

// usable tells whether plans can be made from the folder as it stands, before
// anybody observes for an hour to learn that they cannot.
func (f *folder) usable(s *setup) error {
	if len(f.tree) == 0 {
		return nil
	}
	if err := overlay.Check(f.tree); err != nil {
		return f.blame(err)
	}
	_, err := rollout.Discover(s.input(f.tree, nil, f), rollout.DiscoverOptions{})
	if errors.Is(err, rollout.ErrNothingObserved) {
		return nil
	}
	return f.blame(err)
}

func (f *folder) close() { f.repository.Close() }

// commit carries out a plan. When others were faster, again makes the plan anew
// from the folder as they left it. Nothing to commit is no error: the revision
// is empty then.
func (f *folder) commit(ctx context.Context, a *app, plan rollout.Plan, again func(overlay.Tree) (rollout.Plan, error)) (gitops.Revision, error) {
	when := a.now()
	change := func(p rollout.Plan) gitops.Change {
		return gitops.Change{Dir: f.dir, Base: f.base, Files: p.Files, Message: p.Message, When: when}
	}
	last := plan
	revision, err := f.repository.Commit(ctx, change(plan), func(_ context.Context, t gitops.Tree, _ gitops.Revision) (gitops.Change, error) {
		p, err := again(overlay.Tree(t))
		if err == nil && p.Empty() {
			err = gitops.ErrNothingToCommit
		}
		last = p
		return change(p), err
	})
	if errors.Is(err, gitops.ErrNothingToCommit) {
		return "", nil
	}
	if err != nil {
		return revision, fmt.Errorf("commit to %s: %w", f.repository.URL(), err)
	}
	if f.review != nil {
		return revision, f.review.offer(ctx, f, last)
	}
	return revision, nil
}

// where says which branch of which repository is meant, for people.
func (f *folder) where() string {
	if f.review != nil && !f.review.merged {
		return fmt.Sprintf("branch %s of %s", f.review.branch, f.repository.URL())
	}
	return fmt.Sprintf("branch %s of %s", f.repository.Branch(), f.repository.URL())
}
