package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
)

type values = map[string]any

// shopOf gives a source whose API server holds these objects of namespace shop,
// each as KIND/NAME with what it has beside the usual.
func shopOf(t *testing.T, objects map[string]values) *Source {
	t.Helper()
	lists := map[schema.GroupVersionResource]string{resource("policy", "v1", "poddisruptionbudgets"): "PodDisruptionBudgetList"}
	for _, k := range append(kinds(), extras()...) {
		lists[k.resource] = k.name + "List"
	}
	var list []runtime.Object
	for key, o := range objects {
		kind, name, _ := strings.Cut(key, "/")
		u := &unstructured.Unstructured{}
		data, err := json.Marshal(o) // numbers as the API gives them
		if err == nil {
			err = json.Unmarshal(data, &u.Object)
		}
		if err != nil {
			t.Fatal(err)
		}
		version := map[string]string{"Pod": "v1", "PodDisruptionBudget": "policy/v1"}[kind]
		if version == "" {
			version = "apps/v1"
		}
		u.SetAPIVersion(version)
		u.SetKind(kind)
		u.SetNamespace("shop")
		u.SetName(name)
		list = append(list, u)
	}
	return &Source{api: fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), lists, list...),
		options: Options{Namespace: "shop", Now: at}, picture: newPicture(at), nodes: map[string]*node{}}
}

// spec is a workload's, with more beside its selector.
func spec(app string, more values) values {
	o := values{"selector": values{"matchLabels": values{"app": app}}, "template": values{"metadata": values{"labels": values{"app": app}}}}
	for k, v := range more {
		o[k] = v
	}
	return values{"spec": o}
}

func TestWhatIsLeftByARestartIsNamedWithWhy(t *testing.T) {
	daemons := spec("daemons", nil)
	daemons["status"] = values{"desiredNumberScheduled": 2}
	owned := spec("owned", nil)
	owned["metadata"] = values{"ownerReferences": []any{values{"apiVersion": "x/v1", "kind": "Shop", "name": "s", "uid": "u", "controller": true}}}
	s := shopOf(t, map[string]values{
		"Deployment/web":          spec("web", values{"replicas": 2}),
		"Deployment/paused":       spec("paused", values{"paused": true}),
		"Deployment/none":         spec("none", values{"replicas": 0}),
		"Deployment/recreated":    spec("recreated", values{"replicas": 3, "strategy": values{"type": "Recreate"}}),
		"Deployment/owned":        owned,
		"StatefulSet/store":       spec("store", values{"replicas": 1}),
		"StatefulSet/by-hand":     spec("by-hand", values{"updateStrategy": values{"type": "OnDelete"}}),
		"StatefulSet/partly":      spec("partly", values{"replicas": 3, "updateStrategy": values{"rollingUpdate": values{"partition": 2}}}),
		"StatefulSet/kept":        spec("kept", values{"replicas": 3, "updateStrategy": values{"rollingUpdate": values{"partition": 3}}}),
		"DaemonSet/daemons":       daemons,
		"PodDisruptionBudget/web": {"spec": values{"selector": values{"matchLabels": values{"app": "web"}}}},
		"Pod/alone":               {"status": values{"phase": "Running"}},
		"Pod/job-x":               {"metadata": values{"ownerReferences": []any{values{"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": "u", "controller": true}}}, "status": values{"phase": "Running"}},
		"Pod/over":                {"status": values{"phase": "Succeeded"}},
	})
	list, err := s.Rollouts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range list {
		got[r.Workload.String()] = strings.Join(append([]string{r.Left}, r.Notes...), "|")
	}
	want := map[string]string{
		"deployment/web":       "|PodDisruptionBudget web does not hold a rollout back; the workload's own strategy does",
		"deployment/paused":    "it is paused: 'kubectl rollout resume' first",
		"deployment/none":      "it has no pods",
		"deployment/recreated": "|its strategy is Recreate: all of its pods end before new ones start",
		"deployment/owned":     "|Shop s controls it, and may take the restart back",
		"statefulset/store":    "|it has one pod, which is gone until the new one is ready",
		"statefulset/by-hand":  "its update strategy is OnDelete: its pods are replaced when somebody deletes them|it has one pod, which is gone until the new one is ready",
		"statefulset/partly":   "|its partition is 2: pods below that number are not replaced",
		"statefulset/kept":     "its partition of 3 keeps all of its pods as they are|its partition is 3: pods below that number are not replaced",
		"daemonset/daemons":    "",
		"pod/alone":            "a Pod has no rollout to restart",
		"job/job":              "a Job has no rollout to restart",
	}
	if !reflect.DeepEqual(got, want) {
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s: got %q, want %q", name, got[name], want[name])
			}
		}
		t.Errorf("got %d workloads, want %d", len(got), len(want))
	}
	if !slices.IsSortedFunc(list, func(a, b Rollout) int { return strings.Compare(a.Workload.Slug(), b.Workload.Slug()) }) {
		t.Error("not sorted")
	}
}

