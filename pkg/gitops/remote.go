package gitops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// settleTimeout is how long a server may take to say whether it has a commit,
// after the connection that pushed it was lost.
const settleTimeout = 15 * time.Second

// remote is a clone of one branch in a temporary folder, and its server.
type remote struct {
	client   transport.Transport
	endpoint *transport.Endpoint // without user information
	auth     transport.AuthMethod
	url      string
	store    *filesystem.Storage
	dir      string
	branch   plumbing.ReferenceName
	at       plumbing.Hash // where branch is; zero: it has no commit
	tip      plumbing.Hash // what a commit is made on: at, or below review
	review   *review       // nil: commits go to branch
	progress io.Writer
	asked    bool // the credential helpers
}

func openRemote(ctx context.Context, ep *transport.Endpoint, o Options) (_ *Repository, err error) {
	m := &remote{endpoint: ep, progress: o.Progress}
	if m.auth, err = o.Auth.method(ep); err != nil {
		return nil, err
	}
	m.url, m.client = ep.String(), newClient(ep.Protocol)
	if o.Branch != "" {
		m.branch = plumbing.NewBranchReferenceName(o.Branch)
	}
	if m.dir, err = os.MkdirTemp("", "autopolicy-git-"); err != nil {
		return nil, fmt.Errorf("make temporary clone: %w", err)
	}
	defer func() {
		if err == nil {
			return
		}
		if e := m.close(); e != nil { // else err keeps its type
			err = errors.Join(err, e)
		}
	}()
	m.store = filesystem.NewStorage(osfs.New(m.dir), cache.NewObjectLRUDefault())
	if err = m.store.Init(); err != nil {
		return nil, fmt.Errorf("make temporary clone: %w", err)
	}
	if err = m.refresh(ctx); err != nil {
		return nil, err
	}
	return &Repository{store: m.store, backend: m, branch: m.branch, author: o.Author, signing: o.Signing, url: m.url}, nil
}

func (m *remote) head() (plumbing.Hash, error) { return m.tip, nil }

func (m *remote) configuration() ([]*config.Config, error) { return configuration(nil) }

func (m *remote) check(ctx context.Context, _ string, _ plumbing.Hash) error { return ctx.Err() }

func (m *remote) close() error { return os.RemoveAll(m.dir) }

// refresh fetches what the branch has and the clone lacks.
func (m *remote) refresh(ctx context.Context) error {
	err := m.refreshOnce(ctx)
	if m.askHelpers(ctx, &err) {
		err = m.refreshOnce(ctx)
	}
	return err
}

func (m *remote) refreshOnce(ctx context.Context) error {
	s, err := session(ctx, func() (transport.UploadPackSession, error) {
		return m.client.NewUploadPackSession(m.endpoint, m.auth)
	})
	if err != nil {
		return m.explain(ctx, err)
	}
	defer s.Close() // nothing is pending once the pack is read
	ar, err := s.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		ar, err = packp.NewAdvRefs(), nil
	}
	if err != nil {
		return m.explain(ctx, err)
	}
	at, err := m.find(ar)
	if err != nil {
		return err
	}
	var offered plumbing.Hash
	if m.review != nil {
		offered = ar.References[m.review.branch.String()]
	}
	var wants []plumbing.Hash
	for _, h := range []plumbing.Hash{at, offered} {
		if !h.IsZero() && m.store.HasEncodedObject(h) != nil {
			wants = append(wants, h)
		}
	}
	if len(wants) > 0 {
		if err := m.fetch(ctx, s, ar, wants); err != nil {
			return m.explain(ctx, err)
		}
	}
	if _, err := rootTree(m.store, at); err != nil {
		return err
	}
	if m.review != nil {
		return m.begin(at, offered)
	}
	m.at, m.tip = at, at
	return nil
}

// find returns where the branch is, and chooses the branch the first time.
func (m *remote) find(ar *packp.AdvRefs) (plumbing.Hash, error) {
	if ar.IsEmpty() {
		if m.branch == "" {
			m.branch = plumbing.NewBranchReferenceName(DefaultBranch)
		}
		return plumbing.ZeroHash, nil
	}
	if m.branch == "" {
		refs, err := ar.AllReferences()
		if err != nil {
			return plumbing.ZeroHash, &NotRepositoryError{URL: m.url, Reason: "its refs are malformed"}
		}
		head, err := refs.Reference(plumbing.HEAD)
		if err != nil || head.Type() != plumbing.SymbolicReference || !head.Target().IsBranch() {
			return plumbing.ZeroHash, &BranchError{Reason: "the remote's HEAD names no branch that exists"}
		}
		m.branch = head.Target()
	}
	h, ok := ar.References[m.branch.String()]
	if !ok {
		var known []string
		for name := range ar.References {
			if n := plumbing.ReferenceName(name); n.IsBranch() {
				known = append(known, n.Short())
			}
		}
		if len(known) > 0 { // else it becomes the first one
			return h, missingBranch(m.branch.Short(), known)
		}
	}
	return h, nil
}

func (m *remote) fetch(ctx context.Context, s transport.UploadPackSession, ar *packp.AdvRefs, wants []plumbing.Hash) (err error) {
	req := packp.NewUploadPackRequestFromCapabilities(ar.Capabilities)
	req.Wants = wants
	if !m.at.IsZero() {
		req.Haves = []plumbing.Hash{m.at}
	}
	words := &serverWords{out: m.progress}
	if m.progress == nil && ar.Capabilities.Supports(capability.NoProgress) {
		if err := req.Capabilities.Set(capability.NoProgress); err != nil {
			return err
		}
	}
	resp, err := s.UploadPack(ctx, req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Close()) }()
	var pack io.Reader = resp
	for _, k := range []struct {
		c capability.Capability
		t sideband.Type
	}{{capability.Sideband64k, sideband.Sideband64k}, {capability.Sideband, sideband.Sideband}} {
		if req.Capabilities.Supports(k.c) {
			d := sideband.NewDemuxer(k.t, resp)
			d.Progress = words
			pack = d
			break
		}
	}
	return packfile.UpdateObjectStorage(m.store, pack)
}

