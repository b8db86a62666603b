package podsecurity

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// hardening is what can be taken from the pods of one workload.
type hardening struct {
	set       policy.Set
	spec      behavior.PodSpec
	localhost bool
	changes   []change
	notes     []policy.Note
}

// change is what one container is to be given or left without. What is nil or
// empty stays as its owner has it.
type change struct {
	spec    behavior.ContainerSpec
	init    bool
	caps    *behavior.Capabilities
	noAdd   bool // the added capabilities go, and none comes
	contain bool // no way to gain privileges
	root    bool // the root file system becomes read-only
	folders []folder
	mounts  []behavior.VolumeMount // become read-only
	nonRoot bool
	user    *int64 // to run as, where its name alone would not prove that it is not root
	seccomp *behavior.SecurityProfile
	why     []string // comments: escaped, one line each
}

func (c change) empty() bool {
	return c.caps == nil && !c.contain && !c.root && len(c.mounts) == 0 && !c.nonRoot && c.seccomp == nil
}

func (h *hardening) note(container, format string, args ...any) {
	h.notes = append(h.notes, policy.Note{Engine: Name, Container: container, Text: fmt.Sprintf(format, args...)})
}

// container decides about one container, and notes what stands in the way.
func (h *hardening) container(spec behavior.ContainerSpec) {
	cover, observed := h.set.Coverage[spec.Name]
	switch {
	case spec.Injected:
		h.note(spec.Name, "was added to the pod by something else than the workload's template, which cannot harden it")
		return
	case !observed:
		h.note(spec.Name, "was not observed, so that nothing is taken from it")
		return
	case isTrue(spec.Security.Privileged):
		h.note(spec.Name, "is privileged: what it needs of that cannot be told from what it was seen using, since nothing is refused to it")
		return
	case cover.Starts() == 0:
		h.note(spec.Name, "its start was not observed: what it needs for it must not be taken from it")
		return
	}
	c := change{spec: spec, init: slices.ContainsFunc(h.spec.InitContainers, func(i behavior.ContainerSpec) bool { return i.Name == spec.Name })}
	if len(cover.Lost) > 0 {
		h.note(spec.Name, "facts were lost while it was observed; the gate to deny waits for an observation without loss")
	}
	h.capabilities(&c, cover)
	h.privileges(&c)
	h.files(&c, cover)
	h.user(&c)
	h.filter(&c, cover)
	if !c.empty() {
		h.changes = append(h.changes, c)
	}
}

// watched tells whether the kernel showed facts of that kind while they happened.
func watched(c behavior.Coverage, kind behavior.Kind) bool {
	return slices.ContainsFunc(c.Hooks[kind], func(hook string) bool { return hook != "snapshot" })
}

// capabilities leaves those that were used.
func (h *hardening) capabilities(c *change, cover behavior.Coverage) {
	if !watched(cover, behavior.Capability) {
		h.note(c.spec.Name, "the use of capabilities was not observed, so that none is dropped")
		return
	}
	context := map[string][]string{}
	var used []string
	for _, r := range h.set.Of(c.spec.Name, behavior.Capability) {
		if !plainName(r.Name) {
			h.note(c.spec.Name, "capability %s cannot be written into a manifest, so that none is dropped", r.Name)
			return
		}
		used = append(used, r.Name)
		for o := range r.Facts.All() {
			context[r.Name] = append(context[r.Name], useOf(o))
		}
	}
	slices.Sort(used)
	used = slices.Compact(used)
	now := c.spec.Security.Capabilities
	if slices.Equal(now.Drop, []string{"ALL"}) && slices.Equal(sorted(now.Add), used) {
		return
	}
	c.caps = &behavior.Capabilities{Drop: []string{"ALL"}, Add: used}
	c.noAdd = len(used) == 0 && len(now.Add) > 0
	if len(used) == 0 {
		c.explain("capabilities: none was used")
	}
	for _, name := range used {
		uses := sorted(context[name])
		more := ""
		if len(uses) > maxExamples {
			more = fmt.Sprintf("; and %d more", len(uses)-maxExamples)
			uses = uses[:maxExamples]
		}
		c.explain("capability %s: %s%s", name, strings.Join(uses, "; "), more)
	}
}

// maxExamples bounds what a comment lists.
const maxExamples = 4

