package gitops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// entry is one line of a tree object. mode is kept as it is written, because
// an entry that is not ours must not change, not even from 100664 to 100644.
type entry struct {
	mode, name string
	hash       plumbing.Hash
}

func (e entry) isDir() bool { return e.mode == "40000" || e.mode == "040000" }

// isFile reports a regular file, executable or not.
func (e entry) isFile() bool { return len(e.mode) == 6 && strings.HasPrefix(e.mode, "100") }

func (e entry) isExecutable() bool { return e.isFile() && (e.mode[3]-'0')&1 == 1 }

func (e entry) kind() string {
	switch {
	case e.isDir():
		return "a folder"
	case e.isFile():
		return "a file"
	case e.mode == "120000":
		return "a symbolic link"
	case e.mode == "160000":
		return "a submodule"
	}
	return "of unknown kind"
}

// sortKey gives git's order of entries: folders as if they ended in a slash.
func (e entry) sortKey() string {
	if e.isDir() {
		return e.name + "/"
	}
	return e.name
}

// objects reads and writes trees and blobs of a store, and remembers in
// written what it stored.
type objects struct {
	store   *filesystem.Storage
	written map[plumbing.Hash]bool
}

// tree returns the entries of a tree object; the zero hash is an empty tree.
func (o objects) tree(h plumbing.Hash) ([]entry, error) {
	if h.IsZero() {
		return nil, nil
	}
	data, err := o.read(plumbing.TreeObject, h, maxTreeSize)
	if err != nil {
		return nil, err
	}
	var out []entry
	seen := map[string]bool{}
	for len(data) > 0 {
		space, nul := bytes.IndexByte(data, ' '), bytes.IndexByte(data, 0)
		if space < 0 || nul < space+2 || len(data) < nul+1+20 {
			return nil, fmt.Errorf("read tree %s: malformed", h)
		}
		e := entry{mode: string(data[:space]), name: string(data[space+1 : nul])}
		copy(e.hash[:], data[nul+1:])
		if n := len(out); seen[e.name] || n > 0 && out[n-1].sortKey() >= e.sortKey() {
			return nil, fmt.Errorf("read tree %s: entries are not sorted or not unique", h)
		}
		seen[e.name] = true
		out, data = append(out, e), data[nul+1+20:]
	}
	return out, nil
}

// read returns an object's bytes, and refuses before it unpacks more than
// limit bytes.
func (o objects) read(kind plumbing.ObjectType, h plumbing.Hash, limit int64) ([]byte, error) {
	size, err := o.store.EncodedObjectSize(h)
	if err != nil {
		return nil, storeError("read "+kind.String(), h, err)
	}
	if size > limit {
		return nil, &UnsafeError{Path: h.String(), Reason: fmt.Sprintf("is larger than %d bytes", limit)}
	}
	obj, err := o.store.EncodedObject(kind, h)
	if err != nil {
		return nil, storeError("read "+kind.String(), h, err)
	}
	rc, err := obj.Reader()
	if err != nil {
		return nil, storeError("read "+kind.String(), h, err)
	}
	data, err := io.ReadAll(io.LimitReader(rc, limit))
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, storeError("read "+kind.String(), h, err)
	}
	return data, nil
}

// write stores an object unless it is there.
func (o objects) write(kind plumbing.ObjectType, data []byte) (plumbing.Hash, error) {
	h := plumbing.ComputeHash(kind, data)
	o.written[h] = true
	if o.store.HasEncodedObject(h) == nil {
		return h, nil
	}
	obj := o.store.NewEncodedObject()
	obj.SetType(kind)
	w, err := obj.Writer()
	if err != nil {
		return h, storeError("write "+kind.String(), h, err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		return h, storeError("write "+kind.String(), h, err)
	}
	if _, err := o.store.SetEncodedObject(obj); err != nil {
		return h, storeError("write "+kind.String(), h, err)
	}
	return h, nil
}

func (o objects) writeTree(entries []entry) (plumbing.Hash, error) {
	sort.Slice(entries, func(i, j int) bool { return entries[i].sortKey() < entries[j].sortKey() })
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%s %s\x00%s", e.mode, e.name, e.hash[:])
	}
	return o.write(plumbing.TreeObject, b.Bytes())
}

