package synced

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Patiently calls ask until it gives no error, or one that does not end by
// itself, or until limit has passed since the first try: an API server that
// restarts is back within a minute. ask is called every so often.
func Patiently(ctx context.Context, limit, every time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the cluster does not answer within %s", limit))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := ask(ctx)
		if err == nil || ctx.Err() == nil && !Passing(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return errors.Join(cause, err)
			}
			return ctx.Err()
		}
	}
}
