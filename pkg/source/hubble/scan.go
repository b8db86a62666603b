package hubble

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// ErrMessage is returned for bytes that are no message of Hubble's.
var ErrMessage = errors.New("malformed hubble message")

// protocols of a flow's layer 4, by the number of the field that holds it.
const (
	protoNone = iota
	protoTCP
	protoUDP
	protoICMP
	protoICMPv6
	protoSCTP
	protoVRRP
	protoIGMP
)

// response is a GetFlowsResponse, as far as it matters here. Its slices point into
// the message that it was read from.
type response struct {
	flow, status, lost []byte // at most one of them is not nil
	node               []byte
	sec                int64
}

// flow is a Flow, as far as it matters here. Its slices point into the message
// that it was read from.
//
// Numbers of enumerations are as they stand on the wire, known or not.
type flow struct {
	sec                                      int64
	verdict, dropReason, kind, direction     uint32
	event                                    uint32 // of Cilium's monitor: 4 trace, 5 policy verdict
	replyKnown, reply                        bool
	node, source, destination                []byte // the latter are Endpoint messages
	sourceIP, destinationIP                  []byte
	sourceName, destinationName              []byte // the first of each
	protocol                                 uint8
	sourcePort, destinationPort              uint32
	syn, ack                                 bool
	l7                                       []byte // Layer7 message
	deniedBy                                 []byte // Policy message, the first
	oldReason                                uint32
	hasSource, hasDestination, hasL7, hasOne bool
}

// malformed wraps what protowire found.
func malformed(n int) error { return fmt.Errorf("%w: %w", ErrMessage, protowire.ParseError(n)) }

// fields calls one for each field of a message: with its bytes if it has any, else
// with its number. A field of another wire type than these is left out.
func fields(b []byte, one func(num protowire.Number, text []byte, v uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed(n)
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return malformed(n)
			}
			b = b[n:]
			if err := one(num, nil, v); err != nil {
				return err
			}
		case protowire.BytesType:
			text, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return malformed(n)
			}
			b = b[n:]
			if text == nil {
				text = []byte{}
			}
			if err := one(num, text, 0); err != nil {
				return err
			}
		default:
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return malformed(n)
			}
			b = b[n:]
		}
	}
	return nil
}

// join is what two encodings of one message field come to: protobuf merges them,
// and the merge of two messages is the message of both encodings.
func join(old, more []byte) []byte {
	if old == nil {
		return more
	}
	return slices.Concat(old, more)
}

// scanResponse reads a GetFlowsResponse into r.
func scanResponse(b []byte, r *response) error {
	*r = response{}
	return fields(b, func(num protowire.Number, text []byte, _ uint64) error {
		if text == nil {
			return nil
		}
		switch num {
		case 1:
			r.flow, r.status, r.lost = join(r.flow, text), nil, nil
		case 2:
			r.flow, r.status, r.lost = nil, join(r.status, text), nil
		case 3:
			r.flow, r.status, r.lost = nil, nil, join(r.lost, text)
		case 1000:
			r.node = text
		case 1001:
			return scanTime(text, &r.sec)
		}
		return nil
	})
}

// scanTime reads the seconds of a Timestamp.
func scanTime(b []byte, sec *int64) error {
	return fields(b, func(num protowire.Number, text []byte, v uint64) error {
		if num == 1 && text == nil {
			*sec = int64(v)
		}
		return nil
	})
}

