package behavior

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// PodSpec is the part of a pod's specification that bears on what its containers
// may do, in the API's own JSON, so that it can be given to whoever reads that.
// Every string in it is in the form of Escape, and it is bounded (see Bound).
type PodSpec struct {
	HostNetwork bool  `json:"hostNetwork,omitempty"`
	HostPID     bool  `json:"hostPID,omitempty"`
	HostIPC     bool  `json:"hostIPC,omitempty"`
	HostUsers   *bool `json:"hostUsers,omitempty"`

	Security       PodSecurity     `json:"securityContext,omitzero"`
	Volumes        []Volume        `json:"volumes,omitempty"`
	InitContainers []ContainerSpec `json:"initContainers,omitempty"`
	Containers     []ContainerSpec `json:"containers,omitempty"`
}

// PodSecurity is what holds for each container that does not say otherwise.
type PodSecurity struct {
	RunAsUser    *int64           `json:"runAsUser,omitempty"`
	RunAsGroup   *int64           `json:"runAsGroup,omitempty"`
	RunAsNonRoot *bool            `json:"runAsNonRoot,omitempty"`
	Seccomp      *SecurityProfile `json:"seccompProfile,omitempty"`
	AppArmor     *SecurityProfile `json:"appArmorProfile,omitempty"`
	SELinux      *SELinux         `json:"seLinuxOptions,omitempty"`
	Windows      *Windows         `json:"windowsOptions,omitempty"`
	Sysctls      []Sysctl         `json:"sysctls,omitempty"`
}

// ContainerSecurity is what holds for one container.
type ContainerSecurity struct {
	Privileged               *bool            `json:"privileged,omitempty"`
	AllowPrivilegeEscalation *bool            `json:"allowPrivilegeEscalation,omitempty"`
	ReadOnlyRootFilesystem   *bool            `json:"readOnlyRootFilesystem,omitempty"`
	RunAsUser                *int64           `json:"runAsUser,omitempty"`
	RunAsGroup               *int64           `json:"runAsGroup,omitempty"`
	RunAsNonRoot             *bool            `json:"runAsNonRoot,omitempty"`
	ProcMount                *string          `json:"procMount,omitempty"`
	Capabilities             Capabilities     `json:"capabilities,omitzero"`
	Seccomp                  *SecurityProfile `json:"seccompProfile,omitempty"`
	AppArmor                 *SecurityProfile `json:"appArmorProfile,omitempty"`
	SELinux                  *SELinux         `json:"seLinuxOptions,omitempty"`
	Windows                  *Windows         `json:"windowsOptions,omitempty"`
}

// Capabilities are added to and taken from the runtime's default ones.
type Capabilities struct {
	Add  []string `json:"add,omitempty"`
	Drop []string `json:"drop,omitempty"`
}

// SecurityProfile names a seccomp or an AppArmor profile.
type SecurityProfile struct {
	Type      string `json:"type"`
	Localhost string `json:"localhostProfile,omitempty"`
}

// SELinux is the label that a container runs with, as far as it is given.
type SELinux struct {
	User string `json:"user,omitempty"`
	Role string `json:"role,omitempty"`
	Type string `json:"type,omitempty"`
}

// Windows says whether a container is a process of a Windows host.
type Windows struct {
	HostProcess *bool `json:"hostProcess,omitempty"`
}

// Sysctl is a kernel parameter of the pod.
type Sysctl struct {
	Name string `json:"name"`
}

// ContainerSpec is one container of a PodSpec.
type ContainerSpec struct {
	Name     string            `json:"name"`
	Security ContainerSecurity `json:"securityContext,omitzero"`
	Mounts   []VolumeMount     `json:"volumeMounts,omitempty"`
	Ports    []HostPort        `json:"ports,omitempty"` // of the host only
	// Probed are the hosts that its probes and hooks name, sorted: they make the
	// kubelet talk to others than the pod.
	Probed []string `json:"probed,omitempty"`
	// Injected: the workload's own template does not have it; something added it to
	// the pod.
	Injected bool `json:"injected,omitempty"`
	// User is the user that the runtime said it runs as; nil where it did not say.
	User *int64 `json:"user,omitempty"`
}

// HostPort is a port of the node that a container takes.
type HostPort struct {
	Port int32 `json:"hostPort,omitempty"`
}

// VolumeMount is where a container has a volume.
type VolumeMount struct {
	Name             string `json:"name"`
	Path             string `json:"mountPath"`
	ReadOnly         bool   `json:"readOnly,omitempty"`
	SubPath          string `json:"subPath,omitempty"`
	SubPathExpr      string `json:"subPathExpr,omitempty"`
	MountPropagation string `json:"mountPropagation,omitempty"`
}

