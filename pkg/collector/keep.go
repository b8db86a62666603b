//go:build linux

package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unique"

	"google.golang.org/protobuf/proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// When what was lost is looked at, and what is new is written. Counts alone are written less often: they are at
// least what they say.
const (
	keepEvery       = 3 * time.Second
	keepCountsEvery = 5 * time.Minute
)

// restartReason is the loss of a container that ran while its collector did not.
const restartReason = "collector restarted"

// revisionGap is added to the revision of a profile that was read back: more than
// can have been told to a puller since it was written.
const revisionGap = 1 << 40

// keeper writes the profile to a file.
type keeper struct {
	path string // empty for none
	file *os.File
	size int64 // of the file
	full int64 // its size after all was written to it last
	news uint64
	any  uint64
	mark uint64    // of what containers were like
	at   time.Time // when counts were written last
}

// minRewrite is how big a file must be before it is written anew.
const minRewrite = 8 << 20

// saveOften looks at what was lost and writes what changed until the context ends.
// What goes wrong is told as a problem, and then all is written anew.
func (c *Collector) saveOften(ctx context.Context) {
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for {
		c.problem("keep profile", c.save(false))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// save writes what changed, counts included when counts is set or it is time.
func (c *Collector) save(counts bool) error {
	// First: what was lost before the hole of a restart must not fall into it.
	c.problem("read losses", c.takeLosses())
	k := &c.keeper
	if k.path == "" {
		return nil
	}
	var err error
	if k.file == nil || k.size > max(minRewrite, 3*k.full) {
		err = c.rewrite()
	} else {
		err = c.append(k.file, counts || c.now().Sub(k.at) >= keepCountsEvery)
	}
	if err != nil {
		k.close()
		return fmt.Errorf("write %s: %w", k.path, err)
	}
	return nil
}

func (k *keeper) close() {
	if k.file != nil {
		// What it could tell, the write before it has told.
		_ = k.file.Close()
		k.file = nil
	}
}

// rewrite writes everything into a new file, which then takes the old one's place.
func (c *Collector) rewrite() error {
	k := &c.keeper
	k.close()
	file, err := os.OpenFile(k.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	k.size, k.news, k.any = 0, 0, 0
	err = writeJSON(k.count(file), headerFrame, header{Format: journalFormat, Epoch: c.options.Epoch, Node: c.options.Node})
	if err == nil {
		err = c.append(file, true)
	}
	if err == nil {
		err = os.Rename(k.path+".new", k.path)
	}
	if err != nil {
		return errors.Join(err, file.Close(), os.Remove(k.path+".new"))
	}
	k.file, k.full = file, k.size
	return nil
}

// count counts what is written, and refuses what is too much.
func (k *keeper) count(w io.Writer) io.Writer { return &countedWriter{w, k} }

type countedWriter struct {
	io.Writer
	k *keeper
}

func (w *countedWriter) Write(b []byte) (int, error) {
	if w.k.size+int64(len(b)) > maxJournal {
		return 0, fmt.Errorf("more than %d bytes", maxJournal)
	}
	n, err := w.Writer.Write(b)
	w.k.size += int64(n)
	return n, err
}

// append adds what changed since the last call, and then how things stand.
func (c *Collector) append(file *os.File, counts bool) error {
	k := &c.keeper
	out := k.count(file)
	since := k.news
	if counts {
		since = k.any
	}
	s, list, all := c.standing(since, !counts)
	w := wire.NewWriter(c.options.Epoch, func(b *wirepb.Batch) error {
		payload, err := proto.Marshal(b)
		if err != nil {
			return err
		}
		return writeFrame(out, batchFrame, payload)
	})
	mark := s.mark(all)
	if len(list) > 0 || counts || mark != k.mark {
		if err := c.write(w, list, all); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if err := writeJSON(out, stateFrame, s); err != nil {
			return err
		}
	} else if err := writeJSON(out, timeFrame, struct {
		At      time.Time `json:"at"`
		Waiting uint64    `json:"waiting"`
	}{s.At, s.Waiting}); err != nil {
		return err
	}
	if k.news, k.mark = s.Revision, mark; counts {
		k.any, k.at = s.Revision, c.now()
	}
	return nil
}

// mark is a number that is another one when containers have changed in more than
// their facts: all that it adds up only grows, but for those that run.
func (s state) mark(all map[string]wire.Container) uint64 {
	n := s.Unattributed<<32 + uint64(len(s.Running))
	for _, lost := range s.Lost {
		n += lost << 16
	}
	for _, k := range all {
		n += 1 << 16
		for _, lost := range k.Lost {
			n += lost << 16
		}
		for _, flag := range []bool{k.Start, k.Ready, k.Steady, k.Terminated, len(k.Mounts) > 0} {
			if flag {
				n += 1 << 16
			}
		}
	}
	return n
}

// standing is how things stand, and what changed since a revision.
func (c *Collector) standing(since uint64, newsOnly bool) (state, []change, map[string]wire.Container) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := state{
		At: now.UTC(), Revision: c.store.revision, Waiting: c.waiting(), Unattributed: c.unattributed,
		Lost: map[string]uint64{}, LostAt: map[string]behavior.Span{},
	}
	for reason, l := range c.lost {
		s.Lost[reason], s.LostAt[reason] = l.count, l.span
	}
	all := map[string]wire.Container{}
	for id, k := range c.store.containers {
		all[id] = k.wire(now)
		if k.to.IsZero() {
			s.Running = append(s.Running, id)
		}
	}
	slices.Sort(s.Running)
	return s, c.store.changes(since, func(*container) bool { return true }, newsOnly), all
}

// restore takes over what an earlier run of the collector in the same pod kept,
// and its epoch. It is called once, before Run. A file that is not ours is an
// error, and changes nothing.
func (c *Collector) restore() error {
	file, err := os.Open(c.keeper.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read kept profile: %w", err)
	}
	defer file.Close()
	read := newStore(c.options.Limits)
	j, err := readJournal(file, c.options.Node, func(b wire.Batch) {
		for _, w := range b.Containers {
			read.restore(w)
		}
	})
	if err != nil {
		return fmt.Errorf("read kept profile %s: %w", filepath.Base(c.keeper.path), err)
	}
	if j.state.Revision > math.MaxUint64/2 {
		return fmt.Errorf("read kept profile: %w: revision", errJournal)
	}
	read.revision = max(read.revision, j.state.Revision) + revisionGap
	for _, k := range read.containers {
		k.revisions = revisions{read.revision, read.revision}
		for _, e := range k.entries {
			e.revisions = k.revisions
		}
		if _, running := slices.BinarySearch(j.state.Running, k.info.id); running {
			k.lose(restartReason, 1, j.state.At, c.attached)
			k.to, k.terminated, k.restored = time.Time{}, false, true
		}
	}
	read.recent = nil
	c.store, c.options.Epoch, c.unattributed = read, j.header.Epoch, j.state.Unattributed
	c.hole = behavior.Span{First: j.state.At, Last: c.attached}
	for reason, n := range j.state.Lost {
		c.lost[reason] = loss{n, j.state.LostAt[reason]}
	}
	if n := j.state.Waiting; n > 0 {
		c.lose("records whose container was not known when the collector restarted", n, c.hole.First, c.hole.Last)
	}
	return nil
}

// restore takes in a container as it was written, and its facts. Later writings
// win over earlier ones.
func (s *store) restore(w wire.Container) {
	k := s.containers[w.ID]
	if k == nil {
		if len(s.containers) >= maxPods {
			return
		}
		k = &container{info: containerInfo{id: w.ID}, entries: map[factKey]*entry{}}
		s.containers[w.ID] = k
	}
	// All of them are names of the API, which needs no escapes.
	k.info.namespace, k.info.pod, k.info.uid, k.info.name, k.info.image = w.Namespace, w.Pod, w.UID, w.Name, w.Image
	k.from, k.to, k.start, k.ready, k.steady, k.terminated, k.restarts = w.From, w.To, w.Start, w.Ready, w.Steady, w.Terminated, w.Restarts
	k.lost, k.lostAt, k.mounts.found, k.held = w.Lost, w.LostAt, w.Mounts, w.Held
	if k.lost == nil {
		k.lost = map[string]uint64{}
	}
	if k.lostAt == nil {
		k.lostAt = map[string]behavior.Span{}
	}
	for _, o := range w.Facts {
		key := unique.Make(o.Fact)
		if k.entries[key] == nil && s.room(k) != "" {
			continue // it was never kept, or the limits are others now
		}
		s.add(k, sighting{fact: o.Fact, at: o.First, snapshot: o.Snapshot})
		e := k.entries[key]
		e.count, e.first, e.last, e.parents, e.snapshot = o.Count, o.First, o.Last, o.Parents, o.Snapshot
	}
}

// bury ends the containers of an earlier run that are not there any more. The
// caller holds the lock.
func (c *Collector) bury(now time.Time) {
	if synced, _ := c.pods.state(); !synced || c.hole.Last.IsZero() || now.Sub(c.attached) < 2*scanEvery {
		return
	}
	there := map[*container]bool{}
	for _, n := range c.spaces {
		there[n.container], there[c.store.containers[n.place.container]] = true, true
	}
	for _, k := range c.store.containers {
		if k.restored && k.to.IsZero() && !there[k] {
			if info, ok := c.pods.container(k.info.id); ok {
				k.info = info
			}
			k.to = c.hole.Last
			if f := k.info.finished; !f.IsZero() && f.Before(k.to) {
				k.to = f
			}
		}
	}
}
