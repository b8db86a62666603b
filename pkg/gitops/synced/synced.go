// Package synced tells which commit of a repository a cluster runs: as Argo CD
// or Flux reports it, and by comparing the live objects with those of a commit.
//
// It only reads, with the rights of whoever asks, and knows no policy. It never
// takes a commit that was only fetched, or that failed, for one that is applied,
// and what it may not read it says.
package synced

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Target is the folder whose state in the cluster is asked for.
type Target struct {
	Repository string // URL, as whoever applies it may write it in another form
	Branch     string
	Folder     string // slash path in the repository
	// Named says who applies it: flux/NAMESPACE/NAME, argocd/NAMESPACE/NAME, or
	// none. Empty: whoever is found to.
	Named string
}

// None as Target.Named says that neither Argo CD nor Flux applies the folder.
const None = "none"

// Report is what the cluster says of a folder.
type Report struct {
	// By is who applies the folder, in words, empty when nobody was found to.
	By string
	// Revision is the full id of the commit that is applied, empty while none is.
	Revision string
	// Since is when it was applied, on the cluster's clock; zero when not said.
	Since time.Time
	// Obstacles say in words why what is committed does not come to be applied,
	// or is not healthy. Texts of the cluster in them are as it has them.
	Obstacles []string
}

// Reader reads from one cluster. Its methods may be called at the same time.
type Reader struct {
	api   dynamic.Interface
	kinds discovery.DiscoveryInterface
	clock *clock
}

// New makes a Reader and calls nobody.
func New(config *rest.Config) (*Reader, error) {
	c := &clock{}
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &clocked{next, c} })
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &Reader{api: api, kinds: kinds, clock: c}, nil
}

// Now is the API server's clock as its last answer had it, in whole seconds. What
// the cluster stamps is to be compared with this and not with a clock of
// somewhere else. Zero before the first answer.
func (r *Reader) Now() time.Time { return r.clock.now() }

// clock keeps the last date that the API server gave.
type clock struct {
	mu   sync.Mutex
	last time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

type clocked struct {
	next  http.RoundTripper
	clock *clock
}

// RoundTrip implements http.RoundTripper.
func (c *clocked) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(request)
	if err != nil {
		return response, err
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		c.clock.mu.Lock()
		c.clock.last = date.UTC()
		c.clock.mu.Unlock()
	}
	return response, nil
}

// NameError is a --synced-by that names nothing this package knows.
type NameError struct{ Name string }

// Error implements error.
func (e *NameError) Error() string { return fmt.Sprintf("synced by %q: nobody of that form", e.Name) }

// Hint says what a person can do about it.
func (e *NameError) Hint() string { return "give flux/NAMESPACE/NAME, argocd/NAMESPACE/NAME or none" }

// CheckName refuses what Target.Named cannot be.
func CheckName(name string) error {
	if name == "" || name == None {
		return nil
	}
	parts := strings.Split(name, "/")
	if len(parts) != 3 || parts[1] == "" || parts[2] == "" || parts[0] != "flux" && parts[0] != "argocd" {
		return &NameError{name}
	}
	return nil
}

// AmbiguousError is a folder that several apply.
type AmbiguousError struct {
	Folder string
	By     []string
}

// Error implements error.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("folder %s is applied by several: %s", e.Folder, strings.Join(e.By, ", "))
}

// Hint says what a person can do about it.
func (e *AmbiguousError) Hint() string { return "name the one that counts with --synced-by" }

// candidate is one that may apply the folder.
type candidate struct {
	name   string // as Target.Named has it
	path   string // that it applies, clean; "." is the whole repository
	report Report
}

// Report asks who applies the folder, and what is applied of it. Neither Argo CD
// nor Flux in the cluster, or none that applies the folder, is no error.
func (r *Reader) Report(ctx context.Context, t Target) (Report, error) {
	if err := CheckName(t.Named); err != nil || t.Named == None {
		return Report{}, err
	}
	var all []candidate
	for _, find := range []func(context.Context, Target) ([]candidate, error){r.flux, r.argocd} {
		found, err := find(ctx, t)
		if err != nil {
			return Report{}, err
		}
		all = append(all, found...)
	}
	if t.Named != "" {
		if len(all) == 0 {
			return Report{}, fmt.Errorf("read %s: there is none in the cluster", t.Named)
		}
		return all[0].report, nil
	}
	// Who applies a folder above ours may leave ours out; the nearest is meant.
	slices.SortFunc(all, func(a, b candidate) int { return depth(b.path) - depth(a.path) })
	switch {
	case len(all) == 0:
		return Report{}, nil
	case len(all) > 1 && all[0].path == all[1].path:
		e := &AmbiguousError{Folder: t.Folder}
		for _, c := range all {
			if c.path == all[0].path {
				e.By = append(e.By, c.name)
			}
		}
		slices.Sort(e.By)
		return Report{}, e
	}
	return all[0].report, nil
}

// list gives the objects of a kind in all namespaces, or the one that is named;
// none where the cluster does not have the kind.
func (r *Reader) list(ctx context.Context, gvr schema.GroupVersionResource, tool, named string) ([]unstructured.Unstructured, error) {
	if named != "" {
		parts := strings.Split(named, "/")
		if parts[0] != tool {
			return nil, nil
		}
		o, err := r.api.Resource(gvr).Namespace(parts[1]).Get(ctx, parts[2], metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", named, denied(err, "get", gvr))
		}
		return []unstructured.Unstructured{*o}, nil
	}
	l, err := r.api.Resource(gvr).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if apierrors.IsForbidden(err) {
		// A cluster without the kind answers the same to those who may not ask.
		if has, hasErr := r.has(gvr); hasErr == nil && !has {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", gvr.GroupResource(), denied(err, "list", gvr))
	}
	return l.Items, nil
}

func (r *Reader) has(gvr schema.GroupVersionResource) (bool, error) {
	l, err := r.kinds.ServerResourcesForGroupVersion(gvr.GroupVersion().String())
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(l.APIResources, func(a metav1.APIResource) bool { return a.Name == gvr.Resource }), nil
}

// DeniedError is a right that is missing.
type DeniedError struct {
	Verb     string
	Resource schema.GroupVersionResource
	Err      error
}

// Error implements error.
func (e *DeniedError) Error() string { return e.Err.Error() }

// Unwrap gives the API server's own words.
func (e *DeniedError) Unwrap() error { return e.Err }

// Hint says what a person can do about it.
func (e *DeniedError) Hint() string {
	return fmt.Sprintf("ask for the rule {apiGroups: [%q], resources: [%s], verbs: [%s]}, or say --synced-by=none", e.Resource.Group, e.Resource.Resource, e.Verb)
}

func denied(err error, verb string, gvr schema.GroupVersionResource) error {
	if apierrors.IsForbidden(err) {
		return &DeniedError{verb, gvr, err}
	}
	return err
}

// Passing tells whether an error of this package is one that ends by itself: the
// API server restarts, or does not answer now.
func Passing(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) && isNetwork(err)
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || starting(err)
}
