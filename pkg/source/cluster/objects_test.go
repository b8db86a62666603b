package cluster

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var update = flag.Bool("update", false, "write the golden files")

func TestTheObjectsAreTheManifestsWithImageAndDeadline(t *testing.T) {
	objects, err := Objects(Options{Version: "v1.2.3", By: "ann@laptop", Deadline: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	got, err := YAML(objects)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "objects.yaml")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("objects differ from %s; run with -update and read the diff:\n%s", golden, got)
	}
}

func TestClusterWideObjectsGoWithTheNamespace(t *testing.T) {
	objects, err := Objects(Options{Version: "v1", Deadline: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	namespace := &unstructured.Unstructured{Object: map[string]any{}}
	namespace.SetName("autopolicy-collector")
	namespace.SetUID("u-1")
	namespace.SetCreationTimestamp(metav1.NewTime(at()))
	for _, u := range objects[1:] {
		if err := own(u, namespace, 90*time.Minute); err != nil {
			t.Fatal(err)
		}
		switch u.GetKind() {
		case "ClusterRole", "ClusterRoleBinding":
			if o := u.GetOwnerReferences(); len(o) != 1 || o[0].UID != "u-1" {
				t.Errorf("%s is owned by %v", u.GetKind(), o)
			}
		case "DaemonSet":
			text, err := json.Marshal(u.Object)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), `"--deadline=2026-01-01T13:30:00Z"`) || strings.Count(string(text), "--deadline") != 1 {
				t.Errorf("deadline is wrong in %s", text)
			}
		}
	}
}

func TestOnlyAnOldKernelAddsACapability(t *testing.T) {
	for version, old := range map[string]bool{
		"5.10.0-35-cloud-amd64": true, "4.18.0-553.el8.x86_64": true, "5.11.0": false, "5.15.0-1075-azure": false, "6.18.44": false, "": false, "x": false,
	} {
		if locksMemory(version) != old {
			t.Errorf("%q is old: %t", version, !old)
		}
	}
	objects, err := Objects(Options{Version: "v1", Deadline: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := addCapability(objects, "SYS_RESOURCE"); err != nil {
			t.Fatal(err)
		}
	}
	text, err := YAML(objects)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "- SYS_RESOURCE"); n != 1 || !strings.Contains(string(text), "- BPF") {
		t.Errorf("it is there %d times in\n%s", n, text)
	}
}

func TestAMissingPermissionNamesTheRuleToAdd(t *testing.T) {
	err := &PermissionError{Missing: []Permission{
		{"create", "apps", "daemonsets", "autopolicy-collector"}, {"list", "apps", "daemonsets", ""}, {"list", "", "nodes", ""}, {"patch", "apps", "daemonsets", "autopolicy-collector"},
	}}
	if want := "not permitted to create, patch daemonsets.apps in namespace autopolicy-collector; to list daemonsets.apps in the whole cluster; to list nodes in the whole cluster"; err.Error() != want {
		t.Errorf("error is %q", err)
	}
	want := `add to a ClusterRole of yours, bound by a ClusterRoleBinding:
- apiGroups: ["apps"]
  resources: ["daemonsets"]
  verbs: [create, patch, list]
- apiGroups: [""]
  resources: ["nodes"]
  verbs: [list]`
	if err.Hint() != want {
		t.Errorf("hint is\n%s", err.Hint())
	}
}

func TestWhyACollectorIsNotReady(t *testing.T) {
	for name, c := range map[string]struct {
		status, want string
		hopeless     bool
	}{
		"an image that cannot be pulled": {
			`{"containerStatuses":[{"state":{"waiting":{"reason":"ImagePullBackOff","message":"Back-off pulling image \"x\""}}}]}`,
			`image: ImagePullBackOff: Back-off pulling image "x"`, true,
		},
		"a program that ended once may do better": {
			`{"containerStatuses":[{"state":{"terminated":{"exitCode":1,"message":"open probe: kernel has no type information (BTF)\n"}}}]}`,
			"collector ended: open probe: kernel has no type information (BTF)", false,
		},
		"a program that ends again and again": {
			`{"containerStatuses":[{"restartCount":2,"state":{"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}},"lastState":{"terminated":{"exitCode":1,"message":"open probe:\u001b[31m no"}}}]}`,
			`collector ended: open probe:\x1b[31m no`, true,
		},
		"a program that was killed for its memory": {
			`{"containerStatuses":[{"restartCount":1,"state":{"terminated":{"exitCode":137,"reason":"OOMKilled"}}}]}`,
			"collector ended with exit code 137 (OOMKilled)", true,
		},
		"a node without room": {
			`{"conditions":[{"type":"PodScheduled","status":"False","message":"0/2 nodes are available: Insufficient memory."}]}`,
			"cannot be scheduled: 0/2 nodes are available: Insufficient memory.", false,
		},
		"a pod that begins":               {`{"containerStatuses":[{"state":{"waiting":{"reason":"ContainerCreating"}}}]}`, "starting", false},
		"a pod that nobody has taken yet": {`{}`, "starting", false},
		"a container that cannot be made": {
			`{"containerStatuses":[{"state":{"waiting":{"reason":"CreateContainerError","message":"no such file"}}}]}`,
			"CreateContainerError: no such file", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var p collectorPod
			if err := json.Unmarshal([]byte(`{"spec":{"nodeName":"node-1"},"status":`+c.status+`}`), &p); err != nil {
				t.Fatal(err)
			}
			want := NodeState{Node: "node-1", Reason: c.want, Hopeless: c.hopeless}
			if got := p.state(); got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestNodesWithOneReasonAreToldTogether(t *testing.T) {
	err := &ReadyError{Nodes: []NodeState{{Node: "a", Reason: "image: x"}, {Node: "b", Reason: "image: x"}, {Reason: "waiting"}}}
	if want := "no node has a collector that works: a, b: image: x; waiting"; err.Error() != want {
		t.Errorf("got %q", err)
	}
	if !errors.Is(err, ErrNoNode) || err.Hint() == "" {
		t.Error("it is no ErrNoNode, or has no hint")
	}
}
