//go:build linux

package main

import (
	"context"
	"errors"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// left counts what is still there after the collector ended.
type left struct{ objects, pins, attachments int }

func (l left) sum() float64 { return float64(l.objects + l.pins + l.attachments) }

// measureLeftovers ends the collector in the two ways in which it can end, and
// looks for what it leaves in the kernel.
func (l *lab) measureLeftovers(ctx context.Context, r *result) error {
	l.say("looking for leftovers")
	r.left = map[string]left{}
	for name, end := range map[string]func(*collector) error{"stop": (*collector).Stop, "SIGKILL": (*collector).Kill} {
		before, err := l.inventory()
		if err != nil {
			return err
		}
		known, err := kernelObjects()
		if err != nil {
			return err
		}
		c, err := l.collect(ctx)
		if err != nil {
			return err
		}
		if c.objects.count() == 0 {
			return errors.Join(errors.New("the collector has nothing in the kernel"), c.Kill())
		}
		if err := end(c); err != nil {
			return err
		}
		var gone left
		err = node.Within(ctx, 10*time.Second, "", func() (bool, error) { // the kernel frees after a grace period
			now, err := kernelObjects()
			if err != nil {
				return false, err
			}
			after, err := l.inventory()
			// What others made meanwhile counts too: nothing else may run.
			gone = left{now.minus(known).count(), after.pins - before.pins, after.attachments - before.attachments}
			return gone.sum() == 0, err
		})
		if err != nil && gone.sum() == 0 {
			return err
		}
		r.left[name] = gone
	}
	return nil
}

func (l *lab) inventory() (left, error) {
	var n left
	var err error
	if n.pins, err = pins(); err != nil {
		return n, err
	}
	n.attachments, err = cgroupPrograms(l.cgroupRoot)
	return n, err
}
