package podsecurity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// API of the objects.
const (
	admissionVersion = "admissionregistration.k8s.io/v1"
	admissionKind    = "ValidatingAdmissionPolicy"
	bindingKind      = "ValidatingAdmissionPolicyBinding"
	namespaceName    = "kubernetes.io/metadata.name" // the label that every namespace has
)

// object is a ValidatingAdmissionPolicy or its binding, as far as it is read and
// written here.
type object struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec objectSpec `json:"spec"`
}

type objectSpec struct {
	FailurePolicy     string       `json:"failurePolicy,omitempty"`
	Constraints       *constraints `json:"matchConstraints,omitempty"`
	Variables         []variable   `json:"variables,omitempty"`
	Validations       []validation `json:"validations,omitempty"`
	PolicyName        string       `json:"policyName,omitempty"`
	ValidationActions []string     `json:"validationActions,omitempty"`
}

type constraints struct {
	NamespaceSelector engine.Selector `json:"namespaceSelector,omitzero"`
	ObjectSelector    engine.Selector `json:"objectSelector,omitzero"`
	ResourceRules     []resourceRule  `json:"resourceRules"`
}

type resourceRule struct {
	APIGroups   []string `json:"apiGroups"`
	APIVersions []string `json:"apiVersions"`
	Operations  []string `json:"operations"`
	Resources   []string `json:"resources"`
}

type variable struct {
	Name       string `json:"name"`
	Expression string `json:"expression"`
}

type validation struct {
	Expression string `json:"expression"`
	Message    string `json:"message"`
}

// limits are what a workload's pods may and must be. In an admission policy each
// of them is a variable, whose value is JSON and CEL at once, so that a person can
// read and change it and we can read it back. Lists are sorted.
type limits struct {
	Host         []string            `json:"host"`         // hostNetwork, hostPID, hostIPC
	HostPaths    []string            `json:"hostPaths"`    // of the node, that may be mounted
	HostPorts    []int32             `json:"hostPorts"`    // of the node, that may be taken
	Privileged   []string            `json:"privileged"`   // containers that may be
	Capabilities map[string][]string `json:"capabilities"` // that containers may add, for they have them
	DropAll      []string            `json:"dropAll"`      // containers that must drop all capabilities
	Contained    []string            `json:"contained"`    // that must not be able to gain privileges
	ReadOnlyRoot []string            `json:"readOnlyRoot"` // whose root file system must be read-only
	NonRoot      []string            `json:"nonRoot"`      // that must not run as root
	Filtered     []string            `json:"filtered"`     // that must have a seccomp profile
}

// limitsOf are the tightest limits that a specification keeps.
func limitsOf(spec behavior.PodSpec) limits {
	l := limits{Host: []string{}, HostPaths: []string{}, HostPorts: []int32{}, Privileged: []string{}, Capabilities: map[string][]string{},
		DropAll: []string{}, Contained: []string{}, ReadOnlyRoot: []string{}, NonRoot: []string{}, Filtered: []string{}}
	for _, h := range hostNames() {
		if shares(spec, h) {
			l.Host = append(l.Host, h)
		}
	}
	for _, v := range spec.Volumes {
		if v.Kind == "hostPath" {
			l.HostPaths = append(l.HostPaths, v.HostPath)
		}
	}
	for _, c := range spec.All() {
		for _, p := range c.Ports {
			l.HostPorts = append(l.HostPorts, p.Port)
		}
		// An empty list, not none: null is no list to an expression.
		l.Capabilities[c.Name] = append([]string{}, slices.Compact(sorted(held(c.Security.Capabilities)))...)
		for list, is := range map[*[]string]func(behavior.PodSpec, behavior.ContainerSpec) bool{&l.Privileged: privileged, &l.DropAll: dropsAll,
			&l.Contained: contained, &l.ReadOnlyRoot: readOnlyRoot, &l.NonRoot: nonRoot, &l.Filtered: filtered} {
			if is(spec, c) {
				*list = append(*list, c.Name)
			}
		}
	}
	for _, list := range []*[]string{&l.HostPaths, &l.Privileged, &l.DropAll, &l.Contained, &l.ReadOnlyRoot, &l.NonRoot, &l.Filtered} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	slices.Sort(l.HostPorts)
	l.HostPorts = slices.Compact(l.HostPorts)
	return l
}

// held are the capabilities that a container has: to add one of them by name is no
// gain, and is what a hardened container does that keeps some of the default ones.
func held(c behavior.Capabilities) []string {
	list := slices.Clone(c.Add)
	for _, name := range defaultCapabilities() {
		if !slices.Contains(c.Drop, name) && !slices.Contains(c.Drop, "ALL") {
			list = append(list, name)
		}
	}
	return list
}