// Volume is a volume of the pod. Kind is the name that the API has for its kind,
// such as emptyDir; HostPath is set for that kind only.
type Volume struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	HostPath string `json:"hostPath,omitempty"`
	Injected bool   `json:"injected,omitempty"`
}

// Bounds of a PodSpec: above what people write, below what would fill a profile.
const (
	maxSpecParts = 64  // containers, volumes, mounts of a container, ports, names
	maxSpecText  = 512 // bytes of a string
)

// Bound escapes every string that a person wrote, and cuts the specification to
// what a profile may hold. It tells whether that left anything out: then nothing
// may be concluded from what is not there.
func (p *PodSpec) Bound() (whole bool) {
	whole = true
	cut(&p.Volumes, &whole)
	for i := range p.Volumes {
		v := &p.Volumes[i]
		bound(&whole, &v.Name, &v.Kind, &v.HostPath)
	}
	cut(&p.Security.Sysctls, &whole)
	for i := range p.Security.Sysctls {
		bound(&whole, &p.Security.Sysctls[i].Name)
	}
	boundProfiles(&whole, p.Security.Seccomp, p.Security.AppArmor, p.Security.SELinux)
	for _, list := range []*[]ContainerSpec{&p.InitContainers, &p.Containers} {
		cut(list, &whole)
		for i := range *list {
			(*list)[i].bound(&whole)
		}
	}
	return whole
}

func (c *ContainerSpec) bound(whole *bool) {
	s := &c.Security
	bound(whole, &c.Name)
	boundProfiles(whole, s.Seccomp, s.AppArmor, s.SELinux)
	if s.ProcMount != nil {
		bound(whole, s.ProcMount)
	}
	cut(&c.Ports, whole)
	for _, texts := range []*[]string{&s.Capabilities.Add, &s.Capabilities.Drop, &c.Probed} {
		cut(texts, whole)
		for i := range *texts {
			bound(whole, &(*texts)[i])
		}
	}
	cut(&c.Mounts, whole)
	for i := range c.Mounts {
		m := &c.Mounts[i]
		bound(whole, &m.Name, &m.Path, &m.SubPath, &m.SubPathExpr, &m.MountPropagation)
	}
}

func boundProfiles(whole *bool, seccomp, appArmor *SecurityProfile, selinux *SELinux) {
	for _, p := range []*SecurityProfile{seccomp, appArmor} {
		if p != nil {
			bound(whole, &p.Type, &p.Localhost)
		}
	}
	if selinux != nil {
		bound(whole, &selinux.User, &selinux.Role, &selinux.Type)
	}
}

func bound(whole *bool, texts ...*string) {
	for _, s := range texts {
		if len(*s) > maxSpecText {
			*s, *whole = (*s)[:maxSpecText], false
		}
		if *s = strings.ToValidUTF8(*s, ""); !IsEscaped(*s) || strings.Contains(*s, `\`) {
			*s = Escape(*s)
		}
	}
}

func cut[T any](list *[]T, whole *bool) {
	if len(*list) > maxSpecParts {
		*list, *whole = (*list)[:maxSpecParts], false
	}
}

// All lists all containers, those that come first before the others.
func (p PodSpec) All() []ContainerSpec { return slices.Concat(p.InitContainers, p.Containers) }

// Container finds a container by its name.
func (p PodSpec) Container(name string) (ContainerSpec, bool) {
	all := p.All()
	if i := slices.IndexFunc(all, func(c ContainerSpec) bool { return c.Name == name }); i >= 0 {
		return all[i], true
	}
	return ContainerSpec{}, false
}

// SeenSpec is a pod's specification, and when the pod was made that had it.
type SeenSpec struct {
	Made time.Time `json:"made"` // UTC, whole seconds
	Pod  PodSpec   `json:"pod"`
	// Cut: there was more than a profile holds.
	Cut bool `json:"cut,omitempty"`
}

// newer gives the specification of the pod that was made last: a workload's
// template changes, and only the one that holds now says what its pods may do. It
// is one of its arguments, and the same whatever their order.
func newer(a, b *SeenSpec) *SeenSpec {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	if c := a.Made.Compare(b.Made); c > 0 || c == 0 && a.text() >= b.text() {
		return a
	}
	return b
}

func (s *SeenSpec) text() string {
	data, err := json.Marshal(s)
	if err != nil {
		return "" // nothing in it can fail to be encoded
	}
	return string(data)
}

// SameSpec tells whether two specifications say the same, whenever it was.
func SameSpec(a, b *SeenSpec) bool {
	if a == nil || b == nil {
		return a == b
	}
	x, y := *a, *b
	x.Made, y.Made = time.Time{}, time.Time{}
	return x.text() == y.text()
}
