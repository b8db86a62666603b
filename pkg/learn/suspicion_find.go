package learn

import (
	"fmt"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// find tells what is suspicious about a fact. What is not has no class.
func (s *scene) find(i int32) finding {
	form, path := s.facts.Form(i)
	switch f := &s.forms[form]; f.Kind {
	case behavior.Process:
		return s.findProcess(s.facts.At(i))
	case behavior.File:
		return s.findFile(f, path)
	case behavior.Network:
		return s.findNetwork(i, f)
	case behavior.DNS:
		if isPool(f.Name) {
			return suspect(ClassMiner, "%s asks for the name of a pool that mines coins", f.Exe)
		}
	case behavior.Capability:
		if escapeCapability(f.Name, f.Syscall) {
			return suspect(ClassEscape, "%s uses capability %s in %s", f.Exe, f.Name, f.Syscall)
		}
	case behavior.Syscall:
		if escapeSyscall(f.Name) {
			return suspect(ClassEscape, "system call %s reaches out of a container, if it may", f.Name)
		}
	}
	return finding{}
}

func suspect(class, why string, args ...any) finding {
	return finding{class: class, why: fmt.Sprintf(why, args...)}
}

func (s *scene) findProcess(f behavior.Fact) finding {
	name := base(f.Path)
	switch {
	case strings.HasPrefix(f.Path, "memfd:"):
		return suspect(ClassHiddenRun, "%s runs a program that exists in memory only", runner(f.Parent))
	case f.Deleted:
		return suspect(ClassHiddenRun, "%s runs a program whose file was deleted before", runner(f.Parent))
	case isMiner(name) || strings.Contains(f.Arguments, "stratum+") || strings.Contains(f.Arguments, "stratum2+"):
		return suspect(ClassMiner, "%s runs %s, which looks like a program that mines coins", runner(f.Parent), f.Path)
	case s.written[f.Path]:
		return suspect(ClassWrittenRun, "%s was written while the container ran, and then run", f.Path)
	case isPackageManager(name):
		return suspect(ClassPackages, "%s runs %s: the image changes while it runs", runner(f.Parent), f.Path)
	case f.Interpreter == "" && f.Parent != "" && s.shellOf(f):
		return suspect(ClassShell, "%s accepts connections, and runs the shell %s", f.Parent, f.Path)
	case f.Parent != "" && isShell(name) && isRawTool(base(f.Parent)):
		return suspect(ClassShell, "%s, a tool for raw connections, runs the shell %s", f.Parent, f.Path)
	}
	return finding{}
}

func runner(parent string) string {
	if parent == "" {
		return "the container's runtime"
	}
	return parent
}

// shellOf tells whether a server runs a shell for other ends than to start
// itself. A program of many names, such as busybox, is a shell where it runs
// programs. A shell that in turn starts a server (npm start does) is a part of the
// start; it is told by that there is a server for each shell.
func (s *scene) shellOf(f behavior.Fact) bool {
	listens, serves := s.serves[f.Parent]
	if !serves || isShell(base(f.Parent)) || isMulti(base(f.Parent)) {
		return false
	}
	if !isShell(base(f.Path)) && !(isMulti(base(f.Path)) && s.busy[f.Path]) {
		return false
	}
	shells, started, self := s.runs[step{f.Parent, f.Path}], map[string]uint64{}, map[string]uint64{}
	for server := range s.serves {
		for pod, n := range s.runs[step{f.Path, server}] {
			started[pod] += n
			self[pod] += n
		}
		for pod, n := range s.runs[step{f.Parent, server}] {
			self[pod] += n
		}
	}
	if within(shells, started) {
		return false
	}
	// A shell that becomes its only command leaves the step from its own parent.
	return s.starts[step{f.Parent, f.Path}].After(listens) || !within(shells, self)
}

// within tells whether no pod counts more in a than in b.
func within(a, b map[string]uint64) bool {
	for pod, n := range a {
		if n > b[pod] {
			return false
		}
	}
	return true
}

func (s *scene) findFile(f *behavior.Fact, path string) finding {
	switch {
	case writes(f) && isCode(path):
		return suspect(ClassBinaryWritten, "%s writes where programs and libraries lie", f.Exe)
	case f.Access&(behavior.Write|behavior.Create) != 0 && escapeFile(path):
		return suspect(ClassEscape, "%s writes %s, by which the kernel is made to run a program", f.Exe, path)
	case isDisk(path):
		return suspect(ClassEscape, "%s opens %s: a whole disk or memory", f.Exe, path)
	case isRuntimeSocket(path):
		return suspect(ClassRuntimeSocket, "%s uses %s: whoever may can start any container", f.Exe, path)
	case f.Access.Has(behavior.Read) && (f.Operation == "" || f.Operation == behavior.OpLink):
		return s.findRead(f, path)
	}
	return finding{}
}

// findRead tells secrets that are not the reader's own. What a server reads of its
// keys is its own; what a general tool, such as cat, reads of them is hardly its.
func (s *scene) findRead(f *behavior.Fact, path string) finding {
	name := base(f.Exe)
	switch {
	case isShadow(path) && !managesAccounts(name):
		return suspect(ClassSecretRead, "%s reads password hashes and has nothing to do with accounts", f.Exe)
	case isToken(path) && isTool(f.Exe) && !s.api:
		return suspect(ClassSecretRead, "%s reads the service account's token, and no program here is made to talk to the API server", f.Exe)
	case strings.HasPrefix(path, "/var/lib/kubelet/") || strings.HasPrefix(path, "/etc/kubernetes/"):
		return suspect(ClassSecretRead, "%s reads credentials of the node or the cluster", f.Exe)
	case isCredential(path) && isTool(f.Exe):
		return suspect(ClassSecretRead, "%s, a general tool, reads somebody's keys or credentials", f.Exe)
	}
	if number, ok := ofProcess(path); ok && (isTool(f.Exe) || isDebugger(name) || number == "1" && !s.first[f.Exe] && !listsProcesses(name)) {
		return suspect(ClassSecretRead, "%s reads another process's memory or environment", f.Exe)
	}
	return finding{}
}

func (s *scene) findNetwork(i int32, f *behavior.Fact) finding {
	name := base(f.Exe)
	outside := f.Peer.Kind == behavior.PeerOutside || f.Peer.Kind == ""
	switch {
	case f.Direction == behavior.Listen && (isShell(name) || isRawTool(name)):
		return suspect(ClassListener, "%s waits for connections", f.Exe)
	case f.Direction != behavior.Egress:
		return finding{}
	case isPool(f.Peer.Name):
		return suspect(ClassMiner, "%s connects to a pool that mines coins", f.Exe)
	case outside && f.Protocol == "tcp" && isPoolPort(f.Port) && !f.Peer.Address.IsLoopback():
		return suspect(ClassMiner, "%s connects outside to a port of pools that mine coins", f.Exe)
	// Scripts that wait for a service try to reach it from the shell itself: by its
	// name, and at a private address.
	case outside && isShell(name) && !f.Peer.Address.IsLoopback() && (f.Peer.Name == "" || !f.Peer.Address.IsPrivate()):
		return suspect(ClassReverseShell, "the shell %s itself connects to somewhere outside", f.Exe)
	case s.scans[i] != "":
		return suspect(ClassScan, "%s", s.scans[i])
	}
	return finding{}
}
