package topology

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// The objects below are the parts of Kubernetes' own that matter here, in the
// API's JSON. They are written out so that the plugin does not pay for the whole
// API at every start.

// Meta is an object's metadata.
type Meta struct {
	Annotations map[string]string `json:"annotations,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Owners      []Owner           `json:"ownerReferences,omitempty"`
	Created     time.Time         `json:"creationTimestamp,omitzero"`
}

// Owner is a reference to the object that made another.
type Owner struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Controller bool   `json:"controller,omitempty"`
}

// Pod is a v1 Pod.
type Pod struct {
	Meta   Meta      `json:"metadata"`
	Spec   PodSpec   `json:"spec"`
	Status PodStatus `json:"status"`
}

// PodSpec is the part of a pod that people write.
type PodSpec struct {
	NodeName       string      `json:"nodeName,omitempty"`
	HostNetwork    bool        `json:"hostNetwork,omitempty"`
	Containers     []Container `json:"containers,omitempty"`
	InitContainers []Container `json:"initContainers,omitempty"`
}

// Container is a container of a pod, as far as its ports.
type Container struct {
	Name  string          `json:"name"`
	Ports []ContainerPort `json:"ports,omitempty"`
}

// ContainerPort is a port that a container names.
type ContainerPort struct {
	Name     string `json:"name,omitempty"`
	Port     uint16 `json:"containerPort"`
	Protocol string `json:"protocol,omitempty"`
}

// PodStatus is what became of a pod.
type PodStatus struct {
	Phase   string      `json:"phase,omitempty"`
	HostIP  string      `json:"hostIP,omitempty"`
	HostIPs []IP        `json:"hostIPs,omitempty"`
	PodIP   string      `json:"podIP,omitempty"`
	PodIPs  []IP        `json:"podIPs,omitempty"`
	Started time.Time   `json:"startTime,omitzero"`
	States  []ContState `json:"containerStatuses,omitempty"`
}

// IP is an address as the API wraps it.
type IP struct {
	IP string `json:"ip"`
}

// ContState is a container's state, as far as its end.
type ContState struct {
	State struct {
		Terminated *struct {
			Finished time.Time `json:"finishedAt,omitzero"`
		} `json:"terminated,omitempty"`
	} `json:"state"`
}

// Service is a v1 Service.
type Service struct {
	Meta Meta `json:"metadata"`
	Spec struct {
		Type          string            `json:"type,omitempty"` // empty: ClusterIP
		ExternalName  string            `json:"externalName,omitempty"`
		ClusterIP     string            `json:"clusterIP,omitempty"`
		ClusterIPs    []string          `json:"clusterIPs,omitempty"`
		ExternalIPs   []string          `json:"externalIPs,omitempty"`
		Selector      map[string]string `json:"selector,omitempty"`
		Ports         []ServicePort     `json:"ports,omitempty"`
		TrafficPolicy string            `json:"externalTrafficPolicy,omitempty"` // Local keeps the client's address
	} `json:"spec"`
	Status struct {
		LoadBalancer struct {
			Ingress []IP `json:"ingress,omitempty"`
		} `json:"loadBalancer"`
	} `json:"status"`
}

// ServicePort is a port of a Service.
type ServicePort struct {
	Name       string     `json:"name,omitempty"`
	Protocol   string     `json:"protocol,omitempty"`
	Port       uint16     `json:"port"`
	TargetPort NameOrPort `json:"targetPort,omitzero"`
	NodePort   uint16     `json:"nodePort,omitempty"`
}

// NameOrPort is a port number or the name of a container's port.
type NameOrPort struct {
	Name string
	Port uint16
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *NameOrPort) UnmarshalJSON(data []byte) error {
	*p = NameOrPort{}
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &p.Name)
	}
	return json.Unmarshal(data, &p.Port)
}

// MarshalJSON implements json.Marshaler.
func (p NameOrPort) MarshalJSON() ([]byte, error) {
	if p.Name != "" {
		return json.Marshal(p.Name)
	}
	return strconv.AppendUint(nil, uint64(p.Port), 10), nil
}

// EndpointSlice is a discovery.k8s.io/v1 EndpointSlice.
type EndpointSlice struct {
	Meta      Meta           `json:"metadata"`
	Endpoints []Endpoint     `json:"endpoints,omitempty"`
	Ports     []EndpointPort `json:"ports,omitempty"`
}

// Endpoint is one backend of a slice.
type Endpoint struct {
	Addresses []string `json:"addresses"`
	Target    *struct {
		Kind      string `json:"kind,omitempty"`
		Namespace string `json:"namespace,omitempty"`
		Name      string `json:"name,omitempty"`
	} `json:"targetRef,omitempty"`
}

// EndpointPort is the port of every backend of a slice.
type EndpointPort struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Port     uint16 `json:"port,omitempty"`
}

// Node is a v1 Node.
type Node struct {
	Meta Meta `json:"metadata"`
	Spec struct {
		PodCIDR  string   `json:"podCIDR,omitempty"`
		PodCIDRs []string `json:"podCIDRs,omitempty"`
	} `json:"spec"`
	Status struct {
		Addresses []struct {
			Type    string `json:"type"`
			Address string `json:"address"`
		} `json:"addresses,omitempty"`
	} `json:"status"`
}

// CiliumNode is what Cilium keeps of a node: the addresses from which it speaks to
// pods, which the Node does not have. Kind CiliumNode of cilium.io/v2.
type CiliumNode struct {
	Meta Meta `json:"metadata"`
	Spec struct {
		Addresses []struct {
			IP string `json:"ip"`
		} `json:"addresses,omitempty"`
	} `json:"spec"`
}

// Controller is any object that makes pods or makes what makes pods: ReplicaSet,
// Deployment, StatefulSet, DaemonSet, Job, CronJob.
type Controller struct {
	Meta Meta `json:"metadata"`
	Spec struct {
		Selector *struct {
			MatchLabels map[string]string `json:"matchLabels,omitempty"`
		} `json:"selector,omitempty"`
		Template    Template `json:"template,omitzero"`
		JobTemplate struct {
			Spec struct {
				Template Template `json:"template,omitzero"`
			} `json:"spec,omitzero"`
		} `json:"jobTemplate,omitzero"`
	} `json:"spec"`
}

// Template is a pod template, as far as its labels, and the names of what it runs
// and mounts.
type Template struct {
	Meta Meta         `json:"metadata"`
	Spec TemplateSpec `json:"spec,omitzero"`
}

// TemplateSpec is what a template lists, by name.
type TemplateSpec struct {
	Containers     []Named `json:"containers,omitempty"`
	InitContainers []Named `json:"initContainers,omitempty"`
	Volumes        []Named `json:"volumes,omitempty"`
}

// Named is anything with a name.
type Named struct {
	Name string `json:"name"`
}

// Add takes one object, or a list of objects, as JSON of the API. Kind is the
// kind of one object, also for a list of them, since the items of a list need
// not say their own; at is the time at which the API showed it. Kinds that tell
// nothing about the cluster's shape are refused.
func (c *Cluster) Add(kind string, data []byte, at time.Time) error {
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("decode %s: %w", kind, err)
	}
	if list.Items == nil {
		return c.addOne(kind, data, at)
	}
	for _, item := range list.Items {
		if err := c.addOne(kind, item, at); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) addOne(kind string, data []byte, at time.Time) error {
	var err error
	switch kind {
	case "Pod":
		err = c.addPod(data, at)
	case "Service":
		err = add(data, c.AddService)
	case "EndpointSlice":
		err = add(data, c.AddEndpointSlice)
	case "Node":
		err = add(data, c.AddNode)
	case "CiliumNode":
		err = add(data, c.AddCiliumNode)
	case "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob":
		err = add(data, func(o Controller) { c.AddController(kind, o) })
	default:
		return fmt.Errorf("object of kind %q has no place in a topology", kind)
	}
	if err != nil {
		return fmt.Errorf("decode %s: %w", kind, err)
	}
	return nil
}

// addPod adds a pod with what it may do.
func (c *Cluster) addPod(data []byte, at time.Time) error {
	var p Pod
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	seen, err := specOf(data)
	if err != nil {
		return err
	}
	c.AddPod(p, at)
	known := c.pods[name{p.Meta.Namespace, p.Meta.Name}]
	known.spec, known.made, known.cut = c.intern(seen.Pod), seen.Made, seen.Cut
	return nil
}

func add[T any](data []byte, to func(T)) error {
	var object T
	if err := json.Unmarshal(data, &object); err != nil {
		return err
	}
	to(object)
	return nil
}
