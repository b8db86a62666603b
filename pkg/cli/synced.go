package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops/synced"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

const (
	// syncPatience is how long an API server may be away while it is asked what it
	// runs, and syncPause how long until it is asked again.
	syncPatience = time.Minute
	syncPause    = 2 * time.Second
	defaultWait  = 10 * time.Minute
)

// syncFlags say who applies what is committed.
type syncFlags struct{ by string }

func (f *syncFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.by, "synced-by", "", "who applies the folder: flux/NAMESPACE/NAME, argocd/NAMESPACE/NAME or none (default whoever is found to)")
}

func (f *syncFlags) complete(c config) error {
	if f.by == "" {
		f.by = c.SyncedBy
	}
	return synced.CheckName(f.by)
}

// watcher asks a cluster what it runs of a folder.
type watcher struct {
	reader *synced.Reader
	by     string
}

func (s *setup) watcher(by string) (*watcher, error) {
	config, err := s.app.restConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "kubectl-autopolicy/" + s.app.version
	reader, err := synced.New(config)
	return &watcher{reader, by}, err
}

// look tells what the cluster runs of a folder, and waits for an API server that
// is away.
func (w *watcher) look(ctx context.Context, s *setup, f *folder) (now *rollout.Synced, err error) {
	err = synced.Patiently(ctx, syncPatience, syncPause, func(ctx context.Context) error {
		now, err = w.once(ctx, s, f)
		return err
	})
	return now, err
}

func (w *watcher) once(ctx context.Context, s *setup, f *folder) (*rollout.Synced, error) {
	report, err := w.reader.Report(ctx, synced.Target{Repository: f.repository.URL(), Branch: f.repository.Branch(), Folder: f.dir, Named: w.by})
	if err != nil {
		return nil, fmt.Errorf("ask the cluster what it runs: %w", err)
	}
	now := &rollout.Synced{By: report.By, Revision: report.Revision, Obstacles: report.Obstacles, Since: report.Since}
	switch {
	case report.By == "":
		now.Revision, now.Tree = string(f.base), f.tree
	case report.Revision == "":
		now.Obstacles = append(now.Obstacles, "it has applied no commit yet")
	default:
		if now.Tree, err = f.at(ctx, report.Revision); errors.Is(err, gitops.ErrNoRevision) {
			now.Obstacles = append(now.Obstacles, fmt.Sprintf("it runs commit %s, which %s does not have", report.Revision, f.where()))
		} else if err != nil {
			return nil, err
		}
	}
	if now.Tree != nil {
		if now.Objects, err = w.compare(ctx, s.namespace, now.Tree); err != nil {
			return nil, err
		}
	}
	now.Now = w.reader.Now()
	return now, nil
}

// at is the folder in a commit that the cluster names; the repository may have to
// be asked again for it.
func (f *folder) at(ctx context.Context, revision string) (overlay.Tree, error) {
	t, err := f.repository.ReadAt(ctx, gitops.Revision(revision), f.dir)
	if errors.Is(err, gitops.ErrNoRevision) {
		if err := f.repository.Refresh(ctx); err != nil {
			return nil, err
		}
		t, err = f.repository.ReadAt(ctx, gitops.Revision(revision), f.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read what the cluster runs: %w", err)
	}
	return overlay.Tree(t), nil
}

// compare looks for what a tree applies in the cluster. NetworkPolicies are looked
// for in any stage: one that a stage before has left denies.
func (w *watcher) compare(ctx context.Context, namespace string, t overlay.Tree) ([]rollout.LiveObject, error) {
	built, err := overlay.Build(t)
	if err != nil {
		return nil, fmt.Errorf("build what the cluster runs: %w", err)
	}
	var objects [][]byte
	for _, o := range built {
		if o.Workload == "" {
			objects = append(objects, o.JSON)
		}
	}
	live, err := w.reader.Compare(ctx, synced.Wanted{Namespace: namespace, Prefix: rollout.ObjectPrefix, Objects: objects, Also: []string{"networking.k8s.io/v1/NetworkPolicy"}})
	if err != nil {
		return nil, fmt.Errorf("compare the cluster with the commit: %w", err)
	}
	var list []rollout.LiveObject
	for _, l := range live {
		list = append(list, rollout.LiveObject{Kind: l.Kind, Name: l.Name, State: string(l.State), Detail: l.Detail, Since: l.Since})
	}
	return list, nil
}

// await waits until the cluster runs the workloads at the stage that was
// committed just now.
func (w *watcher) await(ctx context.Context, s *setup, f *folder, limit time.Duration, slugs []string, stage policy.Stage) error {
	if err := f.reread(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errNotSynced)
	defer cancel()
	tick := time.NewTicker(syncPause)
	defer tick.Stop()
	said := ""
	for {
		now, err := w.look(ctx, s, f)
		var reasons []string
		if err == nil {
			in := s.input(f.tree, nil, f)
			in.Synced = now
			reasons, err = rollout.Unsynced(in, slugs)
		}
		switch {
		case ctx.Err() != nil && errors.Is(context.Cause(ctx), errNotSynced):
			return &notSyncedError{stage, limit, said}
		case err != nil:
			return err
		case len(reasons) == 0:
			s.progress.say("synced: the cluster runs %s", stage)
			return nil
		}
		if text := firstOf(reasons); text != said {
			said = text
			s.progress.update("waiting for the cluster: %s", printable(text))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errNotSynced) {
				return &notSyncedError{stage, limit, said}
			}
			return ctx.Err()
		}
	}
}

// firstOf is one of several texts, and how many more there are.
func firstOf(texts []string) string {
	if len(texts) == 1 {
		return texts[0]
	}
	return fmt.Sprintf("%s, and %s", texts[0], number(len(texts)-1, "other reason"))
}

// reread takes the folder as it is at the head now.
func (f *folder) reread(ctx context.Context) error {
	if err := f.repository.Refresh(ctx); err != nil {
		return err
	}
	tree, base, err := f.repository.Read(ctx, f.dir)
	if err != nil {
		return fmt.Errorf("read %s of repository %s: %w", f.dir, f.repository.URL(), err)
	}
	f.tree, f.base = overlay.Tree(tree), base
	return nil
}

var errNotSynced = errors.New("not synced in time")

// notSyncedError is a stage that is committed and that the cluster does not run.
type notSyncedError struct {
	stage  policy.Stage
	limit  time.Duration
	reason string
}

func (e *notSyncedError) Error() string {
	return fmt.Sprintf("%s is committed, and the cluster does not run it after %s: %s", e.stage, e.limit, e.reason)
}