// folder returns the tree of dir below root: zero if it does not exist, an
// UnsafeError if something else than folders is on the way.
func (o objects) folder(root plumbing.Hash, dir string) (plumbing.Hash, error) {
	if dir == "" {
		return root, nil
	}
	at := root
	for i, name := range strings.Split(dir, "/") {
		entries, err := o.tree(at)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		at = plumbing.ZeroHash
		for _, e := range entries {
			if e.name != name {
				continue
			}
			if !e.isDir() {
				p := strings.Join(strings.Split(dir, "/")[:i+1], "/")
				return plumbing.ZeroHash, &UnsafeError{Path: p, Reason: "is " + e.kind() + ", not a folder"}
			}
			at = e.hash
		}
		if at.IsZero() {
			return at, nil
		}
	}
	return at, nil
}

// walk calls fn for each file of a tree, with its path below prefix, and
// refuses what is not a regular file in a folder, or is too much.
func (o objects) walk(ctx context.Context, tree plumbing.Hash, prefix string, fn func(p string, e entry) error) error {
	files, folders := 0, 0
	var visit func(plumbing.Hash, string) error
	visit = func(h plumbing.Hash, prefix string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := o.tree(h)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if reason := unsafeName(e.name); reason != "" {
				return &UnsafeError{Path: join(prefix, e.name), Reason: reason}
			}
			p := join(prefix, e.name)
			if err := checkPath(p); err != nil {
				return err
			}
			switch {
			case e.isDir():
				if folders++; folders > MaxFiles {
					return &UnsafeError{Path: p, Reason: fmt.Sprintf("is one of more than %d folders", MaxFiles)}
				}
				err = visit(e.hash, p)
			case e.isFile():
				if files++; files > MaxFiles {
					return &UnsafeError{Path: p, Reason: fmt.Sprintf("is one of more than %d files", MaxFiles)}
				}
				err = fn(p, e)
			default:
				err = &UnsafeError{Path: p, Reason: "is " + e.kind()}
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return visit(tree, prefix)
}

// measure walks the folder like walk, and also holds it to the size limits.
func (o objects) measure(ctx context.Context, tree plumbing.Hash, dir string, fn func(p string, e entry) error) error {
	var total int64
	return o.walk(ctx, tree, dir, func(p string, e entry) error {
		size, err := o.store.EncodedObjectSize(e.hash)
		if err != nil {
			return storeError("read file "+escape(p), e.hash, err)
		}
		total += size
		switch {
		case size > MaxFileSize:
			return &UnsafeError{Path: p, Reason: fmt.Sprintf("is larger than %d bytes", MaxFileSize)}
		case total > MaxTotalSize:
			return &UnsafeError{Path: p, Reason: fmt.Sprintf("takes the folder over %d bytes", MaxTotalSize)}
		}
		return fn(p, e)
	})
}

func (r *Repository) readCommit(ctx context.Context, commit plumbing.Hash, dir string) (Tree, error) {
	dir, err := cleanDir(dir)
	if err != nil {
		return nil, err
	}
	out, o := Tree{}, objects{store: r.store}
	root, err := rootTree(r.store, commit)
	if err != nil {
		return nil, err
	}
	tree, err := o.folder(root, dir)
	if err != nil {
		return nil, err
	}
	err = o.measure(ctx, tree, dir, func(p string, e entry) error {
		data, err := o.read(plumbing.BlobObject, e.hash, MaxFileSize)
		if dir != "" {
			p = strings.TrimPrefix(p, dir+"/")
		}
		out[p] = data
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// folderID identifies the content of dir. A file or a link of that name
// counts as an absent folder: history is compared, not used.
func (r *Repository) folderID(root plumbing.Hash, dir string) (plumbing.Hash, error) {
	h, err := objects{store: r.store}.folder(root, dir)
	var unsafe *UnsafeError
	if errors.As(err, &unsafe) {
		return plumbing.ZeroHash, nil
	}
	return h, err
}

// rootTree returns the tree of a commit; zero for the zero commit.
func rootTree(store *filesystem.Storage, commit plumbing.Hash) (plumbing.Hash, error) {
	if commit.IsZero() {
		return plumbing.ZeroHash, nil
	}
	c, err := object.GetCommit(store, commit)
	if err != nil {
		return plumbing.ZeroHash, storeError("read commit", commit, err)
	}
	return c.TreeHash, nil
}

// storeError names the object that could not be read or written.
func storeError(action string, h plumbing.Hash, err error) error {
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		err = ErrNoRevision
	}
	return fmt.Errorf("%s %s: %w", action, h, err)
}
