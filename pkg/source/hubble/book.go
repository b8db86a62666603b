package hubble

import (
	"google.golang.org/protobuf/encoding/protowire"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Numbers of Hubble's enumerations, as far as they decide something here.
const (
	verdictForwarded, verdictDropped, verdictError, verdictAudit    = 1, 2, 3, 4
	verdictRedirected, verdictTraced, verdictTranslated             = 5, 6, 7
	kindL34, kindL7, kindSock                                       = 1, 2, 3
	directionIngress, directionEgress                               = 1, 2
	reasonPolicy, reasonPolicyDeny, reasonAuth                      = 133, 181, 189
	eventPolicyVerdict                                              = 5
	nodeConnected, nodeUnavailable, nodeGone, nodeError             = 1, 2, 3, 4
	requestAsked, requestAnswered                                   = 1, 2
	identityHost, identityWorld, identityRemoteNode, identityAPI    = 1, 2, 6, 7
	identityHealth, identityInit, identityUnmanaged, identityWorld4 = 4, 5, 3, 9
	identityWorld6                                                  = 10
)

// What is kept at most. A key is about 150 bytes with its count; an endpoint is its
// message, some 400 bytes.
const (
	maxKeys      = 1 << 18
	maxEndpoints = 1 << 16
	maxTexts     = 1 << 18
	// maxRequests bounds the different requests that one pod's traffic may take, so
	// that a client that makes up paths leaves room for everybody else's.
	maxRequests = 1 << 14
	maxURL      = 4096 // bytes of a path; a longer one is counted as lost
)

// Reasons under which something is counted as lost, after the node's name.
const (
	lostKeys     = "more different flows than are kept"
	lostRequests = "more different requests than are kept"
	lostUnknown  = "flows of a kind that this version does not know"
	lostBroken   = "malformed flows"
	lostRequest  = "requests that could not be read"
)

// Reasons for which a flow makes no fact, and loses none.
const (
	passAnswer    = "answers to requests"
	passDirection = "flows that do not tell who began them"
	passDropped   = "packets dropped for another reason than a policy"
	passTraced    = "packets on their way, without a verdict"
	passOther     = "flows of other namespaces"
)

// class is what became of a flow.
type class uint8

const (
	passed class = iota
	audited
	denied
)

// key is everything of a flow that makes it another one. Numbers are indexes of
// what the book has noted.
type key struct {
	self, peer, addr, name, request, policy uint32
	port                                    uint16
	protocol                                uint8
	ingress                                 bool
	class                                   class
}

// tally is how often and when; the times are seconds.
type tally struct {
	count       uint64
	first, last int64
}

// side is an endpoint that was noted.
type side struct {
	endpoint
	requests int   // different ones that its traffic took
	node     *node // where it was seen as the pod that a flow is about; else nil
}

// when is from when to when, in seconds; zero for not at all.
type when struct{ first, last int64 }

func (w *when) at(sec int64) {
	if w.first == 0 || sec < w.first {
		w.first = sec
	}
	w.last = max(w.last, sec)
}

// node is what is known of a node that Hubble runs on.
type node struct {
	when
	name      string
	connected bool   // says the relay, or a flow
	missing   string // in words, why flows of it are missing, escaped
}

// Book keeps what flows said, each distinct thing once. What it takes does not
// depend on how many flows there are. It is for one goroutine.
type Book struct {
	namespace string

	sideOf  map[string]uint32
	sides   []side
	textOf  map[string]uint32
	texts   []string
	tallies map[key]*tally
	nodes   map[string]*node
	nodeAs  map[string]*node            // by its name as the messages have it
	lost    map[string]map[string]*loss // by node ("" for any) and reason
	passed  map[string]uint64
	flows   uint64
	kinds   map[behavior.Kind]bool // that were seen in the namespace

	// from and to are when a stream was followed, in seconds; zero for flows that
	// somebody wrote down, whose own times are all that is known.
	from, to int64
	again    int64  // flows up to this second may come again, and count for nothing
	gap      string // what is missing of every pod, in words, escaped

	r       response
	f       flow
	q       request
	scratch []byte
}

// loss is how much was lost, and when.
type loss struct {
	when
	count uint64
}

// NewBook makes an empty book for the pods of one namespace.
func NewBook(namespace string) *Book {
	return &Book{
		namespace: namespace, sideOf: map[string]uint32{}, textOf: map[string]uint32{"": 0}, texts: []string{""},
		tallies: map[key]*tally{}, nodes: map[string]*node{}, nodeAs: map[string]*node{}, lost: map[string]map[string]*loss{}, passed: map[string]uint64{},
		kinds: map[behavior.Kind]bool{},
	}
}

// Flows is how many flows there were, and Distinct how many different ones.
func (b *Book) Flows() uint64 { return b.flows }

// Distinct is how many different things the flows said.
func (b *Book) Distinct() int { return len(b.tallies) }

// Lost is how much is known to be lost.
func (b *Book) Lost() uint64 {
	var n uint64
	for _, reasons := range b.lost {
		for _, l := range reasons {
			n += l.count
		}
	}
	return n
}

func (b *Book) lose(node, reason string, n uint64, first, last int64) {
	reasons := b.lost[node]
	if reasons == nil {
		if len(b.lost) >= maxNodes {
			node = ""
		}
		if reasons = b.lost[node]; reasons == nil {
			reasons = map[string]*loss{}
			b.lost[node] = reasons
		}
	}
	l := reasons[reason]
	if l == nil {
		l = &loss{}
		reasons[reason] = l
	}
	l.count += n
	for _, sec := range []int64{first, last} {
		if sec != 0 {
			l.at(sec)
		}
	}
}

// Add takes one GetFlowsResponse as Hubble sent it. The message is not kept. It is
// ErrMessage, and counted as lost, when it cannot be read.
func (b *Book) Add(message []byte) error {
	err := scanResponse(message, &b.r)
	if err == nil {
		switch {
		case b.r.flow != nil:
			err = b.flow(b.r.flow)
		case b.r.lost != nil:
			err = b.lostEvent()
		case b.r.status != nil:
			err = b.nodeStatus()
		}
	}
	if err != nil {
		b.lose(nodeName(b.r.node), lostBroken, 1, b.r.sec, b.r.sec)
	}
	return err
}

// nodeName is a node's name without its cluster's, escaped.
func nodeName(text []byte) string {
	s := string(text)
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		s = s[i+1:]
	}
	return behavior.Escape(s)
}