func TestARestartWaitsAndNamesThePodsThatAreNotReady(t *testing.T) {
	web := spec("web", values{"replicas": 1})
	web["status"] = values{"replicas": 2, "updatedReplicas": 1, "availableReplicas": 1}
	s := shopOf(t, map[string]values{
		"Deployment/web":    web,
		"Deployment/paused": spec("paused", values{"paused": true}),
		"Pod/web-1":         {"metadata": values{"labels": values{"app": "web"}}, "status": values{"phase": "Running", "conditions": []any{values{"type": "Ready", "status": "True"}}}},
		"Pod/web-2": {"metadata": values{"labels": values{"app": "web"}}, "status": values{"phase": "Pending", "containerStatuses": []any{
			values{"name": "web", "state": values{"waiting": values{"reason": "ErrImagePull", "message": "no\nsuch \x1b[31mimage"}}}}}},
		"Pod/api-1": {"metadata": values{"labels": values{"app": "api"}}, "status": values{"phase": "Pending"}},
	})
	list, err := s.Rollouts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deployments := s.api.Resource(resource("apps", "v1", "deployments")).Namespace("shop")
	var shown [][]RolloutState
	states, err := s.Restart(t.Context(), list, func(states []RolloutState) {
		shown = append(shown, states)
		u, err := deployments.Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if at, _, _ := unstructured.NestedString(u.Object, "spec", "template", "metadata", "annotations", restartedAt); at != "2026-01-01T12:00:00Z" {
			t.Errorf("it was restarted at %q", at)
		}
		u.Object["status"] = map[string]any{"replicas": int64(1), "updatedReplicas": int64(1), "availableReplicas": int64(1)}
		if _, err := deployments.Update(t.Context(), u, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(shown) != 2 || len(states) != 1 || !states[0].Done {
		t.Fatalf("shown %+v, ended with %+v", shown, states)
	}
	if first := shown[0][0]; first.Waits != "1 old pods to end" || len(first.NotReady) != 1 || first.NotReady[0] != `web-2: ErrImagePull: no such \x1b[31mimage` {
		t.Errorf("first shown is %+v", first)
	}
	if u, err := deployments.Get(t.Context(), "paused", metav1.GetOptions{}); err != nil || len(u.GetAnnotations()) > 0 {
		t.Errorf("what is to be left was touched: %v, %v", u, err)
	}
}

func TestARestartThatIsInterruptedEnds(t *testing.T) {
	web := spec("web", values{"replicas": 1})
	s := shopOf(t, map[string]values{"Deployment/web": web})
	list, err := s.Rollouts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.Restart(ctx, list, func([]RolloutState) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestARestartGivesUpAtTheEndOfItsTime(t *testing.T) {
	s := shopOf(t, map[string]values{"Deployment/web": spec("web", values{"replicas": 1})})
	list, err := s.Rollouts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	late := false
	s.options.Now = func() time.Time {
		if late {
			return at().Add(RolloutTimeout + time.Second)
		}
		return at()
	}
	states, err := s.Restart(t.Context(), list, func([]RolloutState) { late = true })
	if err != nil || len(states) != 1 || states[0].Done || states[0].Waits != "1 of 1 new pods to be made" {
		t.Errorf("got %+v, %v", states, err)
	}
}

func TestWhatARolloutWaitsFor(t *testing.T) {
	for name, c := range map[string]struct {
		kind, status, want string
		failed             bool
	}{
		"the controller has not seen it":        {"Deployment", `{"metadata":{"generation":2},"status":{"observedGeneration":1}}`, "its controller to see the change", false},
		"a deployment is done":                  {"Deployment", `{"spec":{"replicas":2},"status":{"replicas":2,"updatedReplicas":2,"availableReplicas":2}}`, "", false},
		"a deployment's new pods are not ready": {"Deployment", `{"spec":{"replicas":2},"status":{"replicas":2,"updatedReplicas":2,"availableReplicas":1}}`, "1 of 2 new pods to be ready", false},
		"a deployment is over its deadline":     {"Deployment", `{"spec":{"replicas":2},"status":{"replicas":2,"updatedReplicas":1,"conditions":[{"type":"Progressing","reason":"ProgressDeadlineExceeded"}]}}`, "1 of 2 new pods to be made", true},
		"a stateful set is done":                {"StatefulSet", `{"spec":{"replicas":2},"status":{"updatedReplicas":2,"readyReplicas":2,"currentRevision":"b","updateRevision":"b"}}`, "", false},
		"a stateful set goes on":                {"StatefulSet", `{"spec":{"replicas":2},"status":{"updatedReplicas":1,"readyReplicas":2,"currentRevision":"a","updateRevision":"b"}}`, "1 of 2 pods to be replaced", false},
		"a stateful set has a partition":        {"StatefulSet", `{"spec":{"replicas":3,"updateStrategy":{"rollingUpdate":{"partition":2}}},"status":{"updatedReplicas":1,"readyReplicas":3,"currentRevision":"a","updateRevision":"b"}}`, "", false},
		"a daemon set goes on":                  {"DaemonSet", `{"status":{"desiredNumberScheduled":3,"updatedNumberScheduled":2}}`, "1 of 3 pods to be replaced", false},
		"a daemon set's pod is not ready":       {"DaemonSet", `{"status":{"desiredNumberScheduled":3,"updatedNumberScheduled":3,"numberAvailable":2}}`, "1 of 3 pods to be ready", false},
	} {
		t.Run(name, func(t *testing.T) {
			var o controller
			if err := json.Unmarshal([]byte(c.status), &o); err != nil {
				t.Fatal(err)
			}
			if got, failed := o.waits(c.kind); got != c.want || failed != c.failed {
				t.Errorf("got %q, %t", got, failed)
			}
		})
	}
}

func TestRestartingNeedsItsOwnRights(t *testing.T) {
	more := needed("shop")[len(needed(""))-2 : len(needed("shop"))-2]
	e := &PermissionError{Missing: more}
	const want = "not permitted to patch deployments.apps in namespace shop; to patch statefulsets.apps in namespace shop; to patch daemonsets.apps in namespace shop; to list poddisruptionbudgets.policy in namespace shop"
	if e.Error() != want {
		t.Errorf("got  %s\nwant %s", e, want)
	}
}
