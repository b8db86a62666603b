package topology

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// specOf reads what a pod may do out of the pod as the API shows it.
func specOf(data []byte) (behavior.SeenSpec, error) {
	var p struct {
		Meta Meta `json:"metadata"`
		Spec struct {
			behavior.PodSpec
			Volumes        []map[string]json.RawMessage `json:"volumes"`
			InitContainers []container                  `json:"initContainers"`
			Containers     []container                  `json:"containers"`
		} `json:"spec"`
		Status struct {
			Init   []userStatus `json:"initContainerStatuses"`
			States []userStatus `json:"containerStatuses"`
		} `json:"status"`
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return behavior.SeenSpec{}, err
	}
	seen := behavior.SeenSpec{Made: behavior.Second(p.Meta.Created), Pod: p.Spec.PodSpec}
	spec := &seen.Pod
	for _, fields := range p.Spec.Volumes {
		v, err := volumeOf(fields)
		if err != nil {
			return seen, err
		}
		if !tokenVolume(v) {
			spec.Volumes = append(spec.Volumes, v)
		}
	}
	spec.InitContainers = containersOf(p.Spec.InitContainers, p.Status.Init)
	spec.Containers = containersOf(p.Spec.Containers, p.Status.States)
	seen.Cut = !spec.Bound()
	return seen, nil
}

// container is one of a pod's, with its probes and hooks.
type container struct {
	behavior.ContainerSpec
	Liveness  *handler `json:"livenessProbe"`
	Readiness *handler `json:"readinessProbe"`
	Startup   *handler `json:"startupProbe"`
	Lifecycle *struct {
		PostStart *handler `json:"postStart"`
		PreStop   *handler `json:"preStop"`
	} `json:"lifecycle"`
}

// handler is what the kubelet does in a probe or a hook, as far as whom it asks.
type handler struct {
	HTTP *struct {
		Host string `json:"host"`
	} `json:"httpGet"`
	TCP *struct {
		Host string `json:"host"`
	} `json:"tcpSocket"`
}

// userStatus is what the runtime says about who a container runs as.
type userStatus struct {
	Name string `json:"name"`
	User *struct {
		Linux *struct {
			UID *int64 `json:"uid"`
		} `json:"linux"`
	} `json:"user"`
}

func containersOf(list []container, states []userStatus) []behavior.ContainerSpec {
	all := make([]behavior.ContainerSpec, 0, len(list))
	for _, c := range list {
		spec := c.ContainerSpec
		spec.Probed, spec.Injected, spec.User = c.probed(), false, nil
		spec.Mounts = slices.DeleteFunc(spec.Mounts, func(m behavior.VolumeMount) bool {
			return tokenVolume(behavior.Volume{Name: m.Name, Kind: "projected"})
		})
		spec.Ports = slices.DeleteFunc(spec.Ports, func(p behavior.HostPort) bool { return p.Port == 0 })
		for _, s := range states {
			if s.Name == spec.Name && s.User != nil && s.User.Linux != nil {
				spec.User = s.User.Linux.UID
			}
		}
		all = append(all, spec)
	}
	return all
}

// probed lists the hosts that a container's probes and hooks name.
func (c container) probed() []string {
	handlers := []*handler{c.Liveness, c.Readiness, c.Startup}
	if c.Lifecycle != nil {
		handlers = append(handlers, c.Lifecycle.PostStart, c.Lifecycle.PreStop)
	}
	var hosts []string
	for _, h := range handlers {
		switch {
		case h == nil:
		case h.HTTP != nil && h.HTTP.Host != "":
			hosts = append(hosts, h.HTTP.Host)
		case h.TCP != nil && h.TCP.Host != "":
			hosts = append(hosts, h.TCP.Host)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// volumeOf tells the kind of a volume by the field that it has beside its name.
func volumeOf(fields map[string]json.RawMessage) (behavior.Volume, error) {
	v := behavior.Volume{Kind: "emptyDir"} // the API's default
	for field, data := range fields {
		if field == "name" {
			if err := json.Unmarshal(data, &v.Name); err != nil {
				return v, err
			}
			continue
		}
		if string(data) == "null" {
			continue
		}
		v.Kind = field
		if field == "hostPath" {
			var host struct {
				Path string `json:"path"`
			}
			if err := json.Unmarshal(data, &host); err != nil {
				return v, err
			}
			v.HostPath = host.Path
		}
	}
	return v, nil
}

// tokenVolume tells whether a volume is the one that the API server adds to every
// pod for its service account's token. Its name is another one in each pod.
func tokenVolume(v behavior.Volume) bool {
	return v.Kind == "projected" && strings.HasPrefix(v.Name, "kube-api-access-")
}

// intern keeps equal specifications once: those of a workload's pods differ in
// when they were made.
func (c *Cluster) intern(spec behavior.PodSpec) *behavior.PodSpec {
	data, err := json.Marshal(spec)
	if err != nil {
		return &spec // nothing in it can fail to be encoded
	}
	if old, ok := c.specs[string(data)]; ok {
		return old
	}
	c.specs[string(data)] = &spec
	return &spec
}

// Spec gives what a pod may do by its specification, also of a pod that is gone;
// nil of a pod that is not known. What the workload's own template does not have
// is marked as injected, where the template is known. The result may be shared
// and is not to be changed.
func (c *Cluster) Spec(namespace, podName string) *behavior.SeenSpec {
	p := c.pods[name{namespace, podName}]
	if p == nil || p.spec == nil {
		return nil
	}
	seen := behavior.SeenSpec{Made: p.made, Pod: *p.spec, Cut: p.cut}
	_, top := c.climb(p)
	if top == nil {
		return &seen
	}
	template := top.Spec.Template.Spec
	if len(template.Containers) == 0 {
		template = top.Spec.JobTemplate.Spec.Template.Spec
	}
	if len(template.Containers) == 0 {
		return &seen
	}
	mark := func(list []behavior.ContainerSpec, named []Named) []behavior.ContainerSpec {
		list = slices.Clone(list)
		for i := range list {
			list[i].Injected = !has(named, list[i].Name)
		}
		return list
	}
	seen.Pod.Containers = mark(seen.Pod.Containers, template.Containers)
	seen.Pod.InitContainers = mark(seen.Pod.InitContainers, template.InitContainers)
	seen.Pod.Volumes = slices.Clone(seen.Pod.Volumes)
	for i := range seen.Pod.Volumes {
		seen.Pod.Volumes[i].Injected = !has(template.Volumes, seen.Pod.Volumes[i].Name)
	}
	return &seen
}

func has(list []Named, name string) bool {
	return slices.ContainsFunc(list, func(n Named) bool { return n.Name == name })
}