// scanFlow reads a Flow into f.
func scanFlow(b []byte, f *flow) error {
	*f = flow{}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed(n)
		}
		b = b[n:]
		var err error
		switch typ {
		case protowire.VarintType:
			var v uint64
			if v, n = protowire.ConsumeVarint(b); n >= 0 {
				f.number(num, uint32(v))
			}
		case protowire.BytesType:
			var text []byte
			if text, n = protowire.ConsumeBytes(b); n >= 0 {
				err = f.text(num, text)
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return malformed(n)
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if f.dropReason == 0 {
		f.dropReason = f.oldReason
	}
	return nil
}

func (f *flow) number(num protowire.Number, v uint32) {
	switch num {
	case 2:
		f.verdict = v
	case 3:
		f.oldReason = v
	case 10:
		f.kind = v
	case 22:
		f.direction = v
	case 25:
		f.dropReason = v
	}
}

func (f *flow) text(num protowire.Number, text []byte) error {
	switch num {
	case 1:
		return scanTime(text, &f.sec)
	case 5:
		return f.scanIP(text)
	case 6:
		return f.scanLayer4(text)
	case 8:
		f.source, f.hasSource = again(f.hasSource, f.source, text), true
	case 9:
		f.destination, f.hasDestination = again(f.hasDestination, f.destination, text), true
	case 11:
		f.node = text
	case 13:
		if f.sourceName == nil {
			f.sourceName = text
		}
	case 14:
		if f.destinationName == nil {
			f.destinationName = text
		}
	case 15:
		f.l7, f.hasL7 = again(f.hasL7, f.l7, text), true
	case 19:
		return fields(text, func(num protowire.Number, text []byte, v uint64) error {
			if num == 1 && text == nil {
				f.event = uint32(v)
			}
			return nil
		})
	case 26:
		f.replyKnown = true
		return fields(text, func(num protowire.Number, text []byte, v uint64) error {
			if num == 1 && text == nil {
				f.reply = v != 0
			}
			return nil
		})
	case 21004, 21005:
		if !f.hasOne {
			f.deniedBy, f.hasOne = text, true
		}
	}
	return nil
}

func again(before bool, old, more []byte) []byte {
	if !before {
		return more
	}
	return slices.Concat(old, more)
}

func (f *flow) scanIP(b []byte) error {
	return fields(b, func(num protowire.Number, text []byte, _ uint64) error {
		switch {
		case text == nil:
		case num == 1:
			f.sourceIP = text
		case num == 2:
			f.destinationIP = text
		}
		return nil
	})
}

// scanLayer4 reads the protocol that is set last; of one that is set twice, what
// both say.
func (f *flow) scanLayer4(b []byte) error {
	return fields(b, func(num protowire.Number, text []byte, _ uint64) error {
		if text == nil || num > protoIGMP {
			return nil
		}
		if f.protocol != uint8(num) {
			f.protocol, f.sourcePort, f.destinationPort, f.syn, f.ack = uint8(num), 0, 0, false, false
		}
		if num != protoTCP && num != protoUDP && num != protoSCTP {
			return fields(text, func(protowire.Number, []byte, uint64) error { return nil })
		}
		return fields(text, func(field protowire.Number, text []byte, v uint64) error {
			switch {
			case field == 1 && text == nil:
				f.sourcePort = uint32(v)
			case field == 2 && text == nil:
				f.destinationPort = uint32(v)
			case field == 3 && text != nil && num == protoTCP:
				return f.scanFlags(text)
			}
			return nil
		})
	})
}

func (f *flow) scanFlags(b []byte) error {
	return fields(b, func(num protowire.Number, text []byte, v uint64) error {
		switch {
		case num == 2 && text == nil:
			f.syn = v != 0
		case num == 5 && text == nil:
			f.ack = v != 0
		}
		return nil
	})
}

// endpoint is an Endpoint: one side of a flow.
type endpoint struct {
	identity       uint32
	namespace, pod string
	labels         []string
	kind, name     string // of the first workload
}

// maxLabels bounds what is kept of an endpoint: the API server takes no pod whose
// labels are more.
const maxLabels = 256

func scanEndpoint(b []byte) (endpoint, error) {
	var e endpoint
	workloads := 0
	err := fields(b, func(num protowire.Number, text []byte, v uint64) error {
		switch {
		case num == 2 && text == nil:
			e.identity = uint32(v)
		case num == 3 && text != nil:
			e.namespace = string(text)
		case num == 4 && text != nil && len(e.labels) < maxLabels:
			e.labels = append(e.labels, string(text))
		case num == 5 && text != nil:
			e.pod = string(text)
		case num == 6 && text != nil:
			if workloads++; workloads > 1 {
				return nil
			}
			return fields(text, func(num protowire.Number, text []byte, _ uint64) error {
				switch {
				case num == 1 && text != nil:
					e.name = string(text)
				case num == 2 && text != nil:
					e.kind = string(text)
				}
				return nil
			})
		}
		return nil
	})
	return e, err
}

// request is what a Layer7 message says of a request; empty for an answer. Its
// slices point into the message.
type request struct {
	kind         uint32 // 1 request, 2 response, 3 sample
	record       protowire.Number
	name, detail []byte // DNS: question and type; HTTP: method and URL; Kafka: topic and API
	grpc         bool
}

// Records of a Layer7 message.
const (
	recordDNS   = 100
	recordHTTP  = 101
	recordKafka = 102
)

func scanRequest(b []byte, r *request) error {
	*r = request{}
	return fields(b, func(num protowire.Number, text []byte, v uint64) error {
		switch {
		case num == 1 && text == nil:
			r.kind = uint32(v)
		case text == nil || num < recordDNS || num > recordKafka:
		default:
			if r.record != num {
				r.record, r.name, r.detail, r.grpc = num, nil, nil, false
			}
			return r.scanRecord(num, text)
		}
		return nil
	})
}

func (r *request) scanRecord(record protowire.Number, b []byte) error {
	name, detail := protowire.Number(1), protowire.Number(7)
	switch record {
	case recordHTTP:
		name, detail = 2, 3
	case recordKafka:
		name, detail = 5, 3
	}
	return fields(b, func(num protowire.Number, text []byte, _ uint64) error {
		switch {
		case text == nil:
		case num == name:
			r.name = text
		case num == detail && (record != recordDNS || r.detail == nil):
			r.detail = text
		case record == recordHTTP && num == 5:
			return r.scanHeader(text)
		}
		return nil
	})
}

// scanHeader looks for the one header that tells gRPC from other requests.
func (r *request) scanHeader(b []byte) error {
	var key, value []byte
	err := fields(b, func(num protowire.Number, text []byte, _ uint64) error {
		switch {
		case num == 1 && text != nil:
			key = text
		case num == 2 && text != nil:
			value = text
		}
		return nil
	})
	const grpc = "application/grpc"
	r.grpc = r.grpc || equalFold(key, "content-type") && len(value) >= len(grpc) && equalFold(value[:len(grpc)], grpc)
	return err
}

// equalFold compares ASCII text in lower case with bytes in any.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// lost is a LostEvent.
type lost struct {
	source, events uint64
	first, last    int64
}

func scanLost(b []byte) (lost, error) {
	var l lost
	err := fields(b, func(num protowire.Number, text []byte, v uint64) error {
		switch {
		case num == 1 && text == nil:
			l.source = uint64(uint32(v))
		case num == 2 && text == nil:
			l.events = v
		case num == 4 && text != nil:
			return scanTime(text, &l.first)
		case num == 5 && text != nil:
			return scanTime(text, &l.last)
		}
		return nil
	})
	return l, err
}

// status is a NodeStatusEvent.
type status struct {
	state   uint32
	nodes   []string
	message string
}

// maxNodes is more than any cluster has nodes.
const maxNodes = 16384

func scanStatus(b []byte) (status, error) {
	var s status
	err := fields(b, func(num protowire.Number, text []byte, v uint64) error {
		switch {
		case num == 1 && text == nil:
			s.state = uint32(v)
		case num == 2 && text != nil && len(s.nodes) < maxNodes:
			s.nodes = append(s.nodes, string(text))
		case num == 3 && text != nil:
			s.message = string(text)
		}
		return nil
	})
	return s, err
}