// defaultCapabilities are those that containerd gives to a container whose
// specification says nothing (oci.WithDefaultUnixCaps); CRI-O gives some fewer.
func defaultCapabilities() []string {
	return []string{"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
		"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
}

func hostNames() []string { return []string{"hostIPC", "hostNetwork", "hostPID"} }

func shares(spec behavior.PodSpec, what string) bool {
	return map[string]bool{"hostIPC": spec.HostIPC, "hostNetwork": spec.HostNetwork, "hostPID": spec.HostPID}[what]
}

func privileged(_ behavior.PodSpec, c behavior.ContainerSpec) bool {
	return isTrue(c.Security.Privileged)
}

func dropsAll(_ behavior.PodSpec, c behavior.ContainerSpec) bool {
	return slices.Contains(c.Security.Capabilities.Drop, "ALL")
}

func contained(_ behavior.PodSpec, c behavior.ContainerSpec) bool {
	return c.Security.AllowPrivilegeEscalation != nil && !*c.Security.AllowPrivilegeEscalation
}

func readOnlyRoot(_ behavior.PodSpec, c behavior.ContainerSpec) bool {
	return isTrue(c.Security.ReadOnlyRootFilesystem)
}

func nonRoot(spec behavior.PodSpec, c behavior.ContainerSpec) bool {
	if c.Security.RunAsNonRoot != nil {
		return *c.Security.RunAsNonRoot
	}
	return isTrue(spec.Security.RunAsNonRoot)
}

func filtered(spec behavior.PodSpec, c behavior.ContainerSpec) bool {
	p := c.Security.Seccomp
	if p == nil {
		p = spec.Security.Seccomp
	}
	return p != nil && p.Type != "Unconfined"
}

// check is one validation: in CEL, and what it means for a specification.
type check struct {
	expression string
	message    string
	broken     func(limits, behavior.PodSpec) bool
}

// checks are the validations of every policy.
func checks() []check {
	must := func(list func(limits) []string, is func(behavior.PodSpec, behavior.ContainerSpec) bool) func(limits, behavior.PodSpec) bool {
		return func(l limits, spec behavior.PodSpec) bool {
			return slices.ContainsFunc(spec.All(), func(c behavior.ContainerSpec) bool { return slices.Contains(list(l), c.Name) && !is(spec, c) })
		}
	}
	list := []check{{
		expression: `object.spec.?volumes.orValue([]).all(v, !has(v.hostPath) || v.hostPath.path in variables.hostPaths)`,
		message:    "mounts a folder of the node that this workload's pods did not",
		broken: func(l limits, spec behavior.PodSpec) bool {
			return slices.ContainsFunc(spec.Volumes, func(v behavior.Volume) bool {
				return v.Kind == "hostPath" && !slices.Contains(l.HostPaths, v.HostPath)
			})
		},
	}, {
		expression: `variables.containers.all(c, c.?ports.orValue([]).all(p, p.?hostPort.orValue(0) == 0 || p.hostPort in variables.hostPorts))`,
		message:    "takes a port of the node that this workload's pods did not",
		broken: func(l limits, spec behavior.PodSpec) bool {
			return slices.ContainsFunc(spec.All(), func(c behavior.ContainerSpec) bool {
				return slices.ContainsFunc(c.Ports, func(p behavior.HostPort) bool { return !slices.Contains(l.HostPorts, p.Port) })
			})
		},
	}, {
		expression: `variables.containers.all(c, !c.?securityContext.?privileged.orValue(false) || c.name in variables.privileged)`,
		message:    "has a privileged container that was not",
		broken: func(l limits, spec behavior.PodSpec) bool {
			return slices.ContainsFunc(spec.All(), func(c behavior.ContainerSpec) bool {
				return privileged(spec, c) && !slices.Contains(l.Privileged, c.Name)
			})
		},
	}, {
		expression: `variables.containers.all(c, c.?securityContext.?capabilities.?add.orValue([]).all(a, c.name in variables.capabilities && a in variables.capabilities[c.name]))`,
		message:    "adds a capability that it did not have",
		broken: func(l limits, spec behavior.PodSpec) bool {
			return slices.ContainsFunc(spec.All(), func(c behavior.ContainerSpec) bool {
				return slices.ContainsFunc(c.Security.Capabilities.Add, func(a string) bool { return !slices.Contains(l.Capabilities[c.Name], a) })
			})
		},
	}, {
		expression: `variables.containers.all(c, !(c.name in variables.dropAll) || "ALL" in c.?securityContext.?capabilities.?drop.orValue([]))`,
		message:    "has a container that does not drop all capabilities, as it did",
		broken:     must(func(l limits) []string { return l.DropAll }, dropsAll),
	}, {
		expression: `variables.containers.all(c, !(c.name in variables.contained) || !c.?securityContext.?allowPrivilegeEscalation.orValue(true))`,
		message:    "has a container that may gain privileges, which it could not",
		broken:     must(func(l limits) []string { return l.Contained }, contained),
	}, {
		expression: `variables.containers.all(c, !(c.name in variables.readOnlyRoot) || c.?securityContext.?readOnlyRootFilesystem.orValue(false))`,
		message:    "has a container whose root file system is not read-only, as it was",
		broken:     must(func(l limits) []string { return l.ReadOnlyRoot }, readOnlyRoot),
	}, {
		expression: `variables.containers.all(c, !(c.name in variables.nonRoot) || c.?securityContext.?runAsNonRoot.orValue(object.spec.?securityContext.?runAsNonRoot.orValue(false)))`,
		message:    "has a container that may run as root, which it could not",
		broken:     must(func(l limits) []string { return l.NonRoot }, nonRoot),
	}, {
		expression: `variables.containers.all(c, !(c.name in variables.filtered) || c.?securityContext.?seccompProfile.?type.orValue(object.spec.?securityContext.?seccompProfile.?type.orValue("Unconfined")) != "Unconfined")`,
		message:    "has a container without a seccomp profile, which it had",
		broken:     must(func(l limits) []string { return l.Filtered }, filtered),
	}}
	for _, h := range hostNames() {
		list = append(list, check{
			expression: fmt.Sprintf(`!object.spec.?%s.orValue(false) || "%[1]s" in variables.host`, h),
			message:    "shares " + h + " with the node, which this workload's pods did not",
			broken:     func(l limits, spec behavior.PodSpec) bool { return shares(spec, h) && !slices.Contains(l.Host, h) },
		})
	}
	return list
}

// allContainers is the variable that all validations are about.
const allContainers = `dyn(object.spec.containers) + dyn(object.spec.?initContainers.orValue([])) + dyn(object.spec.?ephemeralContainers.orValue([]))`

// ObjectName is the name of a workload's admission policy and of its binding,
// which are objects of the whole cluster.
func ObjectName(w behavior.Workload) string {
	name := "autopolicy-" + w.Namespace + "-" + w.Slug()
	if len(name) <= 253 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:236] + "-" + hex.EncodeToString(sum[:8])
}

