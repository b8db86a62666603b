package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

const (
	pods = `{
  "apiVersion": "v1",
  "items": [
    {"apiVersion": "v1", "kind": "Pod",
      "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}, "creationTimestamp": "2023-11-14T22:00:00Z"},
      "spec": {"nodeName": "node-1", "containers": [{"name": "web", "ports": [{"containerPort": 80}]}, {"name": "proxy"}]},
      "status": {"phase": "Running", "podIP": "10.1.0.1"}},
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any", "namespace": "shop"}}
  ],
  "kind": "List"
}
`
	typed = `{
  "kind": "PodList",
  "apiVersion": "v1",
  "items": [
    {"metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}, "creationTimestamp": "2023-11-14T22:00:00Z"},
      "spec": {"nodeName": "node-1", "containers": [{"name": "web", "ports": [{"containerPort": 80}]}, {"name": "proxy"}]},
      "status": {"phase": "Running", "podIP": "10.1.0.1"}}
  ]
}
`
	api = `apiVersion: v1
kind: Pod
metadata: {name: api-1, namespace: shop, labels: {app: api}}
spec: {nodeName: node-1, containers: [{name: api}]}
status: {phase: Running, podIP: 10.1.0.2}
---
# a Service
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.2.0.1, selector: {app: api}, ports: [{port: 80, targetPort: 8080}]}
`
	flows = `{"flow":{"time":"2023-11-14T22:13:20Z","verdict":"FORWARDED","IP":{"source":"10.1.0.1","destination":"10.1.0.2","ipVersion":"IPv4"},"l4":{"TCP":{"source_port":40000,"destination_port":8080,"flags":{"SYN":true}}},"source":{"ID":1,"identity":1000,"namespace":"shop","labels":["k8s:app=web"],"pod_name":"web-1"},"destination":{"ID":2,"identity":1001,"namespace":"shop","labels":["k8s:app=api"],"pod_name":"api-1"},"Type":"L3_L4","node_name":"node-1","event_type":{"type":4,"sub_type":3},"traffic_direction":"EGRESS","is_reply":false},"node_name":"node-1","time":"2023-11-14T22:13:20Z"}
{"node_status":{"state_change":"NODE_CONNECTED","node_names":["node-1"]},"node_name":"relay","time":"2023-11-14T22:13:20Z"}

{"time":"2023-11-14T22:13:30Z","verdict":"FORWARDED","IP":{"source":"192.0.2.9","destination":"10.1.0.1"},"l4":{"TCP":{"source_port":40001,"destination_port":80,"flags":{"SYN":true}}},"source":{"identity":2,"labels":["reserved:world"]},"destination":{"ID":1,"identity":1000,"namespace":"shop","labels":["k8s:app=web"],"pod_name":"web-1"},"Type":"L3_L4","node_name":"node-1","traffic_direction":"INGRESS","is_reply":false}
`
	logs = `{"Timestamp":1700000000,"ClusterName":"default","HostName":"node-1","NamespaceName":"shop","PodName":"web-1","ContainerName":"proxy","PPID":1,"PID":7,"HostPPID":100,"HostPID":107,"ParentProcessName":"/bin/proxy","ProcessName":"/bin/proxy","Type":"ContainerLog","Source":"/bin/proxy","Operation":"File","Resource":"/etc/proxy.conf","Data":"syscall=SYS_OPENAT fd=-100 flags=O_RDONLY|O_CLOEXEC","Result":"Passed"}
`
)

// pull reads files by their content.
func pull(t *testing.T, files ...string) (behavior.Profiles, error) {
	t.Helper()
	o := Options{Namespace: "shop", Now: func() time.Time { return time.Unix(1_700_000_100, 0) }}
	for i, text := range files {
		name := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o.Files = append(o.Files, name)
	}
	r, err := New(o).Pull(context.Background())
	return r.Profiles, err
}

func words(ps behavior.Profiles) []string {
	var list []string
	for _, s := range ps.Subjects() {
		for _, o := range ps[s].Observed() {
			list = append(list, fmt.Sprintf("%s/%s: %s", s.Workload, s.Container, o.Fact))
		}
	}
	return list
}

