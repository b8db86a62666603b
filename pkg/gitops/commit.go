package gitops

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Change is one commit to be made to a folder.
type Change struct {
	Dir string // slash-separated, relative to the repository
	// Base is the revision that Files were made from, as Read returned it.
	Base Revision
	// Files are what differs: path relative to Dir, and new content; nil
	// deletes the file, an empty slice empties it. A new file gets mode 0644,
	// a changed one keeps its mode.
	Files   map[string][]byte
	Message string    // committed as it is
	When    time.Time // author and committer date
}

// Replay makes a change anew on the folder as somebody else has left it. Base
// of what it returns is set to at by the caller.
type Replay func(ctx context.Context, t Tree, at Revision) (Change, error)

// proposal is a commit that is written to the store, but is on no branch.
type proposal struct {
	old, new plumbing.Hash
	author   Signature
	change   Change
	objects  []plumbing.Hash // what new needs and old may not have
	files    []fileChange    // what really differs, sorted by path
}

// fileChange is a file that differs between two commits; path is relative to
// the repository.
type fileChange struct {
	path string
	mode string // of the entry, such as 100644
	hash plumbing.Hash
	data []byte // nil for a deleted file
}

// Commit makes one commit of c on the branch, pushes it where the repository
// is a remote, and returns it. If the branch is not at c.Base, or is moved
// while the commit is on its way, replay is called with the folder as it now
// is, five times at most, and then an OvertakenError is returned; a nil replay
// stands for none. A change that changes nothing is ErrNothingToCommit.
//
// After an error the branch does not have the commit, except for two types:
// WorktreeError (the commit is made, a file of the worktree was not updated)
// and UncertainError (the connection was lost and the server did not tell).
func (r *Repository) Commit(ctx context.Context, c Change, replay Replay) (Revision, error) {
	author, err := r.signature()
	if err != nil {
		return "", err
	}
	with, err := r.signer()
	if err != nil {
		return "", err
	}
	for replays := 0; ; {
		head, err := r.backend.head()
		if err != nil {
			return "", err
		}
		if c.Base != revision(head) {
			if replay == nil || replays == maxReplays {
				return "", &OvertakenError{Branch: r.Branch(), Replays: replays}
			}
			replays++
			if c, err = r.replay(ctx, c.Dir, head, replay); err != nil {
				return "", err
			}
		}
		p, err := r.propose(ctx, c, head, author, with)
		if err == nil {
			err = r.backend.publish(ctx, p)
		}
		if err == nil {
			return revision(p.new), nil
		}
		if !errors.Is(err, errOvertaken) {
			return "", err
		}
		if err := r.backend.refresh(ctx); err != nil {
			return "", err
		}
	}
}

func (r *Repository) replay(ctx context.Context, dir string, head plumbing.Hash, replay Replay) (Change, error) {
	t, err := r.readCommit(ctx, head, dir)
	if err != nil {
		return Change{}, err
	}
	c, err := replay(ctx, t, revision(head))
	c.Base = revision(head)
	return c, err
}

// propose writes the blobs, the changed trees and the commit of c on top of
// head. Everything else that head has stays as it is, bit by bit.
func (r *Repository) propose(ctx context.Context, c Change, head plumbing.Hash, author Signature, with signer) (proposal, error) {
	if err := c.validate(); err != nil {
		return proposal{}, err
	}
	dir, err := cleanDir(c.Dir)
	if err != nil {
		return proposal{}, err
	}
	if err := r.backend.check(ctx, dir, head); err != nil {
		return proposal{}, err
	}
	root, err := rootTree(r.store, head)
	if err != nil {
		return proposal{}, err
	}
	ed := editor{objects: objects{store: r.store, written: map[plumbing.Hash]bool{}}}
	files := make(map[string][]byte, len(c.Files))
	for name, data := range c.Files {
		files[join(dir, name)] = data
	}
	tree, err := ed.edit(root, "", files)
	if err != nil {
		return proposal{}, err
	}
	if len(ed.files) == 0 {
		return proposal{}, ErrNothingToCommit
	}
	if tree.IsZero() {
		if tree, err = ed.writeTree(nil); err != nil {
			return proposal{}, err
		}
	}
	if err := ed.verify(ctx, tree, dir); err != nil {
		return proposal{}, err
	}
	return r.seal(c, proposal{old: head, author: author, change: c, files: ed.files}, ed, tree, with)
}

// seal writes the commit object, signed where with is not nil.
func (r *Repository) seal(c Change, p proposal, ed editor, tree plumbing.Hash, with signer) (proposal, error) {
	sig := object.Signature{Name: p.author.Name, Email: p.author.Email, When: c.When}
	commit := object.Commit{Author: sig, Committer: sig, Message: r.messageOf(c, p.old), TreeHash: tree}
	if !p.old.IsZero() {
		commit.ParentHashes = []plumbing.Hash{p.old}
	}
	if err := sign(&commit, with); err != nil {
		return proposal{}, err
	}
	obj := r.store.NewEncodedObject()
	if err := commit.Encode(obj); err != nil {
		return proposal{}, fmt.Errorf("encode commit: %w", err)
	}
	var err error
	if p.new, err = r.store.SetEncodedObject(obj); err != nil {
		return proposal{}, storeError("write commit", obj.Hash(), err)
	}
	for h := range ed.written {
		p.objects = append(p.objects, h)
	}
	p.objects = append(p.objects, p.new)
	plumbing.HashesSort(p.objects)
	sort.Slice(p.files, func(i, j int) bool { return p.files[i].path < p.files[j].path })
	return p, nil
}