// admission renders the policy that holds the workload's pods to what they are.
func (h *hardening) admission() ([]byte, error) {
	w := h.set.Workload
	if len(h.set.Labels) == 0 || !engine.ValidLabels(h.set.Labels) {
		h.note("", "its pods carry no lasting label by which an admission policy could tell them, so that there is none")
		return nil, nil
	}
	policy := object{APIVersion: admissionVersion, Kind: admissionKind}
	policy.Metadata.Name = ObjectName(w)
	policy.Spec = objectSpec{
		FailurePolicy: "Fail",
		Constraints: &constraints{
			NamespaceSelector: engine.Selector{MatchLabels: map[string]string{namespaceName: w.Namespace}},
			ObjectSelector:    engine.Selector{MatchLabels: h.set.Labels},
			ResourceRules: []resourceRule{{APIGroups: []string{""}, APIVersions: []string{"v1"}, Operations: []string{"CREATE", "UPDATE"},
				Resources: []string{"pods", "pods/ephemeralcontainers"}}},
		},
	}
	var err error
	if policy.Spec.Variables, err = variables(limitsOf(h.spec)); err != nil {
		return nil, fmt.Errorf("write admission policy of %s: %w", w, err)
	}
	for _, c := range checks() {
		policy.Spec.Validations = append(policy.Spec.Validations, validation{c.expression, fmt.Sprintf("pod of %s %s", w, c.message)})
	}
	binding := object{APIVersion: admissionVersion, Kind: bindingKind}
	binding.Metadata.Name = ObjectName(w)
	binding.Spec = objectSpec{PolicyName: ObjectName(w), ValidationActions: []string{"Deny"}}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Holds new pods of %s to what its pods are allowed today. Written by kubectl autopolicy.\n", w)
	for i, o := range []object{policy, binding} {
		if i > 0 {
			b.WriteString("---\n")
		}
		data, err := yaml.Marshal(o)
		if err != nil {
			return nil, fmt.Errorf("write admission policy of %s: %w", w, err)
		}
		b.Write(data)
	}
	return b.Bytes(), nil
}

// variables are the limits as an admission policy holds them, in order of name,
// after the containers that they are about.
func variables(l limits) ([]variable, error) {
	data, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	list := []variable{{"containers", allContainers}}
	for _, name := range slices.Sorted(keys(fields)) {
		list = append(list, variable{name, string(fields[name])})
	}
	return list, nil
}
