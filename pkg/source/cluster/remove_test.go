package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/rest"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

// deployed gives a cluster with the objects of the run whose namespace has a UID.
func deployed(uid types.UID) *fake.FakeDynamicClient {
	owner := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: manifests.Namespace, UID: uid}}
	var objects []runtime.Object
	for _, o := range []struct {
		version, kind, name string
		uid                 types.UID
		owners              []metav1.OwnerReference
	}{
		{"v1", "Namespace", manifests.Namespace, uid, nil},
		{"rbac.authorization.k8s.io/v1", "ClusterRole", manifests.Role, "role-of-" + uid, owner},
		{"rbac.authorization.k8s.io/v1", "ClusterRoleBinding", manifests.Role, "binding-of-" + uid, owner},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": o.version, "kind": o.kind}}
		u.SetName(o.name)
		u.SetUID(o.uid)
		u.SetLabels(map[string]string{managedBy: manifests.ManagedBy})
		u.SetOwnerReferences(o.owners)
		objects = append(objects, u)
	}
	return fake.NewSimpleDynamicClient(runtime.NewScheme(), objects...)
}

func TestARunRemovesItsOwnCollectorOnly(t *testing.T) {
	all := []string{"clusterrolebinding/autopolicy-collector", "clusterrole/autopolicy-collector", "namespace/autopolicy-collector"}
	for name, c := range map[string]struct {
		uid  types.UID // of this run
		want []string
	}{
		"its own":                             {"this", all},
		"another's, which was deployed since": {"earlier", nil},
		"anybody's, when it deployed none":    {"", all},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Source{api: deployed("this"), uid: c.uid}
			removed, err := s.Remove(t.Context())
			if err != nil || !slices.Equal(removed, c.want) {
				t.Errorf("removed %v, %v; want %v", removed, err, c.want)
			}
		})
	}
}

func TestAnObservationEndsWhenItsCollectorIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		uid  types.UID
		gone bool
	}{
		"it is there":                             {"this", false},
		"another run's is there instead":          {"earlier", true},
		"this run deployed none, and cannot tell": {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Source{api: deployed("this"), uid: c.uid, options: Options{Now: time.Now}}
			if err := s.stillThere(t.Context()); errors.Is(err, ErrRemoved) != c.gone {
				t.Errorf("got %v", err)
			}
		})
	}
	s := &Source{api: fake.NewSimpleDynamicClient(runtime.NewScheme()), uid: "this"}
	if err := s.stillThere(t.Context()); !errors.Is(err, ErrRemoved) {
		t.Errorf("without a namespace: %v", err)
	}
}

func TestAnErrorIsTheReasonWithoutWhatGRPCPutsAroundIt(t *testing.T) {
	for name, c := range map[string]struct{ message, want string }{
		"a connection that cannot be made": {
			`connection error: desc = "transport: Error while dialing: port-forward to c: pods \"c\" not found"`, `port-forward to c: pods "c" not found`,
		},
		"another reason":       {`collector is busy`, `collector is busy`},
		"a quote that is open": {`connection error: desc = "x`, `connection error: desc = "x`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := plain(status.Error(codes.Unavailable, c.message)); err.Error() != c.want {
				t.Errorf("got %s", err)
			}
		})
	}
}

func TestAnInterruptedDeploymentKnowsWhatItCreated(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/api/v1/namespaces" {
			t.Errorf("%s %s after the interrupt", r.Method, r.URL.Path)
		}
		cancel() // while the server is at it
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"autopolicy-collector","uid":"mine"}}`)
	}))
	defer server.Close()
	s, err := New(Options{Config: &rest.Config{Host: server.URL}, Deadline: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Deploy(ctx); !errors.Is(err, context.Canceled) || s.uid != "mine" {
		t.Errorf("got %v, and namespace %q", err, s.uid)
	}
}
