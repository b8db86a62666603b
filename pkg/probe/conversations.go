//go:build linux

package probe

import (
	"sync/atomic"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe/dns"
)

// Answer is a record of the answer to a question, as Record.Answers has them.
type Answer = dns.Answer

// What is kept of TCP connections to DNS servers; the oldest go first.
const (
	maxConversations     = 512
	maxConversationBytes = 4 << 20
	maxAsked             = 64 // questions on one connection that wait for an answer
)

// conversations makes records of what was read of packets to and from DNS servers.
// Its methods are for one goroutine, but the counters may be read by others.
type conversations struct {
	byCookie map[uint64]*conversation
	order    []uint64 // the oldest first
	bytes    int

	unasked, malformed atomic.Uint64
	broken             atomic.Uint64 // connections of which a part was lost
}

// conversation is one TCP connection.
type conversation struct {
	out, in dns.Stream
	asked   map[uint16]dns.Question
}

// tell gives the records of a packet; r has everything but the question.
func (c *conversations) tell(r Record, h *bpf.FloorRecord, payload []byte) []Record {
	r.Fact.Kind, r.Fact.Protocol, r.Fact.Port = behavior.DNS, ProtocolName(int(h.Protocol)), h.Port
	r.Fact.Peer.Address = address(h.Address)
	if r.Fact.Protocol == "tcp" {
		return c.segment(r, h, payload)
	}
	m, err := dns.Parse(payload)
	if err != nil {
		c.malformed.Add(1)
		return nil
	}
	return answered(r, m)
}

// answered states what a message says: the question with its answers, and the
// names that those lead to as facts of their own, which nothing counts.
func answered(r Record, m dns.Message) []Record {
	r.Fact.Name, r.Fact.Type = m.Question.Name, m.Question.Type
	r.Answers = m.Answers
	list := []Record{r}
	for _, target := range m.Targets() {
		to := r
		to.ID, to.Answers, to.Fact.Target = 0, nil, target
		list = append(list, to)
	}
	return list
}

// segment adds a part of a TCP connection, and states the messages that are whole.
func (c *conversations) segment(r Record, h *bpf.FloorRecord, payload []byte) []Record {
	has := func(flag bpf.FloorSegment) bool { return h.Segment&uint8(flag) != 0 }
	talk := c.conversation(h.Cookie)
	out := bpf.FloorDirection(h.Direction) == bpf.FloorDirectionDIRECTION_EGRESS
	stream, at := &talk.in, h.Sequence
	if out {
		stream = &talk.out
	}
	if has(bpf.FloorSegmentSEGMENT_SYN) {
		at++
		stream.Begin(at)
	}
	before := stream.Size()
	messages, ok := stream.Add(at, payload)
	c.bytes += stream.Size() - before
	if !ok && before > 0 {
		c.broken.Add(1)
	}
	var list []Record
	for _, raw := range messages {
		m, err := dns.Parse(raw)
		switch {
		case err != nil || m.Response == out:
			c.malformed.Add(1)
			continue
		case out && len(talk.asked) < maxAsked:
			talk.asked[m.ID] = m.Question
		case !out && talk.asked[m.ID] != m.Question:
			c.unasked.Add(1)
			continue
		case !out:
			delete(talk.asked, m.ID)
		}
		list = append(list, answered(r, m)...)
	}
	if has(bpf.FloorSegmentSEGMENT_RST) || has(bpf.FloorSegmentSEGMENT_FIN) && !out {
		c.end(h.Cookie)
	}
	c.evict()
	return list
}

func (c *conversations) conversation(cookie uint64) *conversation {
	talk, ok := c.byCookie[cookie]
	if !ok {
		if c.byCookie == nil {
			c.byCookie = map[uint64]*conversation{}
		}
		talk = &conversation{asked: map[uint16]dns.Question{}}
		c.byCookie[cookie] = talk
		c.order = append(c.order, cookie)
	}
	return talk
}

// end forgets a connection; its place in the order stays until it is the oldest.
func (c *conversations) end(cookie uint64) {
	if talk, ok := c.byCookie[cookie]; ok {
		c.bytes -= talk.in.Size() + talk.out.Size()
		delete(c.byCookie, cookie)
	}
}

// evict keeps the bounds.
func (c *conversations) evict() {
	for len(c.order) > maxConversations || c.bytes > maxConversationBytes {
		oldest := c.order[0]
		c.order = c.order[1:]
		if talk, ok := c.byCookie[oldest]; ok && talk.in.Size()+talk.out.Size() > 0 {
			c.broken.Add(1)
		}
		c.end(oldest)
	}
}
