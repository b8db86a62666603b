package topology_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestSpecOfAPod(t *testing.T) {
	c := shop(t)
	put(t, c, "Deployment", object{"metadata": meta("shop", "web", nil), "spec": object{"selector": object{"matchLabels": map[string]string{"app": "web"}},
		"template": object{"spec": object{"containers": []object{{"name": "web"}}, "volumes": []object{{"name": "data"}}}}}})
	web := pod("shop", "web-5d4f-a", "10.1.1.10", labels("web"), owner("ReplicaSet", "web-5d4f"))
	web["metadata"].(object)["creationTimestamp"] = "2026-03-01T10:00:00Z"
	web["spec"] = object{
		"hostPID":         true,
		"securityContext": object{"runAsUser": 1000, "fsGroup": 7},
		"volumes": []object{
			{"name": "data"}, {"name": "node", "hostPath": object{"path": "/var/log\x1b[31m"}},
			{"name": "kube-api-access-x7f2p", "projected": object{"sources": []object{}}}, {"name": "c", "configMap": object{"name": "x"}, "emptyDir": nil},
		},
		"initContainers": []object{{"name": "first"}},
		"containers": []object{{
			"name": "web", "image": "web:1",
			"securityContext": object{"capabilities": object{"add": []string{"NET_ADMIN"}}, "privileged": false},
			"volumeMounts":    []object{{"name": "data", "mountPath": "/data", "readOnly": true}, {"name": "kube-api-access-x7f2p", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}},
			"ports":           []object{{"containerPort": 80}, {"containerPort": 81, "hostPort": 8081}},
			"livenessProbe":   object{"httpGet": object{"host": "192.0.2.1", "port": 80}}, "lifecycle": object{"preStop": object{"tcpSocket": object{"port": 1}}},
		}, {"name": "sidecar"}},
	}
	web["status"] = object{"podIP": "10.1.1.10", "containerStatuses": []object{{"name": "web", "user": object{"linux": object{"uid": 1000}}}}}
	put(t, c, "Pod", web)
	uid, no := int64(1000), false
	want := &behavior.SeenSpec{Made: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), Pod: behavior.PodSpec{
		HostPID: true, Security: behavior.PodSecurity{RunAsUser: &uid},
		Volumes: []behavior.Volume{{Name: "data", Kind: "emptyDir"}, {Name: "node", Kind: "hostPath", HostPath: `/var/log\x1b[31m`, Injected: true},
			{Name: "c", Kind: "configMap", Injected: true}},
		InitContainers: []behavior.ContainerSpec{{Name: "first", Injected: true}},
		Containers: []behavior.ContainerSpec{{
			Name: "web", User: &uid, Probed: []string{"192.0.2.1"}, Ports: []behavior.HostPort{{Port: 8081}},
			Security: behavior.ContainerSecurity{Privileged: &no, Capabilities: behavior.Capabilities{Add: []string{"NET_ADMIN"}}},
			Mounts:   []behavior.VolumeMount{{Name: "data", Path: "/data", ReadOnly: true}},
		}, {Name: "sidecar", Injected: true}},
	}}
	got := c.Spec("shop", "web-5d4f-a")
	if got == nil {
		t.Fatal("the pod has no specification")
	}
	if !behavior.SameSpec(got, want) || !got.Made.Equal(want.Made) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
	if got := c.Spec("shop", "nobody"); got != nil {
		t.Errorf("a pod that is not known has specification %+v", got)
	}
	c.RemovePod("shop", "web-5d4f-a", time.Now())
	if got := c.Spec("shop", "web-5d4f-a"); got == nil || !reflect.DeepEqual(got.Pod.Volumes, want.Pod.Volumes) {
		t.Errorf("a pod that is gone is forgotten: %+v", got)
	}
}
