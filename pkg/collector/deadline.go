//go:build linux

package collector

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
)

// ParseDeadline reads a point in time (RFC 3339), or a duration from now. An
// empty text means none, the zero time.
func ParseDeadline(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return time.Time{}, fmt.Errorf("deadline %q: want a time such as 2006-01-02T15:04:05Z or a duration such as 1h", text)
	}
	return now.Add(d), nil
}

// Pauses between attempts to remove the namespace.
const (
	firstPause = time.Second
	longPause  = time.Minute
)

// RemoveNamespace deletes a namespace and so everything that was deployed with
// it, and tries again until the API server has taken it or the context ends.
// Failed is called after each attempt that failed.
func RemoveNamespace(ctx context.Context, api dynamic.Interface, name string, failed func(error)) error {
	namespaces := api.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := namespaces.Delete(ctx, name, metav1.DeleteOptions{})
		if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil // a conflict says that it is being deleted already
		}
		failed(fmt.Errorf("remove namespace %s: %w", name, err))
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}
