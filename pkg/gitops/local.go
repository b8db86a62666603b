package gitops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// refLockWait is how long a ref that another process has locked is waited
// for; git itself waits for 0.1 s.
const refLockWait = 2 * time.Second

// local is a repository on this machine. It takes the locks that git takes, so
// that both can work in it at once.
type local struct {
	store     *filesystem.Storage
	branch    plumbing.ReferenceName
	gitDir    string // HEAD and index
	commonDir string // objects and refs; differs in a linked worktree
	// worktree is the folder that the branch is checked out in, "" if it is
	// not checked out.
	worktree string
}

func openLocal(path string, o Options) (*Repository, error) {
	l, err := locate(path)
	if err != nil {
		return nil, err
	}
	fsys := dotgit.NewRepositoryFilesystem(osfs.New(l.gitDir), osfs.New(l.commonDir))
	l.store = filesystem.NewStorage(fsys, cache.NewObjectLRUDefault())
	cfg, err := l.store.Config()
	if err != nil {
		return nil, &NotRepositoryError{URL: path, Reason: err.Error()}
	}
	if ext := unsupportedExtension(cfg); ext != "" {
		return nil, &NotRepositoryError{URL: path, Reason: "it uses the unsupported extension " + ext}
	}
	if err := l.chooseBranch(o.Branch); err != nil {
		return nil, err
	}
	return &Repository{store: l.store, backend: l, branch: l.branch, author: o.Author, signing: o.Signing, url: path}, nil
}

// locate finds the parts of a repository below path, which is a bare
// repository or the top of a worktree.
func locate(path string) (*local, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &NotFoundError{URL: path}
	case err != nil:
		return nil, fmt.Errorf("open repository: %w", err)
	case !info.IsDir():
		return nil, &NotRepositoryError{URL: path, Reason: "it is a file"}
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	l := &local{gitDir: path}
	dot := filepath.Join(path, ".git")
	if info, err := os.Stat(dot); err == nil {
		l.worktree, l.gitDir = path, dot
		if !info.IsDir() {
			if l.gitDir, err = readPointer(dot, "gitdir: ", path); err != nil {
				return nil, err
			}
		}
	} else if filepath.Base(path) == ".git" {
		l.worktree = filepath.Dir(path)
	}
	l.commonDir, err = readPointer(filepath.Join(l.gitDir, "commondir"), "", l.gitDir)
	if errors.Is(err, fs.ErrNotExist) {
		l.commonDir, err = l.gitDir, nil
	}
	if err != nil {
		return nil, err
	}
	for _, p := range []string{filepath.Join(l.gitDir, "HEAD"), filepath.Join(l.commonDir, "objects"), filepath.Join(l.commonDir, "refs")} {
		if _, err := os.Stat(p); err != nil {
			return nil, &NotRepositoryError{URL: path, Reason: "it has no " + filepath.Base(p)}
		}
	}
	return l, nil
}

// readPointer reads a file that holds the path of a folder, relative to base.
func readPointer(file, prefix, base string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("open repository: %w", err)
	}
	p, ok := strings.CutPrefix(strings.TrimSpace(string(data)), prefix)
	if !ok || p == "" {
		return "", &NotRepositoryError{URL: base, Reason: filepath.Base(file) + " is malformed"}
	}
	if !filepath.IsAbs(p) {
		p = filepath.Join(base, p)
	}
	return p, nil
}

// unsupportedExtension names what would make objects or refs mean something
// else than is read here.
func unsupportedExtension(cfg *config.Config) string {
	for _, o := range cfg.Raw.Section("extensions").Options {
		key, value := strings.ToLower(o.Key), strings.ToLower(o.Value)
		ok := slices.Contains([]string{"noop", "noop-v1", "worktreeconfig", "preciousobjects", "relativeworktrees"}, key) ||
			key == "objectformat" && value == "sha1" || key == "refstorage" && value == "files"
		if !ok {
			return key + "=" + value
		}
	}
	return ""
}

func (l *local) head() (plumbing.Hash, error) {
	// Packs may have come since the last look.
	l.store.Reindex()
	ref, err := l.store.Reference(l.branch)
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		return plumbing.ZeroHash, nil
	case err != nil:
		return plumbing.ZeroHash, fmt.Errorf("read branch %s: %w", l.branch.Short(), err)
	case ref.Type() != plumbing.HashReference:
		return plumbing.ZeroHash, &BranchError{Branch: l.branch.Short(), Reason: "is a symbolic ref"}
	}
	return ref.Hash(), nil
}

