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

// PermissionError lists what the user may not do.
type PermissionError struct {
	Missing []Permission
}

// Error implements error.
func (e *PermissionError) Error() string {
	var list []string
	for _, r := range e.rules() {
		where := "in the whole cluster"
		if r.namespace != "" {
			where = "in namespace " + r.namespace
		}
		name := r.resource
		if r.group != "" {
			name += "." + r.group
		}
		list = append(list, strings.Join(r.verbs, ", ")+" "+name+" "+where)
	}
	return "not permitted to " + strings.Join(list, "; to ")
}

// rule is what is missing on one resource in one place.
type rule struct {
	namespace, group, resource string
	verbs                      []string
}

// rules folds the missing verbs of a resource into one, in the order of the first.
func (e *PermissionError) rules() []rule {
	var list []rule
	for _, p := range e.Missing {
		i := slices.IndexFunc(list, func(r rule) bool {
			return r.namespace == p.Namespace && r.group == p.Group && r.resource == p.Resource
		})
		if i < 0 {
			i, list = len(list), append(list, rule{namespace: p.Namespace, group: p.Group, resource: p.Resource})
		}
		list[i].verbs = append(list[i].verbs, p.Verb)
	}
	return list
}

// Hint gives the rules to add to a ClusterRole. What a run needs in the collector's
// namespace cannot stand in a Role there: the namespace comes and goes with it.
func (e *PermissionError) Hint() string {
	var b strings.Builder
	b.WriteString("add to a ClusterRole of yours, bound by a ClusterRoleBinding:")
	var written []rule
	for _, r := range e.rules() {
		if i := slices.IndexFunc(written, func(w rule) bool { return w.group == r.group && w.resource == r.resource }); i >= 0 {
			for _, verb := range r.verbs {
				if !slices.Contains(written[i].verbs, verb) {
					written[i].verbs = append(written[i].verbs, verb)
				}
			}
			continue
		}
		written = append(written, r)
	}
	for _, r := range written {
		fmt.Fprintf(&b, "\n- apiGroups: [%q]\n  resources: [%q]\n  verbs: [%s]", r.group, r.resource, strings.Join(r.verbs, ", "))
	}
	return b.String()
}

// needed lists what a run does, in the order in which people are told; restart
// names the namespace whose workloads it restarts, if it does.
func needed(restart string) []Permission {
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
	if restart != "" {
		for _, k := range restartable() {
			list = append(list, Permission{"patch", k.resource.Group, k.resource.Resource, restart})
		}
		list = append(list, Permission{"list", "policy", "poddisruptionbudgets", restart})
	}
	// Nobody may grant the collector what they may not do themselves.
	return append(list, Permission{"get", "", "pods", ""}, Permission{"watch", "", "pods", ""})
}

// permitted asks the API server about every permission, side by side.
func (s *Source) permitted(ctx context.Context) error {
	restart := ""
	if s.options.Restart {
		restart = s.options.Namespace
	}
	list := needed(restart)
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