func TestFilesOfEveryKindBecomeOneSetOfProfiles(t *testing.T) {
	known := behavior.Profile{Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Pod", Name: "api-1"}, Container: "api"}}
	known.Add(behavior.Fact{Kind: behavior.Syscall, Name: "read", Arch: "amd64"}, behavior.Evidence{Pods: map[string]uint64{"api-1": 1}})
	data, err := behavior.EncodeFile([]behavior.Profile{known})
	if err != nil {
		t.Fatal(err)
	}
	own := string(data)
	want := strings.Join([]string{
		"pod/api-1/api: calls read (amd64)",
		"pod/web-1/proxy: /bin/proxy reads /etc/proxy.conf",
		"pod/web-1/web: a program connects to shop/pod-api-1 on tcp/8080",
		"pod/web-1/web: a program is reached on tcp/80 by 192.0.2.9 (outside)",
	}, "\n")
	for name, files := range map[string][]string{
		"objects first":             {pods, api, flows, logs, own},
		"objects last":              {own, logs, flows, api, pods},
		"flows and logs in one":     {logs + flows + logs, pods, own, api},
		"objects as one line":       {compact(t, pods), flows, logs, api, own},
		"a list of one kind":        {typed, api, flows, logs, own},
		"lines that end in \\r\\n":  {pods, api, strings.ReplaceAll(flows, "\n", "\r\n"), logs, own},
		"the last line without end": {pods, api, strings.TrimSpace(flows), logs, own},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := pull(t, files...)
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(words(got), "\n"); text != want {
				t.Errorf("got\n%s\nwant\n%s", text, want)
			}
		})
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWhatCannotBeReadIsNamedWithItsLine(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		line int
		is   error
		says string
	}{
		"an empty file":                       {"", 1, ErrEmpty, ""},
		"something else":                      {"hello\n", 1, ErrUnknown, ""},
		"a line that is none of them":         {flows + `{"hello":1}` + "\n", 5, ErrUnknown, ""},
		"a line that is no JSON":              {flows + "hello\n", 5, ErrUnknown, ""},
		"a file that ends in the middle":      {flows[:len(flows)-40], 4, ErrCutOff, ""},
		"a list that ends in the middle":      {pods[:len(pods)-40], 1, ErrCutOff, ""},
		"an item that is no object":           {strings.Replace(pods, `"items": [`, `"items": [7,`, 1), 1, ErrUnknown, "item 1"},
		"a flow with a field of another kind": {strings.Replace(flows, `"node_name":"node-1"`, `"node_name":[]`, 1), 1, nil, "malformed hubble message"},
		"a log with a field of another kind":  {strings.Replace(logs, `"shop"`, `7`, 1), 1, nil, "malformed kubearmor message"},
		"a profile of another version":        {"# What was observed of this workload\napiVersion: autopolicy.dev/v9\nkind: Evidence\n", 1, nil, "autopolicy.dev/v9"},
		"a second document that is none":      {api + "---\nhello: 1\n", 13, ErrUnknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pull(t, c.text)
			var at *LineError
			if !errors.As(err, &at) {
				t.Fatalf("got %v, want a LineError", err)
			}
			if at.Line != c.line || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want line %d, %v %q", err, c.line, c.is, c.says)
			}
		})
	}
}

func TestFlowsWithoutTheirPodsAreAnErrorAndNoProfile(t *testing.T) {
	if ps, err := pull(t, flows); !errors.Is(err, ErrNoObjects) {
		t.Errorf("got %v and %v, want ErrNoObjects", words(ps), err)
	}
}

func TestLogsTellTheirPodsThemselves(t *testing.T) {
	ps, err := pull(t, logs)
	if err != nil || len(words(ps)) != 1 {
		t.Errorf("got %v and %v, want the one fact", words(ps), err)
	}
}

// FuzzRead: whatever is in a file, it is read or refused with its line.
func FuzzRead(f *testing.F) {
	for _, text := range []string{pods, typed, api, flows, logs, flows + api, "{}", "[", "---\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New(Options{Namespace: "shop", Now: func() time.Time { return time.Unix(1_700_000_100, 0) }})
		if err := s.read(context.Background(), "x", strings.NewReader(string(data))); err != nil {
			var at *LineError
			if !errors.As(err, &at) || at.Line < 1 {
				t.Fatalf("%v names no line", err)
			}
			return
		}
		for _, p := range s.hubble.Result(s.topology).Profiles {
			for fact := range p.Facts.Keys() {
				if err := fact.Validate(); err != nil {
					t.Fatalf("it states what nobody may: %v", err)
				}
			}
		}
	})
}