func (l *local) refresh(ctx context.Context) error { return ctx.Err() }

func (l *local) close() error { return nil }

func (l *local) configuration() ([]*config.Config, error) {
	cfg, err := l.store.Config()
	if err != nil {
		return nil, fmt.Errorf("read repository configuration: %w", err)
	}
	return configuration(cfg)
}

func (l *local) check(ctx context.Context, dir string, head plumbing.Hash) error {
	if err := l.checkedOutElsewhere(); err != nil {
		return err
	}
	if err := l.checkUpstream(head); err != nil {
		return err
	}
	if l.worktree == "" {
		return nil
	}
	w, err := openWorktree(l)
	if err != nil {
		return err
	}
	defer w.close()
	return w.checkStill(ctx, dir, head, nil)
}

func (l *local) publish(ctx context.Context, p proposal) error {
	if l.worktree == "" {
		return l.moveRef(ctx, p, func() {})
	}
	w, err := openWorktree(l)
	if err != nil {
		return err
	}
	defer w.close()
	return w.publish(ctx, p)
}

// moveRef is git's own compare and swap: the lock file is made exclusively,
// and renamed to the ref once the ref was seen at p.old. certain is called in
// between, when nothing but that rename can fail any more.
func (l *local) moveRef(ctx context.Context, p proposal, certain func()) error {
	ref := filepath.Join(l.commonDir, filepath.FromSlash(l.branch.String()))
	if err := os.MkdirAll(filepath.Dir(ref), 0o777); err != nil {
		return fmt.Errorf("lock branch %s: %w", l.branch.Short(), err)
	}
	lock, err := waitForLock(ctx, ref+".lock")
	if err != nil {
		return err
	}
	defer os.Remove(lock.Name()) // nothing is left to remove after the rename
	at, err := l.head()
	if err == nil && at != p.old {
		err = errOvertaken
	}
	if err == nil {
		_, err = fmt.Fprintln(lock, p.new)
	}
	if err == nil {
		err = lock.Sync()
	}
	if err := errors.Join(err, lock.Close(), ctx.Err()); err != nil {
		if errors.Is(err, errOvertaken) {
			return errOvertaken
		}
		return fmt.Errorf("move branch %s: %w", l.branch.Short(), err)
	}
	if err := l.appendReflogs(p); err != nil {
		return fmt.Errorf("write reflog of %s: %w", l.branch.Short(), err)
	}
	certain()
	if err := os.Rename(lock.Name(), ref); err != nil {
		return fmt.Errorf("move branch %s: %w", l.branch.Short(), err)
	}
	return nil
}

// waitForLock makes a lock file, and waits a little where another process
// holds it.
func waitForLock(ctx context.Context, name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(ctx, refLockWait)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if err == nil || !errors.Is(err, fs.ErrExist) {
			return f, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, &BusyError{What: name + " is held by another program"}
		}
	}
}

// appendReflogs notes the move where git would, so that it can be undone.
func (l *local) appendReflogs(p proposal) error {
	cfg, err := l.store.Config()
	if err != nil {
		return err
	}
	switch strings.ToLower(cfg.Raw.Section("core").Option("logallrefupdates")) {
	case "true", "always", "yes", "on", "1":
	case "":
		if cfg.Core.IsBare {
			return nil
		}
	default:
		return nil
	}
	logs := []string{filepath.Join(l.commonDir, "logs", filepath.FromSlash(l.branch.String()))}
	if head, err := l.store.Reference(plumbing.HEAD); err == nil && head.Target() == l.branch {
		logs = append(logs, filepath.Join(l.gitDir, "logs", "HEAD"))
	}
	subject, _, _ := strings.Cut(p.change.Message, "\n")
	var line bytes.Buffer
	fmt.Fprintf(&line, "%s %s %s <%s> %d %s\tcommit: %s\n", p.old, p.new, p.author.Name, p.author.Email,
		p.change.When.Unix(), p.change.When.Format("-0700"), subject)
	for _, name := range logs {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return err
		}
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		_, err = f.Write(line.Bytes())
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
