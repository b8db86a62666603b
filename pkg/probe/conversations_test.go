//go:build linux

package probe

import (
	"encoding/binary"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// segment is what the programs say of a part of a TCP connection.
func segment(cookie uint64, direction bpf.FloorDirection, sequence uint32, flags bpf.FloorSegment) *bpf.FloorRecord {
	return &bpf.FloorRecord{Kind: uint8(bpf.FloorKindKIND_DNS), Protocol: 6, Port: 53, Cookie: cookie, Direction: uint8(direction), Sequence: sequence, Segment: uint8(flags)}
}

func framed(t *testing.T, message []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)
}

const out, in = bpf.FloorDirectionDIRECTION_EGRESS, bpf.FloorDirectionDIRECTION_INGRESS

func TestAConnectionOfWhichAPartIsMissingIsCounted(t *testing.T) {
	p := &Probe{}
	question, err := dnsQuestion(1, "www.test", "A")
	raw := framed(t, question, err)
	c := &p.conversations
	c.tell(Record{}, segment(1, out, 99, bpf.FloorSegmentSEGMENT_SYN), nil)
	// The first byte never comes: at some time the rest is given up.
	for i := range 100 {
		c.tell(Record{}, segment(1, out, uint32(101+2*i), 0), raw[1:2])
	}
	if n := c.broken.Load(); n != 1 {
		t.Errorf("%d connections are said to be incomplete, want 1", n)
	}
}

func TestAnswersOnAConnectionThatWereNotAskedForAreDropped(t *testing.T) {
	c := &conversations{}
	question, err := dnsQuestion(1, "www.test", "A")
	asked := framed(t, question, err)
	other, err := dnsQuestion(1, "evil.test", "A")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := dnsAnswer(other, false)
	wrong := framed(t, forged, err)
	answer, err := dnsAnswer(question, false)
	right := framed(t, answer, err)
	list := c.tell(Record{}, segment(1, out, 0, 0), asked)
	if len(list) != 1 || list[0].Fact.Name != "www.test" || list[0].Fact.Kind != behavior.DNS {
		t.Fatalf("told %+v", list)
	}
	if list := c.tell(Record{}, segment(1, in, 0, 0), wrong); len(list) > 0 || c.unasked.Load() != 1 {
		t.Errorf("told %+v of an answer that nobody asked for", list)
	}
	if list := c.tell(Record{}, segment(1, in, uint32(len(wrong)), 0), right); len(list) != 2 || len(list[0].Answers) != 2 {
		t.Errorf("told %+v", list)
	}
	if list := c.tell(Record{}, segment(2, in, 0, 0), right); len(list) > 0 {
		t.Errorf("told %+v of another connection's answer", list)
	}
}

// However many connections there are and whatever they send: what is kept is bounded.
func TestConversationsAreBounded(t *testing.T) {
	c := &conversations{}
	half := make([]byte, 8192)
	half[0], half[1] = 0xff, 0xff
	for i := range uint64(3000) {
		c.tell(Record{}, segment(i, in, 0, 0), half)
		if c.bytes > maxConversationBytes || len(c.byCookie) > maxConversations {
			t.Fatalf("%d bytes of %d connections", c.bytes, len(c.byCookie))
		}
	}
	if c.broken.Load() < 3000-maxConversations {
		t.Errorf("%d are said to be incomplete", c.broken.Load())
	}
	for i := range uint64(3000) {
		c.end(i)
	}
	if c.bytes != 0 || len(c.byCookie) != 0 {
		t.Errorf("%d bytes of %d connections are left", c.bytes, len(c.byCookie))
	}
}
