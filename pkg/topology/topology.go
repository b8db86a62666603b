// Package topology is a picture of the cluster: which workload a pod belongs to,
// and who was behind an address and a port at a moment.
//
// It is built from objects that are handed to it, and is pure: it calls no API,
// reads no clock, and never guesses. An address that it cannot tell for sure
// stays unresolved rather than becoming a wide or a wrong peer.
package topology

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// name is a namespaced name of an object of a known kind.
type name struct{ namespace, name string }

// isAPIServer tells whether it is the Service behind which the API server stands
// in every cluster.
func (n name) isAPIServer() bool { return n == name{"default", "kubernetes"} }

// Cluster is what is known of one cluster, and of pods that are gone. Adding
// must not happen beside any other call; reading may be concurrent.
type Cluster struct {
	pods        map[name]*pod // also those that are gone
	controllers map[controllerKey]Controller
	services    map[name]Service
	slices      map[name]EndpointSlice
	nodes       map[string]Node
	ciliumNodes map[string]CiliumNode

	tenures map[netip.Addr][]*tenure // of pods with an address of their own
	specs   map[string]*behavior.PodSpec
	index   *index // made on demand by seal, dropped by every Add
}

type pod struct {
	Pod
	gone bool
	spec *behavior.PodSpec // nil where nobody handed it in
	made time.Time
	cut  bool
}

type controllerKey struct {
	kind string
	name
}

// tenure is the time in which an address was a pod's.
type tenure struct {
	pod      name
	from, to time.Time // a zero to: still
}

// New returns an empty picture.
func New() *Cluster {
	return &Cluster{
		pods:        map[name]*pod{},
		controllers: map[controllerKey]Controller{},
		services:    map[name]Service{},
		slices:      map[name]EndpointSlice{},
		nodes:       map[string]Node{},
		ciliumNodes: map[string]CiliumNode{},
		tenures:     map[netip.Addr][]*tenure{},
		specs:       map[string]*behavior.PodSpec{},
	}
}

// AddPod adds a pod or what became of it, as the API showed it at that time. A
// pod that has run to its end gives its addresses free.
func (c *Cluster) AddPod(p Pod, at time.Time) {
	c.index = nil
	key := name{p.Meta.Namespace, p.Meta.Name}
	ended, end := p.ended(at)
	before := c.pods[key]
	c.pods[key] = &pod{Pod: p, gone: ended}
	if before != nil {
		c.pods[key].spec, c.pods[key].made, c.pods[key].cut = before.spec, before.made, before.cut
	}
	if p.Spec.HostNetwork {
		return
	}
	addresses := p.addresses()
	if before != nil {
		for _, addr := range before.addresses() {
			if !slices.Contains(addresses, addr) {
				c.release(addr, key, at)
			}
		}
	}
	for _, addr := range addresses {
		c.hold(addr, key, p.since(at), end)
	}
}

// hold notes that the pod has the address from then on, and until end when that
// is not zero. A pod that had it before lost it at the latest then.
func (c *Cluster) hold(addr netip.Addr, key name, from, end time.Time) {
	list := c.tenures[addr]
	i := slices.IndexFunc(list, func(t *tenure) bool { return t.pod == key && t.from.Equal(from) })
	if i < 0 {
		list = append(list, &tenure{key, from, end})
	} else if list[i].to.IsZero() {
		list[i].to = end
	}
	slices.SortStableFunc(list, func(a, b *tenure) int { return a.from.Compare(b.from) })
	for i := range len(list) - 1 {
		if list[i].to.IsZero() {
			list[i].to = list[i+1].from
		}
	}
	c.tenures[addr] = list
}

// release notes that the pod does not have the address any more.
func (c *Cluster) release(addr netip.Addr, key name, at time.Time) {
	for _, t := range c.tenures[addr] {
		if t.pod == key && t.to.IsZero() {
			t.to = at
		}
	}
}

