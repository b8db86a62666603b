package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// Writer packs what a Pull sends into batches that keep the limits. Facts are
// added in the order of their revisions.
type Writer struct {
	epoch string
	send  func(*wirepb.Batch) error
	batch *wirepb.Batch
	index map[string]*wirepb.Container // of the batch, by container ID
	size  int
}

// NewWriter starts a series of batches, each of which is handed to send.
func NewWriter(epoch string, send func(*wirepb.Batch) error) *Writer {
	w := &Writer{epoch: epoch, send: send}
	w.reset(0)
	return w
}

func (w *Writer) reset(revision uint64) {
	w.batch = &wirepb.Batch{Epoch: w.epoch, Revision: revision}
	w.index, w.size = map[string]*wirepb.Container{}, 64
}

// Add puts one fact of c into the current batch; c.Facts is not looked at. All
// facts up to the revision must have been added by then.
func (w *Writer) Add(c Container, o Observation, revision uint64) error {
	m, err := w.container(c)
	if err != nil {
		return err
	}
	fact := EncodeFact(o)
	m.Facts = append(m.Facts, fact)
	n := proto.Size(fact)
	w.size += n + protowire.SizeVarint(uint64(n)) + 4
	w.batch.Revision = revision
	if w.size >= batchBytes {
		return w.flush()
	}
	return nil
}

// Touch sends a container without facts, so that its times and losses are known.
func (w *Writer) Touch(c Container) error {
	_, err := w.container(c)
	return err
}

func (w *Writer) container(c Container) (*wirepb.Container, error) {
	if m, ok := w.index[c.ID]; ok {
		return m, nil
	}
	if w.size >= batchBytes || len(w.batch.Containers) >= MaxContainers {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	c.Facts = nil
	m := EncodeContainer(c)
	w.index[c.ID] = m
	w.batch.Containers = append(w.batch.Containers, m)
	w.size += proto.Size(m) + 8
	return m, nil
}

func (w *Writer) flush() error {
	revision := w.batch.Revision
	err := w.send(w.batch)
	w.reset(revision)
	return err
}

// Flush sends what was added since the last batch, if anything was.
func (w *Writer) Flush() error {
	if len(w.batch.Containers) == 0 {
		return nil
	}
	return w.flush()
}

// Close sends the last batch, which says that everything up to the revision has
// been sent and how the node is doing.
func (w *Writer) Close(revision uint64, s Status) error {
	if w.size >= batchBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.batch.Last, w.batch.Status, w.batch.Revision = true, EncodeStatus(s), revision
	return w.flush()
}
