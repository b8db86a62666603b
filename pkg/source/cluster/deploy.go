package cluster

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// ExistsError says that a collector is there already, of another run or of one
// that was cut off.
type ExistsError struct {
	Since   time.Time
	By      string // who deployed it, escaped; empty when it does not say
	Leaving bool   // it is being removed
}

// Error implements error.
func (e *ExistsError) Error() string {
	text := fmt.Sprintf("deploy collector: namespace %s exists since %s", manifests.Namespace, e.Since.UTC().Format(time.RFC3339))
	if e.By != "" {
		text += ", deployed by " + e.By
	}
	if e.Leaving {
		text += ", and is being removed"
	}
	return text
}

// Hint says what a user can do.
func (e *ExistsError) Hint() string {
	if e.Leaving {
		return "wait until it is gone: kubectl wait --for=delete namespace/" + manifests.Namespace
	}
	return "wait until that run is over, or remove it: kubectl autopolicy uninstall"
}

// Check asks what can be asked before anything is deployed: whether the namespace
// is there and has pods, whether no collector is there, whether the user may do
// all that a run does. It changes nothing.
func (s *Source) Check(ctx context.Context) error {
	namespaces := s.api.Resource(resource("", "v1", "namespaces"))
	_, err := namespaces.Get(ctx, s.options.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("observe namespace %s: %w", s.options.Namespace, ErrNoNamespace)
	case err != nil && !apierrors.IsForbidden(err):
		return fmt.Errorf("observe namespace %s: %w", s.options.Namespace, err)
	}
	if err := s.permitted(ctx); err != nil {
		return err
	}
	pods, err := s.api.Resource(resource("", "v1", "pods")).Namespace(s.options.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return fmt.Errorf("observe namespace %s: %w", s.options.Namespace, err)
	}
	if len(pods.Items) == 0 {
		return fmt.Errorf("observe namespace %s: %w", s.options.Namespace, ErrNoPods)
	}
	there, err := namespaces.Get(ctx, manifests.Namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("look for another collector: %w", err)
	}
	return exists(there)
}

func exists(n *unstructured.Unstructured) error {
	return &ExistsError{
		Since: n.GetCreationTimestamp().Time, By: behavior.Escape(n.GetAnnotations()[byAnnotation]), Leaving: n.GetDeletionTimestamp() != nil,
	}
}

// createTimeout is how long an API server may take for one object.
const createTimeout = 15 * time.Second

// Deploy creates the collector's objects, and refuses with an ExistsError when
// another run's are there. After any other error the caller calls Remove.
func (s *Source) Deploy(ctx context.Context) error {
	objects, err := Objects(s.options)
	if err != nil {
		return err
	}
	// Created, not applied: of two runs at once only one may have it. And not
	// interrupted: whose the namespace is must be known to remove it.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), createTimeout)
	defer cancel()
	namespace, err := s.at(objects[0]).Create(whole, objects[0], metav1.CreateOptions{FieldManager: manifests.ManagedBy})
	if apierrors.IsAlreadyExists(err) {
		there, getErr := s.at(objects[0]).Get(ctx, manifests.Namespace, metav1.GetOptions{})
		if getErr != nil {
			return fmt.Errorf("deploy collector: %w", err)
		}
		return exists(there)
	}
	if err != nil {
		return fmt.Errorf("deploy collector: create namespace: %w", err)
	}
	s.uid = namespace.GetUID()
	if err := s.suit(ctx, objects); err != nil {
		return fmt.Errorf("deploy collector: %w", err)
	}
	for _, u := range objects[1:] {
		if err := own(u, namespace, s.options.Deadline); err != nil {
			return fmt.Errorf("deploy collector: %w", err)
		}
		if _, err := s.at(u).Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: manifests.ManagedBy, Force: true}); err != nil {
			return fmt.Errorf("deploy collector: %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}

// at is where an object of ours belongs in the API.
func (s *Source) at(u *unstructured.Unstructured) dynamic.ResourceInterface {
	switch u.GetKind() {
	case "Namespace":
		return s.api.Resource(resource("", "v1", "namespaces"))
	case "ServiceAccount":
		return s.api.Resource(resource("", "v1", "serviceaccounts")).Namespace(u.GetNamespace())
	case "ClusterRole":
		return s.api.Resource(resource("rbac.authorization.k8s.io", "v1", "clusterroles"))
	case "ClusterRoleBinding":
		return s.api.Resource(resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings"))
	}
	return s.api.Resource(resource("apps", "v1", "daemonsets")).Namespace(u.GetNamespace())
}
