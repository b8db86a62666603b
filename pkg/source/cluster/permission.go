package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

// Permission is one thing that a run does to the cluster.
type Permission struct {
	Verb, Group, Resource string
	Namespace             string // empty for the whole cluster
}

// String says the permission in words.
func (p Permission) String() string {
	where := "in the whole cluster"
	if p.Namespace != "" {
		where = "in namespace " + p.Namespace
	}
	name := p.Resource
	if p.Group != "" {
		name += "." + p.Group
	}
	return p.Verb + " " + name + " " + where
}

// PermissionError lists what the user may not do.
type PermissionError struct {
	Missing []Permission
}

// Error implements error.
func (e *PermissionError) Error() string {
	var list []string
	for _, p := range e.Missing {
		list = append(list, p.String())
	}
	return "not permitted to " + strings.Join(list, ", to ")
}

// Hint gives the rules to add, as they stand in a Role or ClusterRole.
func (e *PermissionError) Hint() string {
	type place struct{ namespace, group, resource string }
	verbs := map[place][]string{}
	var order []place
	for _, p := range e.Missing {
		at := place{p.Namespace, p.Group, p.Resource}
		if verbs[at] == nil {
			order = append(order, at)
		}
		verbs[at] = append(verbs[at], p.Verb)
	}
	slices.SortStableFunc(order, func(a, b place) int { return strings.Compare(a.namespace, b.namespace) })
	var b strings.Builder
	last := "-"
	for _, at := range order {
		if at.namespace != last {
			last = at.namespace
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			if last == "" {
				b.WriteString("add to a ClusterRole of yours, bound by a ClusterRoleBinding:")
			} else {
				b.WriteString("add to a Role of yours in namespace " + last + ":")
			}
		}
		fmt.Fprintf(&b, "\n- apiGroups: [%q]\n  resources: [%q]\n  verbs: [%s]", at.group, at.resource, strings.Join(verbs[at], ", "))
	}
	return b.String()
}

// needed lists what a run does, in the order in which people are told.
func needed() []Permission {
	list := []Permission{
		{"get", "", "namespaces", ""}, {"create", "", "namespaces", ""}, {"delete", "", "namespaces", ""},
	}
	for _, name := range []string{"clusterroles", "clusterrolebindings"} {
		for _, verb := range []string{"get", "create", "patch", "delete"} {
			list = append(list, Permission{verb, "rbac.authorization.k8s.io", name, ""})
		}
	}
	for _, p := range []Permission{
		{"create", "", "serviceaccounts", ""}, {"patch", "", "serviceaccounts", ""},
		{"create", "apps", "daemonsets", ""}, {"patch", "apps", "daemonsets", ""}, {"get", "apps", "daemonsets", ""},
		{"create", "", "pods/portforward", ""}, {"list", "", "events", ""},
	} {
		p.Namespace = manifests.Namespace
		list = append(list, p)
	}
	for _, k := range kinds() {
		list = append(list, Permission{"list", k.resource.Group, k.resource.Resource, ""})
	}
	// Nobody may grant the collector what they may not do themselves.
	return append(list, Permission{"get", "", "pods", ""}, Permission{"watch", "", "pods", ""})
}

// permitted asks the API server about every permission, side by side.
func (s *Source) permitted(ctx context.Context) error {
	list := needed()
	denied := make([]bool, len(list))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i, p := range list {
		group.Go(func() error {
			allowed, err := s.mayI(ctx, p)
			denied[i] = !allowed
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("ask for permissions: %w", err)
	}
	var missing []Permission
	for i, p := range list {
		if denied[i] {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		return &PermissionError{Missing: missing}
	}
	return nil
}

func (s *Source) mayI(ctx context.Context, p Permission) (bool, error) {
	name, sub, _ := strings.Cut(p.Resource, "/")
	attributes := map[string]any{"verb": p.Verb, "group": p.Group, "resource": name, "namespace": p.Namespace}
	if sub != "" {
		attributes["subresource"] = sub
	}
	review := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": attributes},
	}}
	answer, err := s.api.Resource(resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")).Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	allowed, _, err := unstructured.NestedBool(answer.Object, "status", "allowed")
	return allowed, err
}