// useOf says in words in which context a capability was used.
func useOf(o behavior.Observed) string {
	f := o.Fact
	text := "by " + f.Exe
	if f.Syscall != "" {
		text += " in " + f.Syscall
	}
	if f.Arguments != "" {
		text += " (" + f.Arguments + ")"
	}
	return fmt.Sprintf("%s, %s in %s", text, number(o.Evidence.Count(), "time"), number(uint64(len(o.Evidence.Pods)), "pod"))
}

func number(n uint64, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

func (c *change) explain(format string, args ...any) {
	c.why = append(c.why, fmt.Sprintf(format, args...))
}

// privileges takes the ways to gain any.
func (h *hardening) privileges(c *change) {
	if c.spec.Security.AllowPrivilegeEscalation != nil && !*c.spec.Security.AllowPrivilegeEscalation {
		return
	}
	if c.caps == nil && slices.Contains(c.spec.Security.Capabilities.Add, "SYS_ADMIN") || c.caps != nil && slices.Contains(c.caps.Add, "SYS_ADMIN") {
		h.note(c.spec.Name, "has SYS_ADMIN, with which allowPrivilegeEscalation cannot be false")
		return
	}
	for _, r := range h.set.Of(c.spec.Name, behavior.Process) {
		if name := r.Path[strings.LastIndexByte(r.Path, '/')+1:]; slices.Contains(gainers(), name) {
			h.note(c.spec.Name, "runs %s, which is there to change privileges, so that allowPrivilegeEscalation stays", r.Path)
			return
		}
	}
	if uid := h.uid(c.spec); uid != nil && *uid != 0 && len(h.set.Of(c.spec.Name, behavior.Capability)) > 0 {
		h.note(c.spec.Name, "runs as user %d and used capabilities, which it can only have gained, so that allowPrivilegeEscalation stays", *uid)
		return
	}
	c.contain = true
}

// gainers are programs whose purpose is to give privileges to who runs them.
func gainers() []string {
	return []string{"sudo", "su", "doas", "pkexec", "newuidmap", "newgidmap", "runuser", "sg", "newgrp", "chsh", "chfn", "passwd", "mount.nfs", "fusermount", "fusermount3"}
}

// uid is the user that a container runs as; nil where neither its specification
// nor the runtime says so.
func (h *hardening) uid(c behavior.ContainerSpec) *int64 {
	for _, u := range []*int64{c.Security.RunAsUser, h.spec.Security.RunAsUser, c.User} {
		if u != nil {
			return u
		}
	}
	return nil
}

// user makes sure that a container that does not run as root never does.
func (h *hardening) user(c *change) {
	s := c.spec.Security
	if isTrue(s.RunAsNonRoot) || s.RunAsNonRoot == nil && isTrue(h.spec.Security.RunAsNonRoot) {
		return
	}
	uid := h.uid(c.spec)
	switch {
	case uid == nil:
		h.note(c.spec.Name, "which user it runs as was not seen: with runAsUser in its manifest, runAsNonRoot can follow")
	case *uid == 0:
		h.note(c.spec.Name, "runs as root (uid 0), so that runAsNonRoot is not set")
	default:
		c.nonRoot = true
		if s.RunAsUser == nil && h.spec.Security.RunAsUser == nil {
			c.user = uid // of the image, which may name it by a word that the kubelet cannot check
		}
		c.explain("user: %d", *uid)
	}
}

// filter gives a seccomp profile to a container that has none.
func (h *hardening) filter(c *change, cover behavior.Coverage) {
	if c.spec.Security.Seccomp != nil || h.spec.Security.Seccomp != nil {
		return
	}
	if !watched(cover, behavior.Syscall) || len(h.set.Of(c.spec.Name, behavior.Syscall)) == 0 {
		h.note(c.spec.Name, "its system calls were not observed, so that it gets no seccomp profile")
		return
	}
	if h.localhost {
		c.seccomp = &behavior.SecurityProfile{Type: "Localhost", Localhost: "operator/" + engine.SeccompObject(h.set.Workload, c.spec.Name) + ".json"}
		return
	}
	var refused []string
	for _, r := range h.set.Of(c.spec.Name, behavior.Syscall) {
		if !byDefault(r.Name) {
			refused = append(refused, r.Name)
		}
	}
	if len(refused) > 0 {
		h.note(c.spec.Name, "calls %s, which the runtime's default seccomp profile may refuse, so that it is not set", strings.Join(slices.Compact(sorted(refused)), ", "))
		return
	}
	c.seccomp = &behavior.SecurityProfile{Type: "RuntimeDefault"}
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }

func isTrue(b *bool) bool { return b != nil && *b }

// plainName tells whether s can be a capability's name.
func plainName(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == ""
}
