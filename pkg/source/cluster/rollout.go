package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Rollout is a workload of the namespace, and whether it can be restarted.
type Rollout struct {
	Workload behavior.Workload
	Pods     int // that it wants
	// Left says in words why it is left alone; empty when it can be restarted.
	Left string
	// Notes are what a person should know before it is.
	Notes []string

	selector labels.Selector
}

// restartable are the kinds that a restart is known for.
func restartable() []kind {
	return []kind{
		{name: "Deployment", resource: resource("apps", "v1", "deployments")},
		{name: "StatefulSet", resource: resource("apps", "v1", "statefulsets")},
		{name: "DaemonSet", resource: resource("apps", "v1", "daemonsets")},
	}
}

func resourceOf(kindName string) schema.GroupVersionResource {
	for _, k := range restartable() {
		if k.name == kindName {
			return k.resource
		}
	}
	return schema.GroupVersionResource{}
}

// controller is what matters of a Deployment, StatefulSet or DaemonSet.
type controller struct {
	Metadata struct {
		Name       string                  `json:"name"`
		Generation int64                   `json:"generation"`
		Owners     []metav1.OwnerReference `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		Replicas *int                  `json:"replicas"`
		Paused   bool                  `json:"paused"`
		Selector *metav1.LabelSelector `json:"selector"`
		Template struct {
			Metadata struct {
				Labels map[string]string `json:"labels"`
			} `json:"metadata"`
		} `json:"template"`
		Strategy strategy `json:"strategy"`       // of a Deployment
		Update   strategy `json:"updateStrategy"` // of the others
	} `json:"spec"`
	Status struct {
		Observed int64 `json:"observedGeneration"`

		Replicas        int    `json:"replicas"`
		Updated         int    `json:"updatedReplicas"`
		Available       int    `json:"availableReplicas"`
		ReadyReplicas   int    `json:"readyReplicas"`
		CurrentRevision string `json:"currentRevision"`
		UpdateRevision  string `json:"updateRevision"`
		Conditions      []struct {
			Type    string `json:"type"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"conditions"`

		Desired          int `json:"desiredNumberScheduled"`
		UpdatedScheduled int `json:"updatedNumberScheduled"`
		AvailableNodes   int `json:"numberAvailable"`
	} `json:"status"`
}

type strategy struct {
	Type    string `json:"type"`
	Rolling struct {
		Partition int `json:"partition"`
	} `json:"rollingUpdate"`
}

// wants is how many pods the controller shall have.
func (c controller) wants(kind string) int {
	switch {
	case kind == "DaemonSet":
		return c.Status.Desired
	case c.Spec.Replicas == nil:
		return 1
	}
	return *c.Spec.Replicas
}

// Rollouts lists the workloads of the namespace, sorted: those that Restart would
// restart, and those that it leaves, with why. It changes nothing.
func (s *Source) Rollouts(ctx context.Context) ([]Rollout, error) {
	budgets, err := s.budgets(ctx)
	if err != nil {
		return nil, err
	}
	var list []Rollout
	known := map[behavior.Workload]bool{}
	for _, k := range restartable() {
		found, err := s.controllers(ctx, k)
		if err != nil {
			return nil, err
		}
		for _, c := range found {
			r, err := c.rollout(s.options.Namespace, k.name, budgets)
			if err != nil {
				return nil, err
			}
			list, known[r.Workload] = append(list, r), true
		}
	}
	others, err := s.others(ctx, known)
	if err != nil {
		return nil, err
	}
	list = append(list, others...)
	slices.SortFunc(list, func(a, b Rollout) int { return strings.Compare(a.Workload.Slug(), b.Workload.Slug()) })
	return list, nil
}

// controllers reads all of a kind in the namespace.
func (s *Source) controllers(ctx context.Context, k kind) ([]controller, error) {
	list, err := s.api.Resource(k.resource).Namespace(s.options.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", k.resource.Resource, err)
	}
	var all []controller
	for i := range list.Items {
		var c controller
		if err := decode(&list.Items[i], &c); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// rollout says whether the controller can be restarted, and what that does.
func (c controller) rollout(namespace, kind string, budgets []budget) (Rollout, error) {
	r := Rollout{Workload: behavior.Workload{Namespace: namespace, Kind: kind, Name: c.Metadata.Name}, Pods: c.wants(kind)}
	var err error
	if r.selector, err = metav1.LabelSelectorAsSelector(c.Spec.Selector); err != nil {
		return r, fmt.Errorf("read selector of %s: %w", r.Workload, err)
	}
	switch {
	case c.Spec.Paused:
		r.Left = "it is paused: 'kubectl rollout resume' first"
	case c.Spec.Update.Type == "OnDelete":
		r.Left = "its update strategy is OnDelete: its pods are replaced when somebody deletes them"
	case r.Pods == 0:
		r.Left = "it has no pods"
	}
	if c.Spec.Strategy.Type == "Recreate" {
		r.Notes = append(r.Notes, "its strategy is Recreate: all of its pods end before new ones start")
	} else if r.Pods == 1 && kind != "Deployment" {
		r.Notes = append(r.Notes, "it has one pod, which is gone until the new one is ready")
	}
	if p := c.Spec.Update.Rolling.Partition; kind == "StatefulSet" && p > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("its partition is %d: pods below that number are not replaced", p))
		if p >= r.Pods {
			r.Left = fmt.Sprintf("its partition of %d keeps all of its pods as they are", p)
		}
	}
	for _, o := range c.Metadata.Owners {
		if o.Controller != nil && *o.Controller {
			r.Notes = append(r.Notes, fmt.Sprintf("%s %s controls it, and may take the restart back", escapeText(o.Kind), escapeText(o.Name)))
		}
	}
	for _, b := range budgets {
		if b.selector.Matches(labels.Set(c.Spec.Template.Metadata.Labels)) {
			r.Notes = append(r.Notes, fmt.Sprintf("PodDisruptionBudget %s does not hold a rollout back; the workload's own strategy does", b.name))
		}
	}
	return r, nil
}

// budget is a PodDisruptionBudget.
type budget struct {
	name     string
	selector labels.Selector
}

func (s *Source) budgets(ctx context.Context) ([]budget, error) {
	list, err := s.api.Resource(resource("policy", "v1", "poddisruptionbudgets")).Namespace(s.options.Namespace).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list poddisruptionbudgets: %w", err)
	}
	var all []budget
	for _, u := range list.Items {
		var o struct {
			Spec struct {
				Selector *metav1.LabelSelector `json:"selector"`
			} `json:"spec"`
		}
		data, err := u.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(data, &o)
		}
		var selector labels.Selector
		if err == nil {
			selector, err = metav1.LabelSelectorAsSelector(o.Spec.Selector)
		}
		if err != nil {
			return nil, fmt.Errorf("read poddisruptionbudget %s: %w", u.GetName(), err)
		}
		all = append(all, budget{u.GetName(), selector})
	}
	return all, nil
}

// others lists the workloads with pods in the namespace that no restart is known
// for.
func (s *Source) others(ctx context.Context, known map[behavior.Workload]bool) ([]Rollout, error) {
	// A picture of its own: what goes until the collectors work is no replica that
	// they should have observed.
	p := newPicture(s.options.Now)
	if err := p.list(ctx, s.api); err != nil {
		return nil, err
	}
	var list []Rollout
	for w, n := range p.replicas(s.options.Namespace) {
		if known[w] {
			continue
		}
		list = append(list, Rollout{Workload: w, Pods: n, Left: "a " + escapeText(w.Kind) + " has no rollout to restart"})
	}
	return list, nil
}
