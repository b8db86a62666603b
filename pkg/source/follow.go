package source

import (
	"context"
	"time"
)

// Watch says how long an observation lasts.
type Watch struct {
	Most time.Duration
	// Quiet, if not zero, ends it earlier: when nothing new came for so long while
	// the stream stood.
	Quiet time.Duration
}

// Progress is how an observation of a stream goes on.
type Progress struct {
	Left    time.Duration
	Silence time.Duration // since the last thing that was new, or since the stream stood again
	Events  uint64        // that were received
	Facts   int           // different ones
	Lost    uint64
	Broken  error // why the stream does not stand; nil when it does
}

// Ended tells how an observation ended.
type Ended struct {
	Took, Silence time.Duration
	Quiet         bool
}

// Stream is one connection to a relay that is followed.
type Stream interface {
	// Run receives until the context or the connection ends, and says why.
	Run(context.Context) error
	// Look is how it goes; only Events, Facts, Lost and Broken are asked for.
	Look() Progress
}

// Pauses before a connection that ended is made again.
const (
	leastPause = 500 * time.Millisecond
	mostPause  = 10 * time.Second
)

// Follow keeps a stream going until the time is up or nothing new came for long
// enough, and shows the progress every second. It returns the context's error when
// that ends first.
func Follow(ctx context.Context, w Watch, now func() time.Time, s Stream, show func(Progress)) (Ended, error) {
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		again(running, s)
	}()
	defer func() {
		stop()
		<-done
	}()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	begin := now()
	news, facts := begin, 0
	for {
		p, at := s.Look(), now()
		if p.Facts != facts || p.Broken != nil {
			news, facts = at, p.Facts
		}
		p.Silence = at.Sub(news)
		ended := Ended{Took: at.Sub(begin), Silence: p.Silence, Quiet: w.Quiet > 0 && p.Silence >= w.Quiet}
		if p.Left = w.Most - ended.Took; p.Left <= 0 || ended.Quiet {
			return ended, nil
		}
		show(p)
		select {
		case <-ctx.Done():
			return ended, ctx.Err()
		case <-ticker.C:
		}
	}
}

// again connects whenever a connection ended, at once after one that stood.
func again(ctx context.Context, s Stream) {
	pause := leastPause
	for ctx.Err() == nil {
		before := s.Look().Events
		// Why it ended stands in what Look gives, and in the coverage in the end.
		_ = s.Run(ctx)
		if pause = min(2*pause, mostPause); s.Look().Events > before {
			pause = leastPause
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}