// nodeOf notes a node, unless there are too many.
func (b *Book) nodeOf(name string) *node {
	n := b.nodes[name]
	if n == nil {
		n = &node{name: name}
		if len(b.nodes) < maxNodes {
			b.nodes[name] = n
		}
	}
	return n
}

// nodeAt is the node of a flow.
func (b *Book) nodeAt(text []byte) *node {
	if n := b.nodeAs[string(text)]; n != nil {
		return n
	}
	n := b.nodeOf(nodeName(text))
	if len(b.nodeAs) < maxNodes {
		b.nodeAs[string(text)] = n
	}
	return n
}

func (b *Book) lostEvent() error {
	l, err := scanLost(b.r.lost)
	if err != nil {
		return err
	}
	reasons := []string{"", "Hubble's kernel ring was full", "Hubble's queue was full", "Hubble's ring was overwritten before it was read"}
	reason := "Hubble lost events"
	if l.source > 0 && l.source < uint64(len(reasons)) {
		reason = reasons[l.source]
	}
	if l.first == 0 {
		l.first, l.last = b.r.sec, b.r.sec
	}
	b.lose(nodeName(b.r.node), reason, l.events, l.first, l.last)
	return nil
}

func (b *Book) nodeStatus() error {
	s, err := scanStatus(b.r.status)
	if err != nil {
		return err
	}
	for _, name := range s.nodes {
		n := b.nodeOf(nodeName([]byte(name)))
		var text string
		switch s.state {
		case nodeConnected:
			n.connected = true
			if b.r.sec != 0 {
				n.at(b.r.sec)
			}
			continue
		case nodeUnavailable:
			text = "Hubble was not available"
		case nodeGone:
			text = "it left the cluster"
		case nodeError:
			text = "Hubble reported an error"
		default:
			text = "Hubble reported a state that this version does not know"
		}
		if s.message != "" {
			text += ": " + behavior.Escape(s.message[:min(len(s.message), 512)])
		}
		n.missing = text
	}
	return nil
}

// flow takes one flow.
func (b *Book) flow(message []byte) error {
	f := &b.f
	if err := scanFlow(message, f); err != nil {
		return err
	}
	b.flows++
	nodeText := f.node
	if len(nodeText) == 0 {
		nodeText = b.r.node
	}
	n := b.nodeAt(nodeText)
	class, why := f.class()
	if why != "" {
		b.passed[why]++
		return nil
	}
	if class == unknown {
		b.lose(n.name, lostUnknown, 1, f.sec, f.sec)
		return nil
	}
	ingress, reply, why := f.begun()
	if why != "" {
		b.passed[why]++
		return nil
	}
	return b.note(f, n, class, ingress, reply)
}

// unknown is a class that no key has.
const unknown class = 255

// class says what became of a flow, or why it is passed over.
func (f *flow) class() (class, string) {
	switch f.kind {
	case kindL34, kindL7:
	case kindSock:
		return 0, passTraced
	default:
		return unknown, ""
	}
	switch f.verdict {
	case verdictForwarded, verdictRedirected:
		return passed, ""
	case verdictAudit:
		return audited, ""
	case verdictDropped:
		if f.kind == kindL7 || f.dropReason == reasonPolicy || f.dropReason == reasonPolicyDeny || f.dropReason == reasonAuth {
			return denied, ""
		}
		return 0, passDropped
	case verdictError:
		return 0, passDropped
	case verdictTraced, verdictTranslated:
		return 0, passTraced
	}
	return unknown, ""
}

