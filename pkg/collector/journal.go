//go:build linux

package collector

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// A journal is how a collector keeps its profile: frames, each with its length and
// checksum, that are only ever added. What a killed writer left torn at the end
// falls away with the frame that it is in. The first frame says whose it is; each
// stateFrame says how things stood when what is before it had been written.
const (
	journalFormat = 1
	frameHead     = 4 + 4 + 1 // length, checksum, kind
	maxFrame      = wire.MaxMessage
	// maxJournal bounds the file; 400,000 facts of 150 bytes are less.
	maxJournal = 128 << 20
)

// Kinds of frames.
const (
	headerFrame byte = 'H'
	batchFrame  byte = 'B' // containers and facts, as on the wire
	stateFrame  byte = 'S'
	timeFrame   byte = 'T' // as a stateFrame, with only the time in it
)

// errJournal is what is wrong with a file that is no journal, or one with a torn
// or changed end.
var errJournal = errors.New("malformed journal")

// header is the first frame.
type header struct {
	Format int    `json:"format"`
	Epoch  string `json:"epoch"`
	Node   string `json:"node"`
}

// state is how things stand beside the containers and their facts.
type state struct {
	At       time.Time `json:"at"`
	Revision uint64    `json:"revision"`
	// Waiting counts records whose container is not known yet: they are not kept.
	Waiting      uint64                   `json:"waiting,omitempty"`
	Unattributed uint64                   `json:"unattributed,omitempty"`
	Lost         map[string]uint64        `json:"lost,omitempty"`
	LostAt       map[string]behavior.Span `json:"lostAt,omitempty"`
	Running      []string                 `json:"running,omitempty"` // container IDs
}

// writeFrame adds one frame.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	if len(payload) > maxFrame {
		return fmt.Errorf("write frame of %d bytes: more than %d", len(payload), maxFrame)
	}
	head := make([]byte, frameHead, frameHead+len(payload))
	binary.BigEndian.PutUint32(head, uint32(len(payload)))
	head[8] = kind
	binary.BigEndian.PutUint32(head[4:], checksum(kind, payload))
	_, err := w.Write(append(head, payload...))
	return err
}

func writeJSON(w io.Writer, kind byte, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFrame(w, kind, payload)
}

func checksum(kind byte, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, []byte{kind}), table, payload)
}

// readFrame reads one frame; io.EOF at the end between two.
func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	head := make([]byte, frameHead)
	if _, err := io.ReadFull(r, head); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: torn", errJournal)
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head)
	if n > maxFrame {
		return 0, nil, fmt.Errorf("%w: frame of %d bytes", errJournal, n)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("%w: torn", errJournal)
	}
	if checksum(head[8], payload) != binary.BigEndian.Uint32(head[4:]) {
		return 0, nil, fmt.Errorf("%w: wrong checksum", errJournal)
	}
	return head[8], payload, nil
}

// journal is what reading one gave.
type journal struct {
	header header
	// state is the last one. What was written after it counts too, but from its
	// time on nobody knows what is missing.
	state state
	// torn says why the rest was not read; nil when the end was reached.
	torn error
}

// readJournal reads frames until the end or the first that is not as it should be,
// and hands every batch to take. It is an error when the file is not one that this
// program has written for this node.
func readJournal(r io.Reader, node string, take func(wire.Batch)) (journal, error) {
	var j journal
	in := bufio.NewReaderSize(io.LimitReader(r, maxJournal), 1<<20)
	kind, payload, err := readFrame(in)
	if err != nil {
		return j, fmt.Errorf("read header: %w", err)
	}
	if kind != headerFrame || json.Unmarshal(payload, &j.header) != nil {
		return j, fmt.Errorf("read header: %w: no header", errJournal)
	}
	switch h := j.header; {
	case h.Format != journalFormat:
		return j, fmt.Errorf("%w: format %d, want %d", errJournal, h.Format, journalFormat)
	case h.Node != node:
		return j, fmt.Errorf("%w: of node %s", errJournal, behavior.Escape(h.Node))
	case h.Epoch == "" || len(h.Epoch) > 256 || !behavior.IsEscaped(h.Epoch):
		return j, fmt.Errorf("%w: epoch", errJournal)
	}
	for {
		kind, payload, err := readFrame(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = j.frame(kind, payload, take)
		}
		if err != nil {
			j.torn = err
			break
		}
	}
	if j.state.At.IsZero() {
		return j, errors.Join(fmt.Errorf("%w: no state", errJournal), j.torn)
	}
	return j, nil
}

// frame takes in one frame after the header.
func (j *journal) frame(kind byte, payload []byte, take func(wire.Batch)) error {
	switch kind {
	case batchFrame:
		var m wirepb.Batch
		if err := proto.Unmarshal(payload, &m); err != nil {
			return fmt.Errorf("%w: %w", errJournal, err)
		}
		batch, err := wire.DecodeBatch(&m)
		if err != nil {
			return err
		}
		take(batch)
		return nil
	case stateFrame, timeFrame:
		s := state{}
		if kind == timeFrame {
			s = j.state
		}
		if err := json.Unmarshal(payload, &s); err != nil {
			return fmt.Errorf("%w: %w", errJournal, err)
		}
		if err := s.validate(); err != nil {
			return err
		}
		j.state = s
		return nil
	}
	return fmt.Errorf("%w: frame of kind %q", errJournal, kind)
}

func (s state) validate() error {
	if s.At.IsZero() || len(s.Lost) > wire.MaxReasons || len(s.LostAt) > wire.MaxReasons || len(s.Running) > maxPods {
		return fmt.Errorf("%w: state", errJournal)
	}
	for reason := range s.Lost {
		if !behavior.IsEscaped(reason) {
			return fmt.Errorf("%w: reason that is not escaped", errJournal)
		}
	}
	for reason := range s.LostAt {
		if _, ok := s.Lost[reason]; !ok {
			return fmt.Errorf("%w: moment of no loss", errJournal)
		}
	}
	return nil
}
