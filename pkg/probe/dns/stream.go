package dns

import "encoding/binary"

// What a stream keeps: the largest message, and segments that came too early.
const (
	maxMessage = 2 + 1<<16
	maxEarly   = 32
	// maxAhead is how far a segment may be ahead of what is missing: the largest
	// window would be more, but answers are small.
	maxAhead = 1 << 20
)

// Stream puts the messages of one direction of a TCP connection together. The
// zero value begins with the first segment that it is given. Not for concurrent
// use.
type Stream struct {
	begun  bool
	next   uint32 // the sequence number of the byte that is awaited
	buffer []byte
	early  map[uint32][]byte
	broken bool
}

// Begin says that the next byte has the sequence number next.
func (s *Stream) Begin(next uint32) {
	if !s.begun {
		s.begun, s.next = true, next
	}
}

// Add takes the bytes that begin at sequence number at and gives the messages that
// are whole now, without their lengths. Bytes that were there before are left out.
// False once the stream is beyond repair: then nothing more comes of it.
func (s *Stream) Add(at uint32, data []byte) (messages [][]byte, ok bool) {
	s.Begin(at)
	if s.broken {
		return nil, false
	}
	s.keep(at, data)
	for progress := true; progress && !s.broken; {
		progress = false
		for at, data := range s.early {
			if ahead := int32(at - s.next); ahead <= 0 {
				delete(s.early, at)
				if int(-ahead) < len(data) {
					s.buffer = append(s.buffer, data[-ahead:]...)
					s.next = at + uint32(len(data))
				}
				progress = true
			}
		}
		messages = append(messages, s.split()...)
	}
	return messages, !s.broken
}

// keep puts a segment with those that wait, unless they are too many.
func (s *Stream) keep(at uint32, data []byte) {
	ahead := int32(at - s.next)
	switch {
	case len(data) == 0 || ahead < 0 && int(-ahead) >= len(data):
		return // nothing new
	case ahead > maxAhead || len(data) > maxMessage || len(s.early) >= maxEarly && ahead > 0:
		s.broken, s.early, s.buffer = true, nil, nil
		return
	}
	if s.early == nil {
		s.early = map[uint32][]byte{}
	}
	if len(s.early[at]) < len(data) {
		s.early[at] = append([]byte(nil), data...)
	}
}

// split cuts whole messages from the front of the buffer.
func (s *Stream) split() (messages [][]byte) {
	for len(s.buffer) >= 2 {
		length := 2 + int(binary.BigEndian.Uint16(s.buffer))
		if len(s.buffer) < length {
			break
		}
		messages = append(messages, s.buffer[2:length:length])
		s.buffer = s.buffer[length:]
	}
	if len(s.buffer) == 0 {
		s.buffer = nil
	}
	return messages
}

// Size is how many bytes the stream holds.
func (s *Stream) Size() int {
	n := len(s.buffer)
	for _, data := range s.early {
		n += len(data)
	}
	return n
}