func (c Change) validate() error {
	switch {
	case strings.TrimSpace(c.Message) == "":
		return errors.New("commit: the message is empty")
	case !utf8.ValidString(c.Message) || strings.ContainsRune(c.Message, 0):
		return errors.New("commit: the message is not plain UTF-8 text")
	case c.When.Unix() <= 0:
		return errors.New("commit: the date is missing")
	}
	for name, data := range c.Files {
		if err := checkPath(name); err != nil {
			return err
		}
		if len(data) > MaxFileSize {
			return &UnsafeError{Path: name, Reason: fmt.Sprintf("is larger than %d bytes", MaxFileSize)}
		}
	}
	return nil
}

// editor changes files of a tree, and remembers which really changed.
type editor struct {
	objects
	files []fileChange
}

// edit returns the tree that has files changed; the zero hash if nothing is
// left in it. prefix is where the tree is, keys of files are relative to it.
func (ed *editor) edit(tree plumbing.Hash, prefix string, files map[string][]byte) (plumbing.Hash, error) {
	list, err := ed.tree(tree)
	if err != nil {
		return tree, err
	}
	entries := make(map[string]entry, len(list))
	for _, e := range list {
		entries[e.name] = e
	}
	here, below := map[string][]byte{}, map[string]map[string][]byte{}
	for name, data := range files {
		first, rest, nested := strings.Cut(name, "/")
		switch {
		case !nested:
			here[name] = data
		case below[first] == nil:
			below[first] = map[string][]byte{rest: data}
		default:
			below[first][rest] = data
		}
	}
	// Deletions first, so that a file can make way for a folder; then the
	// folders, so that an emptied one can make way for a file.
	for name, data := range here {
		if data == nil {
			if err := ed.remove(entries, prefix, name); err != nil {
				return tree, err
			}
		}
	}
	for name, sub := range below {
		if err := ed.descend(entries, prefix, name, sub); err != nil {
			return tree, err
		}
	}
	for name, data := range here {
		if data != nil {
			if err := ed.put(entries, prefix, name, data); err != nil {
				return tree, err
			}
		}
	}
	return ed.rewrite(tree, list, entries)
}

// rewrite stores entries, unless they are what tree already has.
func (ed *editor) rewrite(tree plumbing.Hash, before []entry, entries map[string]entry) (plumbing.Hash, error) {
	same := len(before) == len(entries)
	for _, e := range before {
		same = same && entries[e.name] == e
	}
	if same {
		return tree, nil
	}
	if len(entries) == 0 {
		return plumbing.ZeroHash, nil
	}
	list := make([]entry, 0, len(entries))
	for _, e := range entries {
		list = append(list, e)
	}
	return ed.writeTree(list)
}

func (ed *editor) remove(entries map[string]entry, prefix, name string) error {
	e, ok := entries[name]
	if !ok || e.isDir() {
		return nil // there is no such file
	}
	if !e.isFile() {
		return &UnsafeError{Path: join(prefix, name), Reason: "is " + e.kind()}
	}
	delete(entries, name)
	ed.files = append(ed.files, fileChange{path: join(prefix, name), mode: e.mode, hash: e.hash})
	return nil
}

func (ed *editor) descend(entries map[string]entry, prefix, name string, sub map[string][]byte) error {
	e, ok := entries[name]
	if ok && !e.isDir() {
		return &UnsafeError{Path: join(prefix, name), Reason: "is " + e.kind() + ", not a folder"}
	}
	h, err := ed.edit(e.hash, join(prefix, name), sub)
	switch {
	case err != nil:
		return err
	case h.IsZero():
		delete(entries, name)
	case !ok:
		entries[name] = entry{mode: "40000", name: name, hash: h}
	default:
		entries[name] = entry{mode: e.mode, name: name, hash: h}
	}
	return nil
}

func (ed *editor) put(entries map[string]entry, prefix, name string, data []byte) error {
	e, ok := entries[name]
	if ok && !e.isFile() {
		return &UnsafeError{Path: join(prefix, name), Reason: "is " + e.kind() + ", not a file"}
	}
	h, err := ed.write(plumbing.BlobObject, data)
	if err != nil || h == e.hash && ok {
		return err
	}
	if !ok {
		e.mode = "100644"
	}
	entries[name] = entry{mode: e.mode, name: name, hash: h}
	ed.files = append(ed.files, fileChange{path: join(prefix, name), mode: e.mode, hash: h, data: data})
	return nil
}

// verify refuses a result that Read would refuse.
func (ed *editor) verify(ctx context.Context, root plumbing.Hash, dir string) error {
	tree, err := ed.folder(root, dir)
	if err != nil {
		return err
	}
	return ed.measure(ctx, tree, dir, func(string, entry) error { return nil })
}
