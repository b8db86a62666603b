//go:build linux

package collector

import (
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// sessionGrace is how long it may take until it is known with which program
// somebody entered a container. The program is recorded before what it does, so
// that only a loss makes it unknown.
const sessionGrace = 5 * time.Second

// maxSessions bounds the ways in which a container is entered that are told apart;
// probes and hooks are a handful.
const maxSessions = 1024

// unknownSession and mixedCalls are losses of containers that were entered.
const (
	unknownSession = "who entered the container is not known"
	mixedCalls     = "system calls of probes and of people cannot be told apart"
)

// maxEntered is how many bytes of arguments a record has at most; more are cut.
const maxEntered = 4096

// commandsOf lists the commands with which the kubelet enters a container: those
// of its probes, in which the kubelet replaces $(NAME) by what the specification
// itself says of the environment (not by what it takes from elsewhere), and those
// of its hooks, in which it replaces nothing. Escaped.
func commandsOf(c *corev1.Container) [][]string {
	static := map[string]string{}
	for _, e := range c.Env {
		static[e.Name] = e.Value
	}
	var list [][]string
	add := func(exec *corev1.ExecAction, replace bool) {
		if exec == nil || len(exec.Command) == 0 {
			return
		}
		command := make([]string, len(exec.Command))
		for i, text := range exec.Command {
			if replace {
				text = expand(text, static)
			}
			command[i] = behavior.Escape(text)
		}
		list = append(list, command)
	}
	for _, p := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
		if p != nil {
			add(p.Exec, true)
		}
	}
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				add(h.Exec, false)
			}
		}
	}
	return list
}