// RemovePod says that the pod was gone at that time. What it was is remembered.
func (c *Cluster) RemovePod(namespace, podName string, at time.Time) {
	c.index = nil
	key := name{namespace, podName}
	p := c.pods[key]
	if p == nil {
		return
	}
	p.gone = true
	for _, addr := range p.addresses() {
		c.release(addr, key, at)
	}
}

// AddService adds or replaces a Service.
func (c *Cluster) AddService(s Service) {
	c.index = nil
	c.services[name{s.Meta.Namespace, s.Meta.Name}] = s
}

// AddEndpointSlice adds or replaces a slice of a Service's endpoints.
func (c *Cluster) AddEndpointSlice(s EndpointSlice) {
	c.index = nil
	c.slices[name{s.Meta.Namespace, s.Meta.Name}] = s
}

// AddNode adds or replaces a node.
func (c *Cluster) AddNode(n Node) {
	c.index = nil
	c.nodes[n.Meta.Name] = n
}

// AddCiliumNode adds or replaces what Cilium keeps of a node.
func (c *Cluster) AddCiliumNode(n CiliumNode) {
	c.index = nil
	c.ciliumNodes[n.Meta.Name] = n
}

// AddController adds or replaces an object that makes pods; kind as in the API.
func (c *Cluster) AddController(kind string, o Controller) {
	c.index = nil
	c.controllers[controllerKey{kind, name{o.Meta.Namespace, o.Meta.Name}}] = o
}

// slack is by how much the clocks of nodes, API server and collector may differ.
const slack = 5 * time.Second

// holder is the pod that had the address at that time; with a zero time, the
// last one that had it.
func (c *Cluster) holder(addr netip.Addr, at time.Time) (name, bool) {
	list := c.tenures[addr]
	if len(list) == 0 {
		return name{}, false
	}
	if at.IsZero() {
		return list[len(list)-1].pod, true
	}
	for _, grace := range []time.Duration{0, slack} {
		for _, t := range slices.Backward(list) {
			if !at.Before(t.from.Add(-grace)) && (t.to.IsZero() || !at.After(t.to.Add(grace))) {
				return t.pod, true
			}
		}
	}
	return name{}, false
}

func (p Pod) addresses() []netip.Addr {
	var list []netip.Addr
	for _, ip := range append([]IP{{p.Status.PodIP}}, p.Status.PodIPs...) {
		if a, err := netip.ParseAddr(ip.IP); err == nil && !slices.Contains(list, a.Unmap()) {
			list = append(list, a.Unmap())
		}
	}
	return list
}

// since is when the pod came to be, at the latest when it was seen.
func (p Pod) since(at time.Time) time.Time {
	for _, t := range []time.Time{p.Status.Started, p.Meta.Created} {
		if !t.IsZero() {
			return t
		}
	}
	return at
}

// ended tells whether the pod has run to its end, and when.
func (p Pod) ended(at time.Time) (bool, time.Time) {
	if p.Status.Phase != "Succeeded" && p.Status.Phase != "Failed" {
		return false, time.Time{}
	}
	var end time.Time
	for _, s := range p.Status.States {
		if t := s.State.Terminated; t != nil && t.Finished.After(end) {
			end = t.Finished
		}
	}
	if end.IsZero() {
		end = at
	}
	return true, end
}

// protocol is the API's name of a protocol in the form of behavior.Fact.
func protocol(api string) string {
	if api == "" {
		return "tcp"
	}
	return strings.ToLower(api)
}

// workloadPeer is the peer that stands for a pod's workload.
func (c *Cluster) workloadPeer(p *pod, service string) behavior.Peer {
	w, labels := c.describe(p)
	return behavior.Peer{
		Kind: behavior.PeerWorkload, Namespace: w.Namespace, Workload: behavior.Escape(w.Slug()),
		Labels: behavior.FormatLabels(labels), Service: behavior.Escape(service),
	}
}
