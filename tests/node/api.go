//go:build linux

// Package node stands in for as much of a Kubernetes node as the real collector
// needs where there is no cluster: an API server that lists and watches pods which
// the caller makes up, and the collector in surroundings in which it finds that
// server. It must not change what the collector does.
package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// API is as much of a Kubernetes API server as the collector asks for: it lists
// and watches pods. What else is asked for is an empty list. It is safe for
// concurrent use.
type API struct {
	Port string // on loopback
	CA   []byte // PEM

	mu     sync.Mutex
	events []event
	news   chan struct{} // closed, and made anew, with each event
	stop   func()
}

// event is the watch's; its resource version is its place in the list, from one.
type event struct {
	kind watch.EventType
	pod  corev1.Pod
}

// Serve starts an API server without pods; the caller stops it.
func Serve() (*API, error) {
	certificate, ca, err := selfSigned()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve pods: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &API{CA: ca, news: make(chan struct{})}
	server := &http.Server{
		Handler:           a,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}},
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	a.stop = func() {
		cancel()
		server.Close()
		<-done
	}
	_, a.Port, err = net.SplitHostPort(listener.Addr().String())
	return a, err
}

// New gives an API server that is not served: a handler.
func New() *API { return &API{news: make(chan struct{})} }

// Stop ends the server and every watch.
func (a *API) Stop() { a.stop() }

// Set adds pods, or says what became of them.
func (a *API) Set(pods ...corev1.Pod) { a.tell(watch.Modified, pods) }

// Delete says that pods are gone.
func (a *API) Delete(pods ...corev1.Pod) { a.tell(watch.Deleted, pods) }

func (a *API) tell(kind watch.EventType, pods []corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, pod := range pods {
		e := event{kind, *pod.DeepCopy()}
		if kind == watch.Modified && !slices.ContainsFunc(a.pods(), func(p corev1.Pod) bool { return p.UID == pod.UID }) {
			e.kind = watch.Added
		}
		e.pod.ResourceVersion = strconv.Itoa(len(a.events) + 1)
		a.events = append(a.events, e)
	}
	close(a.news)
	a.news = make(chan struct{})
}

// pods are those that are there now, in the order in which they came. The caller
// holds the lock.
func (a *API) pods() []corev1.Pod {
	last := map[types.UID]event{}
	for _, e := range a.events {
		last[e.pod.UID] = e
	}
	list := []corev1.Pod{}
	for _, e := range a.events {
		if l := last[e.pod.UID]; e.kind == watch.Added && l.kind != watch.Deleted {
			list = append(list, l.pod)
		}
	}
	return list
}

// since gives the events after a version, and what closes when there are more.
func (a *API) since(version int) ([]event, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events[min(version, len(a.events)):]), a.news
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	a.mu.Lock()
	items, kind, version := []corev1.Pod{}, "List", len(a.events)
	ofPods := strings.HasSuffix(r.URL.Path, "/pods")
	if ofPods {
		items, kind = a.pods(), "PodList"
	}
	a.mu.Unlock()
	if r.URL.Query().Get("watch") == "" {
		// An error here is the client's going away.
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": kind, "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": strconv.Itoa(version)}, "items": items})
		return
	}
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		if err := initialEvents(w, items, version); err != nil {
			return
		}
	} else if from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion")); err == nil && from > 0 {
		version = from
	}
	a.follow(w, r, version, ofPods)
}

// follow streams what happens after a version until the client goes away.
func (a *API) follow(w http.ResponseWriter, r *http.Request, version int, pods bool) {
	encoder := json.NewEncoder(w)
	for {
		events, news := a.since(version)
		for _, e := range events {
			if !pods {
				break
			}
			if err := encoder.Encode(map[string]any{"type": e.kind, "object": e.pod}); err != nil {
				return
			}
		}
		version += len(events)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case <-r.Context().Done():
			return
		case <-news:
		}
	}
}

func initialEvents(w http.ResponseWriter, pods []corev1.Pod, version int) error {
	encoder := json.NewEncoder(w)
	for _, pod := range pods {
		if err := encoder.Encode(map[string]any{"type": watch.Added, "object": pod}); err != nil {
			return err
		}
	}
	return encoder.Encode(map[string]any{"type": watch.Bookmark, "object": map[string]any{"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{
		"resourceVersion": strconv.Itoa(version), "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"}}}})
}

func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make certificate: %w", err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("make certificate: %w", err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certificate, err := tls.X509KeyPair(ca, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))
	return certificate, ca, errors.Join(err)
}