// expand replaces $(NAME) as Kubernetes does: $$ is a dollar, and a name that is
// not known stays as it is.
func expand(text string, known map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		rest := text[i+1:]
		end := strings.IndexByte(rest, ')')
		switch {
		case rest[0] == '$':
			b.WriteByte('$')
			i++
		case rest[0] == '(' && end > 0:
			name := rest[1:end]
			value, ok := known[name]
			if !ok {
				value = "$(" + name + ")"
			}
			b.WriteString(value)
			i += end + 1
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// origin tells how those came into the container who entered it with a program and
// these arguments, escaped.
func (info *containerInfo) origin(entered []string) behavior.Origin {
	if info.ephemeral {
		return behavior.OriginExec
	}
	for _, command := range info.commands {
		if isCommand(entered, command) {
			return behavior.OriginProbe
		}
	}
	return behavior.OriginExec
}

// own is the origin of what the container's own tree does: an ephemeral container
// is one that people put there.
func (info *containerInfo) own() behavior.Origin {
	if info.ephemeral {
		return behavior.OriginExec
	}
	return ""
}

// isCommand tells whether the arguments that a program got are those of a command.
// Those of a script begin with its interpreter, that one's own argument if any, and
// the script's path; a script may be another one's interpreter.
func isCommand(entered, command []string) bool {
	size := 0
	for _, a := range entered {
		size += len(a) + 1 // escaped it is longer, never shorter
	}
	cut := size >= maxEntered
	if sameArguments(entered, command, cut) {
		return true
	}
	const deepest = 8 // the kernel follows four interpreters
	for i := 1; i < min(len(entered), deepest+1); i++ {
		name := entered[i] == command[0] || !strings.Contains(command[0], "/") && path.Base(entered[i]) == command[0]
		if name && sameArguments(entered[i+1:], command[1:], cut) {
			return true
		}
	}
	return false
}

// sameArguments compares; of arguments that were cut what is left counts.
func sameArguments(a, want []string, cut bool) bool {
	if !cut || len(a) == 0 {
		return slices.Equal(a, want)
	}
	last := len(a) - 1
	return len(a) <= len(want) && slices.Equal(a[:last], want[:last]) && strings.HasPrefix(want[last], a[last])
}

// enter remembers with which program a session began, and states what waited for
// that. The caller holds the lock.
func (c *Collector) enter(n *namespace, r Record) {
	if r.Session == 0 || len(r.Entered) == 0 || len(n.sessions[r.Session]) > 0 || len(n.sessions) >= maxSessions {
		return
	}
	if n.sessions == nil {
		n.sessions = map[uint32][]string{}
	}
	n.sessions[r.Session] = r.Entered
	c.admit(n, func(w Record) bool { return w.Session == r.Session })
}

// admit states the records that waited for their session and that the filter
// takes.
func (c *Collector) admit(n *namespace, take func(Record) bool) {
	if n.container == nil {
		return // they are pending
	}
	var ready []Record
	n.unentered = slices.DeleteFunc(n.unentered, func(w Record) bool {
		if take(w) {
			ready = append(ready, w)
			return true
		}
		return false
	})
	c.pending -= len(ready)
	for _, w := range ready {
		c.keep(n, w)
	}
}

// giveUp states what has waited in vain for its session as people's, and counts
// it as a loss: it may have been a probe's.
func (c *Collector) giveUp(n *namespace, take func(Record) bool) {
	for _, w := range n.unentered {
		if take(w) {
			n.lose(unknownSession, 1, w.Time, w.Time)
			if n.sessions == nil {
				n.sessions = map[uint32][]string{}
			}
			n.sessions[w.Session] = []string{}
		}
	}
	c.admit(n, take)
}

// originOf gives a record's origin; false while it is not known who entered.
func (c *Collector) originOf(n *namespace, r Record) (behavior.Origin, bool) {
	info := &n.container.info
	switch entered, known := n.sessions[r.Session]; {
	case r.Fact.Runtime:
		return "", true
	case r.Session == 0 || info.ephemeral:
		return info.own(), true
	case known:
		return info.origin(entered), true
	}
	return "", false
}

// await keeps a record until it is known who entered.
func (c *Collector) await(n *namespace, r Record) {
	limits := c.options.Limits
	if len(n.unentered) >= limits.PendingRecords || len(n.unentered) >= limits.ReservedPending && c.pending >= limits.TotalPending {
		n.lose(unknownSession, 1, r.Time, r.Time)
		return
	}
	n.unentered = append(n.unentered, r)
	c.pending++
}

// keepSyscalls states the system calls of a namespace that has a container.
func (c *Collector) keepSyscalls(n *namespace, now time.Time) {
	for _, set := range n.syscalls {
		for _, name := range set.Names {
			f := behavior.Fact{Kind: behavior.Syscall, Name: behavior.Escape(name), Arch: set.Arch, Runtime: set.Runtime}
			switch {
			case set.Runtime:
			case set.Entered:
				c.keepEntered(n, f, now)
				continue
			default:
				f.Origin = n.container.info.own()
			}
			c.keepSyscall(n, f, now)
		}
	}
	n.syscalls = nil
}

func (c *Collector) keepSyscall(n *namespace, f behavior.Fact, now time.Time) {
	if !n.container.has(f) {
		c.store.add(n.container, sighting{fact: f, at: now})
	}
}

// keepEntered states a system call of somebody who entered. The kernel side does
// not tell whose: it is a probe's where only probes entered so far, and people's
// where only people did. Where both did, it is stated as people's if the container
// makes it by itself too, since then nothing depends on it; else as a probe's, so
// that no policy stops a probe, and as something that could not be told.
func (c *Collector) keepEntered(n *namespace, f behavior.Fact, now time.Time) {
	probe, exec := f, f
	probe.Origin, exec.Origin = behavior.OriginProbe, behavior.OriginExec
	if n.container.has(probe) || n.container.has(exec) {
		return
	}
	var probes, people bool
	for _, entered := range n.sessions {
		if n.container.info.origin(entered) == behavior.OriginProbe {
			probes = true
		} else {
			people = true
		}
	}
	switch {
	case probes && people && !n.container.has(f):
		n.lose(mixedCalls, 1, now, now)
		c.keepSyscall(n, probe, now)
	case probes && !people:
		c.keepSyscall(n, probe, now)
	case people || n.container.info.ephemeral:
		c.keepSyscall(n, exec, now)
	case n.ended:
		n.lose(unknownSession, 1, now, now)
		c.keepSyscall(n, exec, now)
	}
}
