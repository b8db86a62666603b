//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	steadyRate = 100000 // events a second
	steadyTime = 30 * time.Second
)

// measureSteady has 200 containers do what they did before, 100,000 times a
// second together, and takes the collector's processor time.
func (l *lab) measureSteady(ctx context.Context, r *result) (err error) {
	collector, err := l.collect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, collector.Stop()) }()
	small, err := l.startSmall(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range small {
			err = errors.Join(err, l.stop(c))
		}
	}()
	work := func(d time.Duration) (events float64, err error) {
		for _, c := range small {
			if err := c.send("known", steadyRate/len(small), int(d.Milliseconds())); err != nil {
				return 0, err
			}
		}
		for _, c := range small {
			made, err := c.answer()
			if err != nil {
				return 0, err
			}
			events += made[0]
		}
		return events, nil
	}
	if _, err := work(10 * time.Second); err != nil { // now all of it is known, and settled
		return err
	}
	l.say("measuring the steady state for %s", steadyTime)
	before, err := collector.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	if r.steadyEvents, err = work(steadyTime); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := collector.cpu()
	if err != nil {
		return err
	}
	r.steadyEvents /= took.Seconds()
	r.steadyCPU = (after - before).Seconds() / took.Seconds() * 100
	s, err := collector.Status(ctx)
	if err == nil && s.Containers < containers {
		err = fmt.Errorf("the collector observed %d containers", s.Containers)
	}
	return err
}