// begun tells whether the connection came in to the pod that the flow is about, and
// whether this packet is of the answer, or why neither can be told.
func (f *flow) begun() (ingress, reply bool, why string) {
	switch {
	case f.replyKnown:
		reply = f.reply
	case f.protocol == protoTCP && f.syn:
		reply = f.ack
	case f.verdict == verdictDropped || f.verdict == verdictAudit:
		// A policy decides by the first packet only.
	default:
		return false, false, passDirection
	}
	if f.direction != directionIngress && f.direction != directionEgress {
		return false, false, passDirection
	}
	if reply && f.kind == kindL7 {
		return false, false, passAnswer
	}
	return f.direction == directionIngress, reply, ""
}

// note counts a flow whose beginning is known.
func (b *Book) note(f *flow, n *node, class class, ingress, reply bool) error {
	from, to := f.source, f.destination
	addr, name, port := f.destinationIP, f.destinationName, f.destinationPort
	if ingress != reply {
		addr, name = f.sourceIP, f.sourceName
	}
	if reply {
		from, to, port = to, from, f.sourcePort
	}
	self, peer := from, to
	if ingress {
		self, peer = to, from
	}
	selfID, ok, err := b.side(self)
	if err != nil {
		return err
	}
	if !ok {
		b.lose(n.name, lostKeys, 1, f.sec, f.sec)
		return nil
	}
	if own := &b.sides[selfID]; own.namespace != b.namespace || own.pod == "" {
		b.passed[passOther]++
		return nil
	}
	k := key{self: selfID, port: uint16(port), protocol: f.protocol, ingress: ingress, class: class}
	if port > 65535 || f.protocol == protoNone {
		b.lose(n.name, lostUnknown, 1, f.sec, f.sec)
		return nil
	}
	if k.peer, ok, err = b.side(peer); err != nil {
		return err
	}
	for _, t := range []struct {
		to   *uint32
		text []byte
	}{{&k.addr, addr}, {&k.name, name}} {
		if b.sides[k.peer].pod != "" || !ok {
			continue // a pod is told by its name
		}
		*t.to, ok = b.text(t.text)
	}
	if ok && f.kind == kindL7 {
		var why string
		if k.request, why, err = b.request(f, selfID); err != nil || why == passAnswer {
			b.passed[passAnswer]++
			return err
		} else if why != "" {
			b.lose(n.name, why, 1, f.sec, f.sec)
			return nil
		}
	}
	if class == denied || class == audited {
		if k.policy, err = b.policy(f); err != nil {
			return err
		}
	}
	b.count(k, f, n, ok)
	return nil
}

func (b *Book) count(k key, f *flow, n *node, ok bool) {
	t := b.tallies[k]
	if t == nil {
		if !ok || len(b.tallies) >= maxKeys {
			b.lose(n.name, lostKeys, 1, f.sec, f.sec)
			return
		}
		t = &tally{first: f.sec, last: f.sec}
		b.tallies[k] = t
		if k.request == 0 {
			b.kinds[behavior.Network] = true
		}
	}
	t.first, t.last = min(t.first, f.sec), max(t.last, f.sec)
	// A connection is counted by its first packet, which a policy's verdict tells of
	// once more.
	switch {
	case f.sec <= b.again:
	case f.kind == kindL7 || f.protocol != protoTCP || f.syn && !f.ack && (f.event != eventPolicyVerdict || k.class != passed):
		t.count++
	}
	n.connected = true
	n.at(f.sec)
	if own := &b.sides[k.self]; own.node == nil || n.name < own.node.name {
		own.node = n
	}
}

// side gives an endpoint's number.
func (b *Book) side(raw []byte) (uint32, bool, error) {
	if id, ok := b.sideOf[string(raw)]; ok {
		return id, true, nil
	}
	if len(b.sides) >= maxEndpoints {
		return 0, false, nil
	}
	e, err := scanEndpoint(raw)
	if err != nil {
		return 0, false, err
	}
	id := uint32(len(b.sides))
	b.sides = append(b.sides, side{endpoint: e})
	b.sideOf[string(raw)] = id
	return id, true, nil
}

// text gives a text's number; 0 is the empty one.
func (b *Book) text(raw []byte) (uint32, bool) {
	if id, ok := b.textOf[string(raw)]; ok {
		return id, true
	}
	if len(b.texts) >= maxTexts {
		return 0, false
	}
	id := uint32(len(b.texts))
	s := string(raw)
	b.texts = append(b.texts, s)
	b.textOf[s] = id
	return id, true
}

// policy gives the number of the text that names who denied a flow.
func (b *Book) policy(f *flow) (uint32, error) {
	if !f.hasOne {
		return 0, nil
	}
	var name, namespace string
	err := fields(f.deniedBy, func(num protowire.Number, text []byte, _ uint64) error {
		switch {
		case num == 1 && text != nil:
			name = string(text)
		case num == 2 && text != nil:
			namespace = string(text)
		}
		return nil
	})
	if namespace != "" {
		name = namespace + "/" + name
	}
	id, _ := b.text([]byte(name))
	return id, err
}
