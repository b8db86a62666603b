package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// View looks at a cluster and changes nothing in it, for sources that were there
// before.
type View struct {
	config  *rest.Config
	api     dynamic.Interface
	picture *picture
	stop    func()
}

// NewView makes a View and calls nobody.
func NewView(config *rest.Config, now func() time.Time) (*View, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 50, 300 // as New does
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster: %w", err)
	}
	return &View{config: config, api: api, picture: newPicture(now)}, nil
}

// Begin lists what is there and follows the pods, until End.
func (v *View) Begin(ctx context.Context) error {
	if err := v.picture.list(ctx, v.api); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	following.Go(func() { v.picture.follow(ctx, v.api) })
	v.stop = sync.OnceFunc(func() {
		cancel()
		following.Wait()
	})
	return nil
}

// End lists once more, and gives the picture, which nobody else uses from then on.
func (v *View) End(ctx context.Context) (*topology.Cluster, error) {
	if v.stop != nil {
		v.stop()
	}
	if err := v.picture.list(ctx, v.api); err != nil {
		return nil, err
	}
	return v.picture.topology, nil
}

// ErrNoRelay is returned where no namespace has the pod that is looked for.
var ErrNoRelay = errors.New("no such relay runs")

// Relay is how to find a relay in a cluster: where and by which label it usually
// runs, and its port.
type Relay struct {
	Namespaces []string // tried one after the other
	Selector   string
	Port       int
}

// Probe finds a pod of the relay that runs now.
func (v *View) Probe(ctx context.Context, r Relay) (pod Place, err error) {
	for _, namespace := range r.Namespaces {
		pods, err := v.api.Resource(resource("", "v1", "pods")).Namespace(namespace).List(ctx,
			metav1.ListOptions{LabelSelector: r.Selector, FieldSelector: "status.phase=Running"})
		if err != nil {
			return Place{}, fmt.Errorf("look for %s in namespace %s: %w", r.Selector, namespace, err)
		}
		for i := range pods.Items {
			if pods.Items[i].GetDeletionTimestamp() == nil {
				return Place{namespace, pods.Items[i].GetName()}, nil
			}
		}
	}
	return Place{}, fmt.Errorf("%w: no running pod with %s in %s", ErrNoRelay, r.Selector, strings.Join(r.Namespaces, ", "))
}

// Place is where a pod is.
type Place struct{ Namespace, Pod string }

// Dial connects through the API server's port-forward to a pod of the relay that
// runs now: to another one after that was replaced.
func (v *View) Dial(ctx context.Context, r Relay) (net.Conn, error) {
	p, err := v.Probe(ctx, r)
	if err != nil {
		return nil, err
	}
	return portDialer(v.config, p.Namespace, r.Port)(ctx, p.Pod)
}
