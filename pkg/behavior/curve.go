package behavior

import (
	"math"
	"time"
)

// Curve is how learning went: how many facts were new in each of equally long
// spans of time, from the first moment of an observation to the last.
type Curve struct {
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	Step int       `json:"stepSeconds,omitempty"` // length of a span
	New  []int     `json:"new,omitempty"`         // facts first seen in it
	// PerMinute is how many new facts a minute there were in the end: in the last
	// RateSpan, or in the second half of an observation that was shorter than two
	// of it, since the first is what had been done before.
	PerMinute float64 `json:"perMinute"`
	// Quiet is how many seconds before To the last new fact was seen.
	Quiet int `json:"quietSeconds"`
}

// RateSpan is the time in which new facts are counted to say how many come.
const RateSpan = 10 * time.Minute

// CurveOf makes the curve of the facts that the containers made themselves, in at
// most so many spans. A fact that several profiles hold counts in each of them.
// Nothing that was observed has an empty curve. It says when facts were first
// seen and not why: that somebody began to observe again shows as well.
func CurveOf(most int, profiles ...Profile) Curve {
	var c Curve
	for _, p := range profiles {
		for _, pod := range p.Coverage.Pods {
			c.From, c.To = earlier(c.From, pod.From), later(c.To, pod.To)
		}
	}
	if c.From.IsZero() || most <= 0 || c.To.Before(c.From) {
		return Curve{}
	}
	span := c.To.Sub(c.From)
	step := stepFor(span, most)
	c.Step, c.New = int(step/time.Second), make([]int, min(most, int(span/step)+1))
	last, recent, window := c.From, 0, max(time.Second, min(RateSpan, span/2))
	for _, p := range profiles {
		for f, e := range p.Facts.All() {
			if !f.Own() {
				continue
			}
			c.New[min(max(0, int(e.First.Sub(c.From)/step)), len(c.New)-1)]++
			if e.First.After(last) && !e.First.After(c.To) {
				last = e.First
			}
			if e.First.After(c.From) && c.To.Sub(e.First) < window {
				recent++
			}
		}
	}
	c.PerMinute = math.Round(10*float64(recent)/window.Minutes()) / 10
	c.Quiet = int(c.To.Sub(last) / time.Second)
	return c
}

// stepFor is the shortest round length of which at most so many spans cover all.
func stepFor(span time.Duration, most int) time.Duration {
	steps := []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}
	for _, step := range steps {
		if span < step*time.Duration(most) {
			return step
		}
	}
	days := int(span.Hours()/24)/most + 1
	return time.Duration(24*days) * time.Hour
}
