//go:build linux

package collector

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// maxPods bounds the pods that are remembered, those that are gone among them; a
// node runs some hundreds.
const maxPods = 20000

// containerInfo is what the API server says of one container.
type containerInfo struct {
	namespace, pod, uid string
	name, id, image     string
	started, finished   time.Time // zero when not yet
	ready               bool
	ephemeral           bool                      // kubectl debug's
	commands            [][]string                // with which the kubelet enters it
	volumes             map[string]behavior.Mount // by the path that the specification says; not changed
}

// pods is what the API server says of the pods of this node. Pods stay in it
// after they are gone, since facts may come late. It is safe for concurrent use.
type pods struct {
	mu         sync.RWMutex
	containers map[string]containerInfo // by ID
	complete   map[string]bool          // by pod UID: whether every container has an ID
	over       map[string]bool          // by pod UID: it is done, or on its way out
	unknown    uint64                   // times that a pod was not remembered, as there were too many
	synced     bool
	problem    string
	changed    chan struct{} // holds one token when there is news
}

func newPods() *pods {
	return &pods{containers: map[string]containerInfo{}, complete: map[string]bool{}, over: map[string]bool{}, changed: make(chan struct{}, 1)}
}

// container finds a container by its ID.
func (p *pods) container(id string) (containerInfo, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	c, ok := p.containers[id]
	return c, ok
}

// pod tells whether a pod of that UID is of this node, and whether the API server
// has named all of its containers.
func (p *pods) pod(uid string) (known, complete bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	complete, known = p.complete[uid]
	return known, complete
}

// isOver tells whether a pod has ended, or has been told to.
func (p *pods) isOver(uid string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.over[uid]
}

// end remembers that a pod was deleted.
func (p *pods) end(uid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.complete[uid]; known {
		p.over[uid] = true
	}
}

// forgotten counts how often there was no room for a pod.
func (p *pods) forgotten() uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.unknown
}

// state tells whether the list has been read once, and what is wrong now.
func (p *pods) state() (synced bool, problem string) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.synced, p.problem
}

func (p *pods) set(pod *corev1.Pod) {
	p.mu.Lock()
	uid := string(pod.UID)
	if _, known := p.complete[uid]; known || len(p.complete) < maxPods {
		want := len(pod.Spec.InitContainers) + len(pod.Spec.Containers) + len(pod.Spec.EphemeralContainers)
		named := 0
		specs := specified(pod)
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for _, s := range list {
				if p.addStatus(pod, s, specs[s.Name]) {
					named++
				}
			}
		}
		p.complete[uid] = named >= want
		// A static pod's control group carries the hash of its file instead.
		if hash := pod.Annotations["kubernetes.io/config.hash"]; hash != "" {
			p.complete[hash] = named >= want
			p.over[hash] = ending(pod)
		}
		p.over[uid] = p.over[uid] || ending(pod)
	} else {
		p.unknown++
	}
	p.problem = ""
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func ending(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// specified gives what a pod's specification says of its containers, by name.
func specified(pod *corev1.Pod) map[string]containerInfo {
	specs := map[string]containerInfo{}
	of := func(name, image string, mounted []corev1.VolumeMount) containerInfo {
		return containerInfo{
			namespace: pod.Namespace, pod: pod.Name, uid: string(pod.UID), name: name, image: image,
			volumes: volumesOf(pod, mounted),
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			info := of(c.Name, c.Image, c.VolumeMounts)
			info.commands = commandsOf(&c)
			specs[c.Name] = info
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		info := of(c.Name, c.Image, c.VolumeMounts)
		info.ephemeral = true
		specs[c.Name] = info
	}
	return specs
}

// addStatus remembers the container that runs now and the one before it.
func (p *pods) addStatus(pod *corev1.Pod, s corev1.ContainerStatus, info containerInfo) bool {
	if info.name == "" { // its specification is gone
		info = containerInfo{namespace: pod.Namespace, pod: pod.Name, uid: string(pod.UID), name: s.Name}
	}
	info.image = imageName(info.image, s)
	if t := s.LastTerminationState.Terminated; t != nil && t.ContainerID != "" {
		old := info
		old.id, old.started, old.finished = bareID(t.ContainerID), t.StartedAt.Time, t.FinishedAt.Time
		p.containers[old.id] = old
	}
	if s.ContainerID == "" {
		return false
	}
	info.id, info.ready = bareID(s.ContainerID), s.Ready
	switch {
	case s.State.Running != nil:
		info.started = s.State.Running.StartedAt.Time
	case s.State.Terminated != nil:
		info.started, info.finished = s.State.Terminated.StartedAt.Time, s.State.Terminated.FinishedAt.Time
	}
	if old, ok := p.containers[info.id]; ok && info.started.IsZero() {
		info.started, info.finished = old.started, old.finished
	}
	p.containers[info.id] = info
	return true
}

// bareID takes the scheme off: containerd://ID.
func bareID(id string) string {
	if _, bare, ok := strings.Cut(id, "://"); ok {
		return bare
	}
	return id
}

// imageName names the image with its digest, as far as the runtime tells it.
func imageName(spec string, s corev1.ContainerStatus) string {
	_, digest, ok := strings.Cut(s.ImageID, "@")
	if !ok {
		_, digest, ok = strings.Cut(s.ImageID, "sha256:")
		digest = "sha256:" + digest
	}
	name := cmp.Or(spec, s.Image)
	if !ok || strings.Contains(name, "@") {
		return name
	}
	return name + "@" + digest
}

// watch follows the pods of one node until the context ends. It lists and watches
// again, with growing pauses, whenever the API server is away.
func (p *pods) watch(ctx context.Context, client dynamic.Interface, node string) {
	resource := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	selector := fields.OneTermEqualSelector("spec.nodeName", node).String()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			list, err := resource.List(ctx, o)
			p.listed(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			w, err := resource.Watch(ctx, o)
			if err != nil {
				p.listed(err)
			}
			return w, err
		},
	}
	informer := cache.NewSharedIndexInformer(source, &unstructured.Unstructured{}, 0, nil)
	handle := func(object any, deleted bool) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		u, ok := object.(*unstructured.Unstructured)
		if !ok {
			return
		}
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &pod); err != nil {
			p.listed(fmt.Errorf("read pod %s/%s: %w", u.GetNamespace(), u.GetName(), err))
			return
		}
		p.set(&pod)
		if deleted {
			p.end(string(pod.UID))
		}
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { handle(object, false) },
		UpdateFunc: func(_, object any) { handle(object, false) },
		DeleteFunc: func(object any) { handle(object, true) },
	})
	if err != nil {
		p.listed(err)
		return
	}
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			p.mu.Lock()
			p.synced = true
			p.mu.Unlock()
		}
	}()
	informer.RunWithContext(ctx)
}

// listed remembers what the last request ended in.
func (p *pods) listed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problem = ""
	if err != nil {
		p.problem = "list pods: " + err.Error()
	}
}
