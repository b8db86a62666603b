package topology

import (
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Workload tells what a pod belongs to, also of a pod that is gone, and the
// labels that select the workload's pods through all its rollouts: those that it
// selects them by itself, and more of theirs where these select other workloads'
// pods as well. A controller of a kind that is not known stands under its own
// name. The labels are empty when the pod has none that last.
func (c *Cluster) Workload(namespace, podName string) (behavior.Workload, map[string]string, bool) {
	p := c.pods[name{namespace, podName}]
	if p == nil {
		return behavior.Workload{}, nil, false
	}
	c.Seal()
	w, labels := c.describe(p)
	return w, labels, true
}

// Pods lists the pods of a workload that are there now, sorted.
func (c *Cluster) Pods(w behavior.Workload) []string {
	var names []string
	for key, p := range c.pods {
		if key.namespace != w.Namespace || p.gone {
			continue
		}
		if other, _ := c.climb(p); other == w {
			names = append(names, key.name)
		}
	}
	slices.Sort(names)
	return names
}

// Replicas is the number of pods that the workload has now.
func (c *Cluster) Replicas(w behavior.Workload) int { return len(c.Pods(w)) }

// covers tells whether labels hold all that the selector asks for.
func covers(labels, selector map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// describe gives a pod's workload and its stable labels, for a picture that is
// sealed.
func (c *Cluster) describe(p *pod) (behavior.Workload, map[string]string) {
	w, labels := c.base(p)
	if narrow := c.index.narrow[w]; narrow != nil && covers(p.Meta.Labels, narrow) {
		return w, narrow
	}
	return w, labels
}

// base gives a pod's workload and the stable labels that this selects its pods by.
func (c *Cluster) base(p *pod) (behavior.Workload, map[string]string) {
	w, top := c.climb(p)
	if top != nil {
		var selector map[string]string
		if top.Spec.Selector != nil {
			selector = top.Spec.Selector.MatchLabels
		}
		for _, labels := range []map[string]string{selector, top.Spec.Template.Meta.Labels, top.Spec.JobTemplate.Spec.Template.Meta.Labels} {
			if kept := stable(labels); len(kept) > 0 && covers(p.Meta.Labels, kept) {
				return w, kept
			}
		}
	}
	return w, stable(p.Meta.Labels)
}

// climb goes from a pod up to the controller that people deploy. The controller
// is nil when it is not known.
func (c *Cluster) climb(p *pod) (behavior.Workload, *Controller) {
	ns := p.Meta.Namespace
	owner := controllerOf(p.Meta.Owners)
	if owner == nil || owner.Kind == "Node" { // a static pod is owned by its node
		return behavior.Workload{Namespace: ns, Kind: "Pod", Name: p.Meta.Name}, nil
	}
	var known *Controller
	for range 4 { // no chain is longer, but references can be made to go in circles
		known = nil
		if o, ok := c.controllers[controllerKey{owner.Kind, name{ns, owner.Name}}]; ok {
			known = &o
		}
		if owner.Kind != "ReplicaSet" && owner.Kind != "Job" {
			break
		}
		next := (*Owner)(nil)
		if known != nil {
			next = controllerOf(known.Meta.Owners)
		} else if owner.Kind == "ReplicaSet" {
			next = deploymentOf(owner.Name, p.Meta.Labels)
		}
		if next == nil {
			break
		}
		owner = next
	}
	return behavior.Workload{Namespace: ns, Kind: owner.Kind, Name: owner.Name}, known
}

// deploymentOf tells the Deployment of a ReplicaSet that is gone: it was named
// for the Deployment and the hash that the pod carries.
func deploymentOf(replicaSet string, podLabels map[string]string) *Owner {
	hash := podLabels["pod-template-hash"]
	if base, ok := strings.CutSuffix(replicaSet, "-"+hash); ok && hash != "" && base != "" {
		return &Owner{Kind: "Deployment", Name: base}
	}
	return nil
}

// controllerOf picks the owner that controls an object. The API takes any text
// for an owner, so one that no object could have is passed over.
func controllerOf(owners []Owner) *Owner {
	for i, o := range owners {
		if o.Controller && plain(o.Kind, "") && plain(o.Name, "-.") {
			return &owners[i]
		}
	}
	return nil
}

// plain tells whether s consists of letters, digits and, inside it, the others.
func plain(s, others string) bool {
	if s == "" || len(s) > 253 || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || i == len(s)-1 || strings.IndexByte(others, c) < 0) {
			return false
		}
	}
	return true
}

// stable leaves out the labels that change with a rollout, a replica or a run.
func stable(labels map[string]string) map[string]string {
	kept := map[string]string{}
	for k, v := range labels {
		switch k {
		case "pod-template-hash", "rollouts-pod-template-hash", "pod-template-generation", "controller-revision-hash",
			"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
			"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name",
			"batch.kubernetes.io/job-completion-index",
			"failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region":
			continue
		}
		if strings.HasPrefix(k, "topology.kubernetes.io/") {
			continue
		}
		kept[k] = v
	}
	return kept
}
