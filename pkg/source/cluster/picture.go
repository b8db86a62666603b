package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// kind is a kind of object that tells about the cluster's shape.
type kind struct {
	name     string
	resource schema.GroupVersionResource
	// extra kinds are not in every cluster, and do without where they may not be
	// read: some addresses then have no name.
	extra bool
}

func kinds() []kind {
	return []kind{
		{name: "Pod", resource: resource("", "v1", "pods")},
		{name: "Service", resource: resource("", "v1", "services")},
		{name: "Node", resource: resource("", "v1", "nodes")},
		{name: "EndpointSlice", resource: resource("discovery.k8s.io", "v1", "endpointslices")},
		{name: "ReplicaSet", resource: resource("apps", "v1", "replicasets")},
		{name: "Deployment", resource: resource("apps", "v1", "deployments")},
		{name: "StatefulSet", resource: resource("apps", "v1", "statefulsets")},
		{name: "DaemonSet", resource: resource("apps", "v1", "daemonsets")},
		{name: "Job", resource: resource("batch", "v1", "jobs")},
		{name: "CronJob", resource: resource("batch", "v1", "cronjobs")},
	}
}

// extras are kinds that some networks keep of nodes.
func extras() []kind {
	return []kind{{name: "CiliumNode", resource: resource("cilium.io", "v2", "ciliumnodes"), extra: true}}
}

// podKey names a pod.
type podKey struct{ namespace, name string }

// podSeen is what is kept of a pod beside the topology.
type podSeen struct {
	nodes []string // where it ran, in the order in which it was seen there
	// containers are those that its specification always runs; others are those
	// that come first (init) or that somebody added (ephemeral).
	containers, others []string
	// over says that it had run to its end before it was ever looked at.
	over bool
	// running says that it ran when it was looked at last.
	running bool
}

// node is where it ran last; empty when it was not scheduled.
func (s podSeen) node() string {
	if len(s.nodes) == 0 {
		return ""
	}
	return s.nodes[len(s.nodes)-1]
}

// picture builds the topology: everything is listed at the start and at the end,
// pods are followed in between, so that one that came and went is known.
type picture struct {
	now func() time.Time

	mu       sync.Mutex
	topology *topology.Cluster
	there    map[podKey]bool
	seen     map[podKey]podSeen
}

func newPicture(now func() time.Time) *picture {
	return &picture{now: now, topology: topology.New(), there: map[podKey]bool{}, seen: map[podKey]podSeen{}}
}

// pageSize bounds one answer of the API server.
const pageSize = 500

// list reads all kinds, side by side.
func (p *picture) list(ctx context.Context, api dynamic.Interface) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, k := range append(kinds(), extras()...) {
		group.Go(func() error {
			_, err := p.listKind(ctx, api, k)
			return err
		})
	}
	return group.Wait()
}

// listKind reads one kind and gives the version of the list to watch from.
func (p *picture) listKind(ctx context.Context, api dynamic.Interface, k kind) (string, error) {
	options := metav1.ListOptions{Limit: pageSize}
	found := map[podKey]bool{}
	for {
		page, err := api.Resource(k.resource).List(ctx, options)
		if k.extra && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("list %s: %w", k.resource.Resource, err)
		}
		for i := range page.Items {
			if k.name == "Pod" {
				found[podKey{page.Items[i].GetNamespace(), page.Items[i].GetName()}] = true
			}
			if err := p.add(k.name, &page.Items[i]); err != nil {
				return "", err
			}
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			if k.name == "Pod" {
				p.keepOnly(found)
			}
			return page.GetResourceVersion(), nil
		}
	}
}

func (p *picture) add(kind string, u *unstructured.Unstructured) error {
	data, err := u.MarshalJSON()
	if err != nil {
		return fmt.Errorf("read %s %s: %w", kind, u.GetName(), err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if kind == "Pod" {
		p.note(u)
	}
	return p.topology.Add(kind, data, p.now())
}

// note keeps where a pod runs and what its containers are called.
func (p *picture) note(u *unstructured.Unstructured) {
	key := podKey{u.GetNamespace(), u.GetName()}
	p.there[key] = true
	s, known := p.seen[key]
	phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
	s.running = phase == "Running"
	if !known {
		s.over = phase == "Succeeded" || phase == "Failed"
	}
	// A StatefulSet's pod keeps its name when it moves.
	if node, _, _ := unstructured.NestedString(u.Object, "spec", "nodeName"); node != "" && s.node() != node {
		s.nodes = append(slices.DeleteFunc(slices.Clone(s.nodes), func(n string) bool { return n == node }), node)
	}
	s.containers = names(u, "containers")
	s.others = append(names(u, "initContainers"), names(u, "ephemeralContainers")...)
	p.seen[key] = s
}

// names lists what a part of a pod's specification calls its containers.
func names(u *unstructured.Unstructured, part string) []string {
	list, _, _ := unstructured.NestedSlice(u.Object, "spec", part)
	var found []string
	for _, item := range list {
		if c, ok := item.(map[string]any); ok {
			if name, ok := c["name"].(string); ok {
				found = append(found, name)
			}
		}
	}
	return found
}

// replicas counts the pods that each workload of a namespace had since the first
// look, those that are gone included. A pod that came and went while a rollout
// went on is one that should have been observed.
func (p *picture) replicas(namespace string) map[behavior.Workload]int {
	counts := map[behavior.Workload]int{}
	for key, seen := range p.seen {
		if key.namespace != namespace || seen.over {
			continue
		}
		if w, _, ok := p.topology.Workload(key.namespace, key.name); ok {
			counts[w]++
		}
	}
	return counts
}

// keepOnly removes the pods that a complete list does not show any more.
func (p *picture) keepOnly(found map[podKey]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.there {
		if !found[key] {
			p.remove(key)
		}
	}
}

func (p *picture) remove(key podKey) {
	delete(p.there, key)
	p.topology.RemovePod(key.namespace, key.name, p.now())
}

// listAgain is the pause before a watch that broke off begins again.
const listAgain = time.Second

// follow watches the pods until the context ends. It lists again whenever the
// watch breaks off, so nothing that is still there is missed.
func (p *picture) follow(ctx context.Context, api dynamic.Interface) {
	pods := kinds()[0]
	for ctx.Err() == nil {
		version, err := p.listKind(ctx, api, pods)
		if err == nil {
			err = p.watch(ctx, api, pods, version)
		}
		if err != nil && pause(ctx, listAgain) != nil {
			return
		}
	}
}

func (p *picture) watch(ctx context.Context, api dynamic.Interface, k kind, version string) error {
	w, err := api.Resource(k.resource).Watch(ctx, metav1.ListOptions{ResourceVersion: version, AllowWatchBookmarks: true})
	if err != nil {
		return fmt.Errorf("watch %s: %w", k.resource.Resource, err)
	}
	defer w.Stop()
	defer context.AfterFunc(ctx, w.Stop)() // not every client ends it with the context
	for event := range w.ResultChan() {
		u, ok := event.Object.(*unstructured.Unstructured)
		if !ok {
			continue
		}
		switch event.Type {
		case watch.Added, watch.Modified:
			if err := p.add(k.name, u); err != nil {
				return err
			}
		case watch.Deleted:
			err := p.add(k.name, u) // its last state first
			p.mu.Lock()
			p.remove(podKey{u.GetNamespace(), u.GetName()})
			p.mu.Unlock()
			if err != nil {
				return err
			}
		case watch.Error:
			return fmt.Errorf("watch %s: broken off", k.resource.Resource)
		}
	}
	return nil
}