// publish pushes the objects and asks the server to move the branch from p.old
// to p.new, which it does or does not do.
func (m *remote) publish(ctx context.Context, p proposal) error {
	err := m.publishOnce(ctx, p)
	if m.askHelpers(ctx, &err) {
		err = m.publishOnce(ctx, p)
	}
	return err
}

func (m *remote) publishOnce(ctx context.Context, p proposal) error {
	s, err := session(ctx, func() (transport.ReceivePackSession, error) {
		return m.client.NewReceivePackSession(m.endpoint, m.auth)
	})
	if err != nil {
		return m.explain(ctx, err)
	}
	defer s.Close() // the report is read by then
	ar, err := s.AdvertisedReferencesContext(ctx)
	if err != nil {
		return m.explain(ctx, err)
	}
	to, old := m.target()
	if ar.References[to.String()] != old || ar.References[m.branch.String()] != m.at {
		return errOvertaken
	}
	words := &serverWords{out: m.progress}
	report, err := m.push(ctx, s, ar, p, words)
	if report != nil && report.UnpackStatus == "ok" && accepted(report, to) {
		m.arrived(p.new)
		return nil
	}
	if report == nil {
		return m.settle(ctx, p, err)
	}
	for _, c := range report.CommandStatuses {
		words.add(c.Status)
	}
	if report.UnpackStatus != "ok" {
		words.add("unpack " + report.UnpackStatus)
	}
	return m.settle(ctx, p, &RefusedError{Branch: to.Short(), Words: words.String()})
}

// target is the branch that commits go to, and where it is.
func (m *remote) target() (plumbing.ReferenceName, plumbing.Hash) {
	if m.review != nil {
		return m.review.branch, m.review.at
	}
	return m.branch, m.at
}

// arrived notes that the target branch now is at h.
func (m *remote) arrived(h plumbing.Hash) {
	m.tip = h
	if m.review != nil {
		m.review.at, m.review.Open = h, true
		return
	}
	m.at = h
}

func accepted(report *packp.ReportStatus, name plumbing.ReferenceName) bool {
	return slices.ContainsFunc(report.CommandStatuses, func(c *packp.CommandStatus) bool {
		return c.ReferenceName == name && c.Error() == nil
	})
}

// push returns the server's report, nil where it gave none.
func (m *remote) push(ctx context.Context, s transport.ReceivePackSession, ar *packp.AdvRefs, p proposal, words *serverWords) (*packp.ReportStatus, error) {
	req := packp.NewReferenceUpdateRequestFromCapabilities(ar.Capabilities)
	if ar.Capabilities.Supports(capability.Sideband64k) {
		if err := req.Capabilities.Set(capability.Sideband64k); err != nil {
			return nil, err
		}
	}
	req.Progress = words
	to, old := m.target()
	req.Commands = []*packp.Command{{Name: to, Old: old, New: p.new}}
	read, write := io.Pipe()
	req.Packfile = read
	encoded := make(chan error, 1)
	go func() {
		_, err := packfile.NewEncoder(write, m.store, false).Encode(p.objects, 0)
		encoded <- errors.Join(err, write.CloseWithError(err))
	}()
	report, err := s.ReceivePack(ctx, req)
	read.Close() // ends the encoder, should it still write
	if encodeErr := <-encoded; err == nil && report == nil {
		err = encodeErr
	}
	return report, err
}

// settle finds out what became of a push that did not end in the server's
// consent: cause is why. It asks even after ctx has ended.
func (m *remote) settle(ctx context.Context, p proposal, cause error) error {
	var refused *RefusedError
	if cause != nil && !errors.As(cause, &refused) {
		cause = m.explain(ctx, cause)
	}
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	_, before := m.target()
	if err := m.refresh(ask); err != nil {
		if refused != nil {
			return refused
		}
		return &UncertainError{Revision: revision(p.new), URL: m.url, Err: errors.Join(cause, err)}
	}
	_, now := m.target()
	if now == before {
		return m.absent(p, cause)
	}
	if !now.IsZero() {
		ok, err := isAncestor(m.store, p.new, now)
		if ok && now == p.new {
			m.arrived(now)
		}
		if err != nil || ok {
			return err // it has arrived, perhaps below a later commit
		}
	}
	return errOvertaken
}

// absent is the error for a commit that the server was asked for and does not
// have. Where only the connection was lost, the server may still be at work.
func (m *remote) absent(p proposal, cause error) error {
	var lost *NetworkError
	switch {
	case cause == nil:
		to, _ := m.target()
		return &RefusedError{Branch: to.Short(), Words: "the server gave no reason"}
	case errors.As(cause, &lost), errors.Is(cause, context.Canceled):
		return &UncertainError{Revision: revision(p.new), URL: m.url, Asked: true, Err: cause}
	}
	return cause
}

// session opens a connection, and stops waiting for it when ctx ends: go-git's
// SSH handshake knows no context.
func session[S io.Closer](ctx context.Context, open func() (S, error)) (S, error) {
	type result struct {
		s   S
		err error
	}
	done := make(chan result, 1)
	go func() {
		s, err := open()
		done <- result{s, err}
	}()
	select {
	case r := <-done:
		return r.s, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.s.Close()
			}
		}()
		var none S
		return none, ctx.Err()
	}
}
