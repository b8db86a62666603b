package topology

import (
	"cmp"
	"maps"
	"slices"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Overlap lists the other workloads of the namespace with pods that the labels
// select as well, sorted. A policy that names the workload by those labels would
// reach them too. Labels that select nothing in particular overlap with all.
func (c *Cluster) Overlap(w behavior.Workload, labels map[string]string) []behavior.Workload {
	found := map[behavior.Workload]bool{}
	for _, p := range c.Selected(w.Namespace, labels) {
		if other, _ := c.climb(c.pods[name{w.Namespace, p}]); other != w {
			found[other] = true
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b behavior.Workload) int { return cmp.Compare(a.Slug(), b.Slug()) })
}

// Selected lists the pods of a namespace that are there now and that the labels
// select, sorted.
func (c *Cluster) Selected(namespace string, labels map[string]string) []string {
	var found []string
	for key, p := range c.pods {
		if key.namespace == namespace && !p.gone && covers(p.Meta.Labels, labels) {
			found = append(found, key.name)
		}
	}
	slices.Sort(found)
	return found
}

// OnHostNetwork tells whether a pod of the workload is on its node's network,
// where no policy of pods reaches it.
func (c *Cluster) OnHostNetwork(w behavior.Workload) bool {
	return slices.ContainsFunc(c.Pods(w), func(p string) bool { return c.pods[name{w.Namespace, p}].Spec.HostNetwork })
}

// ofRelease tells whether a label says which release is installed, and so changes
// with the next.
func ofRelease(key string) bool {
	switch key {
	case "version", "app.kubernetes.io/version", "chart", "helm.sh/chart", "heritage":
		return true
	}
	return false
}

// member is a pod that is there, as far as selectors ask.
type member struct {
	workload behavior.Workload
	labels   map[string]string
}

// members are the pods of one namespace, also by each label that they carry.
type members map[[2]string][]*member

func (m members) add(pod *member) {
	for k, v := range pod.labels {
		m[[2]string{k, v}] = append(m[[2]string{k, v}], pod)
	}
}

// others counts the pods of other workloads that the labels select.
func (m members) others(w behavior.Workload, labels map[string]string) int {
	var fewest []*member
	first := true
	for k, v := range labels {
		if list := m[[2]string{k, v}]; first || len(list) < len(fewest) {
			fewest, first = list, false
		}
	}
	n := 0
	for _, pod := range fewest {
		if pod.workload != w && covers(pod.labels, labels) {
			n++
		}
	}
	return n
}

// narrow finds labels for workloads whose own select others' pods as well: those,
// and as few more that all of the workload's pods carry as keep the others out, or
// keep out as many as can be.
func (c *Cluster) narrow() map[behavior.Workload]map[string]string {
	namespaces := map[string]members{}
	own := map[behavior.Workload]map[string]string{}    // what it selects its pods by
	common := map[behavior.Workload]map[string]string{} // what all of its pods carry
	for _, key := range slices.SortedFunc(maps.Keys(c.pods), func(a, b name) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	}) {
		p := c.pods[key]
		if p.gone {
			continue
		}
		w, labels := c.base(p)
		if namespaces[key.namespace] == nil {
			namespaces[key.namespace] = members{}
		}
		namespaces[key.namespace].add(&member{w, p.Meta.Labels})
		if own[w] == nil {
			own[w], common[w] = labels, stable(p.Meta.Labels)
		}
		maps.DeleteFunc(common[w], func(k, v string) bool { return p.Meta.Labels[k] != v || ofRelease(k) })
	}
	found := map[behavior.Workload]map[string]string{}
	for w, labels := range own {
		if len(labels) == 0 {
			continue
		}
		if narrow := namespaces[w.Namespace].narrow(w, labels, common[w]); len(narrow) > len(labels) {
			found[w] = narrow
		}
	}
	return found
}

// narrow adds labels, one after the other, that leave the fewest others.
func (m members) narrow(w behavior.Workload, labels, more map[string]string) map[string]string {
	narrow := maps.Clone(labels)
	for least := m.others(w, labels); least > 0; {
		best := ""
		for _, k := range slices.Sorted(maps.Keys(more)) {
			if _, has := narrow[k]; has {
				continue
			}
			narrow[k] = more[k]
			if n := m.others(w, narrow); n < least {
				least, best = n, k
			}
			delete(narrow, k)
		}
		if best == "" {
			break
		}
		narrow[best] = more[best]
	}
	return narrow
}

// Matches lists the workloads of a namespace with pods that the labels select,
// sorted.
func (c *Cluster) Matches(namespace string, labels map[string]string) []behavior.Workload {
	return c.Overlap(behavior.Workload{Namespace: namespace}, labels)
}

// Exposed names the Service, if one there is, through which who is outside the
// cluster comes to a port of the workload's pods, and tells whether it keeps their
// addresses. Of several, the first by name counts.
func (c *Cluster) Exposed(w behavior.Workload, proto string, port uint16) (service string, kept, ok bool) {
	c.Seal()
	for _, key := range slices.SortedFunc(maps.Keys(c.services), func(a, b name) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	}) {
		s := c.services[key]
		if key.namespace != w.Namespace || s.Spec.Type != "NodePort" && s.Spec.Type != "LoadBalancer" {
			continue
		}
		for _, p := range s.Spec.Ports {
			for _, b := range c.backendsOf(servicePort{key, p}) {
				if b.pod == nil || b.port != port || protocol(p.Protocol) != proto {
					continue
				}
				if of, _ := c.climb(b.pod); of == w {
					return behavior.Escape(key.name), s.Spec.TrafficPolicy == "Local", true
				}
			}
		}
	}
	return "", false, false
}
