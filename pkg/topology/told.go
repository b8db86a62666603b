package topology

import (
	"cmp"
	"slices"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// PodView is what a source that deploys nothing has to know of a pod.
type PodView struct {
	Namespace, Name, Node string
	Containers            []string // those that its specification always runs
	Ports                 map[string][]ContainerPort
	Started               time.Time // when it was made; zero when nobody knows
	HostNetwork, Gone     bool
}

// Has tells whether the pod is known, also one that is gone.
func (c *Cluster) Has(namespace, podName string) bool {
	return c.pods[name{namespace, podName}] != nil
}

// View lists the pods of a namespace, those that are gone included, by name.
func (c *Cluster) View(namespace string) []PodView {
	var list []PodView
	for key, p := range c.pods {
		if key.namespace != namespace {
			continue
		}
		v := PodView{Namespace: namespace, Name: key.name, Node: p.Spec.NodeName, Started: p.since(time.Time{}),
			HostNetwork: p.Spec.HostNetwork, Gone: p.gone, Ports: map[string][]ContainerPort{}}
		for _, ct := range p.Spec.Containers {
			v.Containers = append(v.Containers, ct.Name)
			v.Ports[ct.Name] = ct.Ports
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b PodView) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Named is the peer that stands for a pod that a source names, rather than its
// address; false when the pod is not known.
func (c *Cluster) Named(namespace, podName string) (behavior.Peer, bool) {
	p := c.pods[name{namespace, podName}]
	if p == nil {
		return behavior.Peer{}, false
	}
	return c.workloadPeer(p, ""), true
}

// Blank tells whether nothing is known that would tell an address outside the
// cluster from one inside.
func (c *Cluster) Blank() bool { return len(c.nodes) == 0 && len(c.services) == 0 }

// HasNode tells whether the cluster has the node, or a pod that ran there.
func (c *Cluster) HasNode(nodeName string) bool {
	if _, ok := c.nodes[nodeName]; ok {
		return true
	}
	for _, p := range c.pods {
		if p.Spec.NodeName == nodeName {
			return true
		}
	}
	return false
}
