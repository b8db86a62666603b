//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
)

// ErrClosed is returned by Run when the probe was closed meanwhile.
var ErrClosed = errors.New("probe is closed")

// Run hands every record to handle, in its own goroutine, until ctx is done; what
// was recorded until then is still handed over, and Run returns nil. handle must
// not block for long: while it does, the ring fills up, and what does not fit is
// lost until it happens again. Run may be called again later.
func (p *Probe) Run(ctx context.Context, handle func(Record)) error {
	stop := context.AfterFunc(ctx, func() {
		// Its only error is that the reader is closed, which Read reports too.
		_ = p.reader.Flush()
	})
	defer stop()
	var raw ringbuf.Record
	var end time.Time // of what is handed over; set when ctx is done
	for {
		err := p.reader.ReadInto(&raw)
		switch {
		case errors.Is(err, ringbuf.ErrFlushed):
			if ctx.Err() != nil {
				return nil
			}
			continue // of a former Run
		case errors.Is(err, ringbuf.ErrClosed):
			return ErrClosed
		case err != nil:
			return fmt.Errorf("read ring buffer: %w", err)
		}
		late := false
		for _, record := range p.records(raw.RawSample) {
			handle(record)
			late = record.Time.After(end)
		}
		if ctx.Err() != nil {
			if end.IsZero() {
				end = time.Now()
			} else if late {
				return nil // containers would keep the ring from becoming empty
			}
		}
	}
}

// records decodes what a program wrote. What cannot be is counted as lost; the next
// one may be sound. What only introduces an actor is no fact, and a packet may have
// none, or several.
func (p *Probe) records(raw []byte) []Record {
	r, header, err := decode(raw, wallTime)
	switch {
	case err != nil:
		p.malformed.Add(1)
		return nil
	case bpf.FloorKind(header.Kind) == bpf.FloorKindKIND_ACTOR:
		p.actors.add(header.Id, r)
		return nil
	case header.Actor != 0 && !p.actors.complete(header.Actor, &r):
		p.forgotten.Add(1)
		return nil
	case bpf.FloorKind(header.Kind) == bpf.FloorKindKIND_DNS:
		return p.conversations.tell(r, &header, raw[len(raw)-int(header.PayloadLen):])
	}
	p.resolver.resolve(&r)
	return []Record{r}
}

// wallTime turns boot time in nanoseconds into wall time, as the clocks stand now.
func wallTime(boot uint64) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Now()
	}
	return time.Now().Add(-time.Duration(now.Nano() - int64(boot))).UTC()
}
