package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

// removeEvery is how often it is looked whether all is gone.
const removeEvery = 500 * time.Millisecond

// Remove deletes everything that Deploy created, and nothing of a run that came
// after; without a Deploy it deletes what any run left. It waits until that is
// gone or the context ends, which then is an error that names what remains
// (ErrRemains). Removing nothing is no error. After a cancelled run it needs a
// context of its own.
func (s *Source) Remove(ctx context.Context) (removed []string, err error) {
	s.mu.Lock()
	for _, n := range s.nodes {
		if n.conn != nil {
			err = errors.Join(err, n.conn.Close())
		}
	}
	s.nodes = map[string]*node{}
	s.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("close connections: %w", err)
	}
	objects, listErr := s.ours(ctx)
	if listErr != nil {
		return nil, errors.Join(err, listErr)
	}
	for _, o := range objects {
		deleteErr := s.api.Resource(o.resource).Delete(ctx, o.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.uid}})
		switch {
		case deleteErr == nil:
			removed = append(removed, o.String())
		case !apierrors.IsNotFound(deleteErr) && !apierrors.IsConflict(deleteErr):
			err = errors.Join(err, fmt.Errorf("remove %s: %w", o, deleteErr))
		}
	}
	return removed, errors.Join(err, s.waitGone(ctx))
}

// object is one cluster-wide object of ours.
type object struct {
	resource schema.GroupVersionResource
	name     string
	uid      types.UID
}

// String names the object as kubectl does.
func (o object) String() string { return strings.TrimSuffix(o.resource.Resource, "s") + "/" + o.name }

// ours lists what there is of the collector in the cluster. What is in the
// namespace goes with it. What another run deployed since is not ours. An object
// that has the name and not the label is somebody else's, and an error.
func (s *Source) ours(ctx context.Context) ([]object, error) {
	var found []object
	for _, o := range []object{
		{resource: resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings"), name: manifests.Role},
		{resource: resource("rbac.authorization.k8s.io", "v1", "clusterroles"), name: manifests.Role},
		{resource: resource("", "v1", "namespaces"), name: manifests.Namespace},
	} {
		u, err := s.api.Resource(o.resource).Get(ctx, o.name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("look for %s: %w", o, err)
		case u.GetLabels()[managedBy] != manifests.ManagedBy:
			return nil, fmt.Errorf("%s is not ours: it lacks the label %s=%s", o, managedBy, manifests.ManagedBy)
		case s.another(u):
		default:
			o.uid = u.GetUID()
			found = append(found, o)
		}
	}
	return found, nil
}

// another tells whether the object belongs to another run than this one.
func (s *Source) another(u *unstructured.Unstructured) bool {
	if s.uid == "" || u.GetUID() == s.uid {
		return false
	}
	return !slices.ContainsFunc(u.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == s.uid })
}

// managedBy is the label that all of our objects carry.
const managedBy = "app.kubernetes.io/managed-by"

// waitGone waits until nothing is left.
func (s *Source) waitGone(ctx context.Context) error {
	ticker := time.NewTicker(removeEvery)
	defer ticker.Stop()
	var last []object
	for {
		left, err := s.ours(ctx)
		if err == nil && len(left) == 0 {
			return nil
		}
		if err == nil {
			last = left
		}
		select {
		case <-ctx.Done():
			var names []string
			for _, o := range last {
				names = append(names, o.String())
			}
			return errors.Join(fmt.Errorf("%w: %s", ErrRemains, strings.Join(names, ", ")), ctx.Err(), err)
		case <-ticker.C:
		}
	}
}
