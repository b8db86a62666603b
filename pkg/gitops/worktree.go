package gitops

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/index"
)

// worktree is a checked-out branch, with its index locked as git locks it for
// as long as the value is open. Files are only reached through root, which cannot be left by a symbolic
// link.
type worktree struct {
	*local
	root  *os.Root
	lock  *os.File // index.lock; becomes the index
	index *index.Index
	// byPath has the entries of index.
	byPath map[string]*index.Entry
	// crlf says that git turns line ends at checkout; modes that the executable
	// bit means something.
	crlf, modes bool
}

func openWorktree(l *local) (*worktree, error) {
	for _, name := range []string{"MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply"} {
		if _, err := os.Lstat(filepath.Join(l.gitDir, name)); err == nil {
			return nil, &BusyError{What: name + " says that a merge, rebase, cherry-pick or revert is not finished"}
		}
	}
	cfg, err := l.store.Config()
	if err != nil {
		return nil, fmt.Errorf("read repository configuration: %w", err)
	}
	user, err := config.LoadConfig(config.GlobalScope)
	if err != nil {
		return nil, fmt.Errorf("read git configuration: %w", err)
	}
	core := cfg.Raw.Section("core")
	crlf := strings.ToLower(cmp.Or(core.Option("autocrlf"), user.Raw.Section("core").Option("autocrlf")))
	w := &worktree{
		local: l, byPath: map[string]*index.Entry{}, index: &index.Index{Version: 2},
		crlf: crlf == "true" || crlf == "input", modes: !strings.EqualFold(core.Option("filemode"), "false"),
	}
	if w.root, err = os.OpenRoot(l.worktree); err != nil {
		return nil, fmt.Errorf("open worktree: %w", err)
	}
	lock := filepath.Join(l.gitDir, "index.lock")
	w.lock, err = os.OpenFile(lock, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if errors.Is(err, fs.ErrExist) {
		err = &BusyError{What: lock + " is held by another program"}
	}
	if err == nil {
		err = w.stillCheckedOut()
	}
	if err == nil {
		err = w.readIndex()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// stillCheckedOut refuses when the branch was switched after Open.
func (w *worktree) stillCheckedOut() error {
	head, err := w.store.Reference(plumbing.HEAD)
	if err != nil {
		return fmt.Errorf("read HEAD: %w", err)
	}
	if head.Target() != w.branch {
		return &BranchError{Branch: w.branch.Short(), Reason: "is not checked out any more", Advice: "run the command again"}
	}
	return nil
}

func (w *worktree) readIndex() error {
	f, err := os.Open(filepath.Join(w.gitDir, "index"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	defer f.Close()
	if err := index.NewDecoder(bufio.NewReader(f)).Decode(w.index); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	for _, e := range w.index.Entries {
		if e.Stage != 0 {
			return &BusyError{What: "the conflict in " + e.Name + " is not resolved"}
		}
		w.byPath[e.Name] = e
	}
	return nil
}

// close gives the lock back, unless it has become the index. What it cannot
// remove, the next run reports as a lock.
func (w *worktree) close() {
	if w.lock != nil {
		w.lock.Close()
		os.Remove(w.lock.Name())
	}
	w.root.Close()
}

// checkStill is checkClean for a branch that others may move: where they have,
// that is what the caller has to know.
func (w *worktree) checkStill(ctx context.Context, dir string, head plumbing.Hash, changes []fileChange) error {
	err := w.checkClean(ctx, dir, head, changes)
	if at, headErr := w.head(); headErr != nil {
		return headErr
	} else if at != head {
		return errOvertaken
	}
	return err
}

// checkClean compares the commit head, the index and the files below dir.
// Files at the paths of changes must not be there untracked, even if ignored.
func (w *worktree) checkClean(ctx context.Context, dir string, head plumbing.Hash, changes []fileChange) error {
	committed := map[string]entry{}
	root, err := rootTree(w.store, head)
	if err != nil {
		return err
	}
	o := objects{store: w.store}
	tree, err := o.folder(root, dir)
	if err != nil {
		return err
	}
	err = o.walk(ctx, tree, dir, func(p string, e entry) error { committed[p] = e; return nil })
	if err != nil {
		return err
	}
	dirty := map[string]bool{}
	for p, e := range committed {
		at := w.byPath[p]
		dirty[p] = at == nil || at.Hash != e.hash || at.IntentToAdd || (at.Mode == filemode.Executable) != e.isExecutable()
	}
	for p, at := range w.byPath {
		if !below(p, dir) {
			continue
		}
		same, err := w.sameOnDisk(p, at)
		if err != nil {
			return err
		}
		_, known := committed[p]
		dirty[p] = dirty[p] || !known || !same
	}
	for _, c := range changes {
		if c.data != nil && w.byPath[c.path] == nil {
			way, err := w.inTheWay(c.path)
			if err != nil {
				return err
			}
			dirty[c.path] = dirty[c.path] || way
		}
	}
	if err := w.untracked(ctx, dir, dirty); err != nil {
		return err
	}
	maps.DeleteFunc(dirty, func(_ string, is bool) bool { return !is })
	if len(dirty) > 0 {
		return &DirtyError{Dir: dir, Files: slices.Sorted(maps.Keys(dirty))}
	}
	return nil
}

// inTheWay reports whether something that git does not track is where a file
// shall be; a folder is not, if the commit takes all of it away.
func (w *worktree) inTheWay(p string) (bool, error) {
	info, err := w.root.Lstat(filepath.FromSlash(p))
	if err != nil || !info.IsDir() {
		return err == nil, nil
	}
	tracked, strange := 0, 0
	err = fs.WalkDir(w.root.FS(), p, func(q string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("list worktree: %w", err)
		case w.byPath[q] != nil:
			tracked++
		case !d.IsDir():
			strange++
		}
		return nil
	})
	return strange > 0 || tracked == 0, err
}

func below(p, dir string) bool { return dir == "" || strings.HasPrefix(p, dir+"/") }

// sameOnDisk reports whether the file is as the index has it.
func (w *worktree) sameOnDisk(p string, at *index.Entry) (bool, error) {
	if at.SkipWorktree {
		return true, nil // left out by a sparse checkout
	}
	for _, d := range parents(p) {
		if info, err := w.root.Lstat(filepath.FromSlash(d)); err != nil || !info.IsDir() {
			return false, nil
		}
	}
	info, err := w.root.Lstat(filepath.FromSlash(p))
	if err != nil || !info.Mode().IsRegular() || info.Size() > 2*MaxFileSize {
		return false, nil
	}
	if w.modes && (info.Mode()&0o100 != 0) != (at.Mode == filemode.Executable) {
		return false, nil
	}
	data, err := w.root.ReadFile(filepath.FromSlash(p))
	if err != nil {
		return false, fmt.Errorf("read worktree file: %w", err)
	}
	if plumbing.ComputeHash(plumbing.BlobObject, data) == at.Hash {
		return true, nil
	}
	unix := strings.ReplaceAll(string(data), "\r\n", "\n")
	return w.crlf && plumbing.ComputeHash(plumbing.BlobObject, []byte(unix)) == at.Hash, nil
}

// publish moves files, index and branch. What is likely to fail, the writing,
// is done first; then the branch is locked, and only renames remain.
func (w *worktree) publish(ctx context.Context, p proposal) error {
	dir, err := cleanDir(p.change.Dir)
	if err != nil {
		return err
	}
	if err := w.checkStill(ctx, dir, p.old, p.files); err != nil {
		return err
	}
	stage := ".autopolicy-" + p.new.String()
	if err := errors.Join(w.root.RemoveAll(stage), w.root.Mkdir(stage, 0o777)); err != nil {
		return fmt.Errorf("stage files in worktree: %w", err)
	}
	defer w.root.RemoveAll(stage)
	for i, c := range p.files {
		if c.data == nil || w.skipped(c.path) {
			continue
		}
		perm := fs.FileMode(0o666)
		if (entry{mode: c.mode}).isExecutable() {
			perm = 0o777
		}
		if err := w.root.WriteFile(staged(stage, i), c.data, perm); err != nil {
			return fmt.Errorf("stage files in worktree: %w", err)
		}
	}
	// Files and index come before the branch: a git commit that starts in
	// between is then refused, for it finds the branch moved. The other way
	// round it would commit the old index on top of ours.
	var failed string
	var updateErr error
	if err := w.moveRef(ctx, p, func() { failed, updateErr = w.update(p, stage) }); err != nil {
		return err
	}
	if updateErr != nil {
		return &WorktreeError{Revision: revision(p.new), Path: failed, Err: updateErr}
	}
	return nil
}

func staged(stage string, i int) string { return filepath.Join(stage, fmt.Sprint(i)) }

func (w *worktree) skipped(p string) bool {
	at := w.byPath[p]
	return at != nil && at.SkipWorktree
}

// update brings files and index to the commit, and returns the path that it
// could not update. It goes on after an error, so that as much as possible is
// right.
func (w *worktree) update(p proposal, stage string) (failed string, err error) {
	note := func(name string, e error) {
		if e != nil && err == nil {
			failed, err = name, e
		}
	}
	for _, c := range p.files {
		if c.data == nil {
			note(c.path, w.deleteFile(c.path))
			delete(w.byPath, c.path)
		}
	}
	for i, c := range p.files {
		if c.data != nil {
			note(c.path, w.replaceFile(c, staged(stage, i)))
		}
	}
	w.index.Entries = slices.Collect(maps.Values(w.byPath))
	buf := bufio.NewWriter(w.lock)
	e := errors.Join(index.NewEncoder(buf).Encode(w.index), buf.Flush(), w.lock.Close())
	if e == nil {
		e = os.Rename(w.lock.Name(), filepath.Join(w.gitDir, "index"))
	}
	if e == nil {
		w.lock = nil
	}
	note("index", e)
	return failed, err
}

// deleteFile also removes the folders that it leaves empty, as git does.
func (w *worktree) deleteFile(p string) error {
	if err := w.root.Remove(filepath.FromSlash(p)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range slices.Backward(parents(p)) {
		if w.root.Remove(filepath.FromSlash(d)) != nil {
			break // it is not empty
		}
	}
	return nil
}

func (w *worktree) replaceFile(c fileChange, from string) error {
	mode := filemode.Regular
	if (entry{mode: c.mode}).isExecutable() {
		mode = filemode.Executable
	}
	e := &index.Entry{Name: c.path, Hash: c.hash, Mode: mode, Size: uint32(len(c.data)), SkipWorktree: w.skipped(c.path)}
	w.byPath[c.path] = e
	if e.SkipWorktree {
		return nil
	}
	name := filepath.FromSlash(c.path)
	if err := w.root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	if err := w.root.Rename(from, name); err != nil {
		return err
	}
	info, err := w.root.Lstat(name)
	if err != nil {
		return err
	}
	e.ModifiedAt = info.ModTime()
	fillStat(e, info)
	return nil
}
