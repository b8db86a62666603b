// Package cluster observes a namespace of a cluster by collectors that it
// deploys, pulls from and removes again.
//
// It must never leave anything behind without saying so, deploy anything before
// it knows that it may remove it, or take a node that does not answer for one
// where nothing happened.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
)

// Options say what to observe, and with what.
type Options struct {
	Config    *rest.Config
	Namespace string // to observe
	Version   string // of the plugin; the image's tag when Image is empty
	Image     string // of the collector
	By        string // who deploys it, for whoever meets it in the cluster
	// Deadline is how long the collector may stay if nobody removes it.
	Deadline time.Duration
	// NodeTimeout is how long a node's collector may take to be ready; 2 minutes
	// when zero.
	NodeTimeout time.Duration
	// Restart says that Restart will be called, so that Check asks for the right
	// to do so.
	Restart bool
	Now     func() time.Time
}

// defaultNodeTimeout leaves time for an image to be pulled.
const defaultNodeTimeout = 2 * time.Minute

// Source observes one namespace of one cluster. Its methods are called one after
// the other: Check, Deploy, WaitReady, Observe, Pull, and Remove in any case.
type Source struct {
	options Options
	api     dynamic.Interface
	dial    dialer
	picture *picture

	// uid of the namespace that Deploy created tells this run's collector from
	// another's; empty when there is none.
	uid types.UID

	mu    sync.Mutex
	nodes map[string]*node
}

var _ source.Source = (*Source)(nil)

// New makes a Source and calls nobody.
func New(o Options) (*Source, error) {
	if o.NodeTimeout == 0 {
		o.NodeTimeout = defaultNodeTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	config := rest.CopyConfig(o.Config)
	// As kubectl does: the server has its own fairness.
	config.QPS, config.Burst = 50, 300
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster: %w", err)
	}
	return &Source{options: o, api: api, dial: tunnelDialer(config), picture: newPicture(o.Now), nodes: map[string]*node{}}, nil
}

// resource names a resource of the API.
func resource(group, version, name string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: group, Version: version, Resource: name}
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Errors of a run. An ErrX is wrapped by what says more.
var (
	ErrNoPods      = errors.New("namespace has no pods")
	ErrNoNamespace = errors.New("namespace does not exist")
	ErrNoNode      = errors.New("no node has a collector that works")
	ErrRemoved     = errors.New("somebody else removed the collector")
	ErrRemains     = errors.New("something of the collector remains")
)
