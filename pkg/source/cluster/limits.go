package cluster

import (
	"context"
	"errors"
	"time"
)

// Bounds of what one collector may make the plugin hold. A node runs some 100
// pods; a collector of ours keeps 400,000 facts at most, whose texts are some 100
// bytes each.
const (
	maxNodeContainers = 20000
	maxNodeFacts      = 1 << 20
	maxNodeWeight     = 256 << 20
)

// Bounds of one pull. A collector sends each fact once, and each of its
// containers with every batch that has facts of it.
const (
	maxPullBytes = 1 << 30
	maxPullFacts = 2 * maxNodeFacts
	maxPullTime  = 3 * time.Minute
)

// limits bound one pull, and by weight what it may make the plugin hold.
type limits struct {
	bytes, facts, weight int
	time                 time.Duration
}

// errOverdue is a pull that took too long, however much came.
var errOverdue = errors.New("collector did not end within")

// overdue says so where it was the pull's own time that ended.
func overdue(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errOverdue) {
		return cause
	}
	return err
}
