package kubearmor

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	pb "github.com/kubearmor/KubeArmor/protobuf"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// ErrMessage is returned for what is no log or alert of KubeArmor's.
var ErrMessage = errors.New("malformed kubearmor message")

// event is a log or an alert, as far as it matters here.
type event struct {
	Timestamp         int64
	HostName          string
	NamespaceName     string
	PodName           string
	Labels            string
	Owner             *owner
	ContainerName     string
	ContainerImage    string
	HostPPID          int32
	HostPID           int32
	PPID              int32
	PID               int32
	ParentProcessName string
	ProcessName       string
	PolicyName        string
	Type              string
	Operation         string
	Resource          string
	Data              string
	Cwd               string
	Action            string
	Result            string
	MaxAlertsPerSec   int32
}

type owner struct{ Ref, Name, Namespace string }

func ownerOf(o *pb.Podowner) *owner {
	if o == nil {
		return nil
	}
	return &owner{o.GetRef(), o.GetName(), o.GetNamespace()}
}

func ofLog(l *pb.Log) *event {
	return &event{Timestamp: l.GetTimestamp(), HostName: l.GetHostName(), NamespaceName: l.GetNamespaceName(), PodName: l.GetPodName(), Labels: l.GetLabels(),
		Owner: ownerOf(l.GetOwner()), ContainerName: l.GetContainerName(), ContainerImage: l.GetContainerImage(), HostPPID: l.GetHostPPID(), HostPID: l.GetHostPID(),
		PPID: l.GetPPID(), PID: l.GetPID(), ParentProcessName: l.GetParentProcessName(), ProcessName: l.GetProcessName(), Type: l.GetType(),
		Operation: l.GetOperation(), Resource: l.GetResource(), Data: l.GetData(), Cwd: l.GetCwd(), Result: l.GetResult()}
}

func ofAlert(a *pb.Alert) *event {
	return &event{Timestamp: a.GetTimestamp(), HostName: a.GetHostName(), NamespaceName: a.GetNamespaceName(), PodName: a.GetPodName(), Labels: a.GetLabels(),
		Owner: ownerOf(a.GetOwner()), ContainerName: a.GetContainerName(), ContainerImage: a.GetContainerImage(), HostPPID: a.GetHostPPID(), HostPID: a.GetHostPID(),
		PPID: a.GetPPID(), PID: a.GetPID(), ParentProcessName: a.GetParentProcessName(), ProcessName: a.GetProcessName(), PolicyName: a.GetPolicyName(), Type: a.GetType(),
		Operation: a.GetOperation(), Resource: a.GetResource(), Data: a.GetData(), Cwd: a.GetCwd(), Action: a.GetAction(), Result: a.GetResult(), MaxAlertsPerSec: a.GetMaxAlertsPerSec()}
}

// ofJSON reads one line that karmor printed.
func ofJSON(line []byte) (*event, error) {
	e := &event{}
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if e.Operation == "" {
		return nil, fmt.Errorf("%w: it has no Operation", ErrMessage)
	}
	return e, nil
}

// Results, as KubeArmor words them.
const resultPassed = "Passed"

// outside tells whether the process was started from outside of its container, and
// entered whether that was after the container's own first process. KubeArmor gives
// such a process the number of its parent on the host.
func (e *event) outside() (outside, entered bool) {
	if e.PID == e.HostPID {
		return false, false // it shares the node's process numbers
	}
	outside = e.PPID == 0 || e.PPID == e.HostPPID
	return outside, outside && e.PID != 1
}

// maxText bounds a path, a name or an address: Linux takes no longer path.
const maxText = 4096

// Reasons for which an event makes no fact, and loses none.
const (
	passFailed  = "attempts that failed by themselves"
	passSystem  = "system calls, of which KubeArmor tells a few"
	passClosed  = "files closed"
	unknownPeer = "socket calls that do not tell who with"
	passOther   = "events of other namespaces"
)

// Reasons for which something is lost, after the pod's name.
const (
	lostMuted    = "KubeArmor muted its alerts"
	lostUnknown  = "events of a kind that this version does not know"
	lostMode     = "file accesses that do not tell whether they read or write"
	lostRelative = "file paths that do not tell the folder"
	lostLong     = "paths and names longer than Linux takes"
	lostKinds    = "more different facts than are kept"
)

// fact says what the event shows: a fact, or why none, or why one is lost.
func (e *event) fact() (f behavior.Fact, pass, lost string) {
	for _, s := range []string{e.ProcessName, e.ParentProcessName, e.Resource, e.Data} {
		if len(s) > 2*maxText {
			return f, "", lostLong
		}
	}
	_, entered := e.outside()
	f.Exe = behavior.Escape(e.ProcessName)
	if entered {
		f.Origin = behavior.OriginExec
	}
	switch e.Operation {
	case "Process":
		return e.process(f)
	case "File":
		return e.file(f)
	case "Network":
		return e.network(f)
	case "Capabilities":
		f.Kind, f.Name = behavior.Capability, behavior.Escape(strings.TrimPrefix(strings.ToUpper(e.Resource), "CAP_"))
		if f.Name == "" {
			return f, "", lostUnknown
		}
		return f, "", ""
	case "Syscall":
		// A few system calls are no profile: an allow list of them would stop anything.
		return f, passSystem, ""
	}
	return f, "", lostUnknown
}

func (e *event) process(f behavior.Fact) (behavior.Fact, string, string) {
	if strings.HasPrefix(e.Data, "syscall=SYS_PTRACE") {
		return f, passSystem, ""
	}
	name := e.ProcessName
	if name == "" {
		name, _, _ = strings.Cut(e.Resource, " ")
	}
	if !strings.HasPrefix(name, "/") {
		return f, "", lostRelative
	}
	f.Kind, f.Path, f.Exe, f.Parent = behavior.Process, behavior.Escape(path.Clean(name)), "", behavior.Escape(e.ParentProcessName)
	if outside, _ := e.outside(); outside {
		f.Parent = ""
	}
	return f, "", ""
}

// calls that say by their name what they do to a file.
func calls() map[string]behavior.Fact {
	write := func(o behavior.Operation) behavior.Fact { return behavior.Fact{Access: behavior.Write, Operation: o} }
	return map[string]behavior.Fact{
		"UNLINK": write(behavior.OpUnlink), "UNLINKAT": write(behavior.OpUnlink), "RMDIR": write(behavior.OpRmdir),
		"CHOWN": write(behavior.OpChown), "FCHOWNAT": write(behavior.OpChown), "MKDIR": write(behavior.OpMkdir), "MKNOD": write(behavior.OpMknod),
		"CHMOD": write(behavior.OpChmod), "TRUNCATE": write(behavior.OpTruncate), "SYMLINK": write(behavior.OpSymlink),
	}
}

func (e *event) file(f behavior.Fact) (behavior.Fact, string, string) {
	data := words(e.Data)
	call := data["syscall"]
	if call == "" {
		call = data["lsm"]
	}
	for _, prefix := range []string{"SYS_", "SECURITY_", "FILE_", "PATH_"} {
		call = strings.TrimPrefix(call, prefix)
	}
	switch call {
	case "CLOSE":
		return f, passClosed, ""
	case "OPEN", "OPENAT":
		f.Access = access(data["flags"])
	default:
		said, ok := calls()[call]
		if !ok {
			return f, "", lostMode
		}
		f.Access, f.Operation = said.Access, said.Operation
	}
	if f.Access == 0 {
		return f, "", lostMode
	}
	name := e.Resource
	// -100 is AT_FDCWD: a path from the process's own folder.
	if fd := data["fd"]; !strings.HasPrefix(name, "/") && name != "" && strings.HasPrefix(e.Cwd, "/") && (fd == "" || fd == "-100") {
		name = path.Join(e.Cwd, name)
	}
	switch {
	case !strings.HasPrefix(name, "/"):
		return f, "", lostRelative
	case len(name) > maxText:
		return f, "", lostLong
	}
	f.Kind, f.Path = behavior.File, behavior.Escape(path.Clean(name))
	return f, "", ""
}

// access reads open's flags as KubeArmor words them; 0 when they do not tell.
func access(flags string) behavior.Access {
	var a behavior.Access
	for _, flag := range strings.FieldsFunc(flags, func(r rune) bool { return r == '|' }) {
		switch flag {
		case "O_RDONLY":
			a |= behavior.Read
		case "O_WRONLY":
			a |= behavior.Write
		case "O_RDWR":
			a |= behavior.Read | behavior.Write
		case "O_CREAT":
			a |= behavior.Create
		case "O_TRUNC":
			a |= behavior.Write
		}
	}
	if a == behavior.Create {
		return 0
	}
	return a
}

func (e *event) network(f behavior.Fact) (behavior.Fact, string, string) {
	resource, data := words(e.Resource), words(strings.ReplaceAll(e.Data, ",", " "))
	port := func(text string) bool {
		n, err := strconv.ParseUint(text, 10, 16)
		f.Port = uint16(n)
		return err == nil
	}
	address := func(text string) bool {
		addr, err := netip.ParseAddr(text)
		f.Peer.Address = addr.Unmap().WithZone("")
		return err == nil
	}
	switch {
	case data["kprobe"] == "tcp_connect" || data["kprobe"] == "tcp_accept":
		f.Kind, f.Protocol, f.Direction = behavior.Network, "tcp", behavior.Egress
		if data["kprobe"] == "tcp_accept" { // whose port is the container's own
			f.Direction = behavior.Ingress
		}
		if !port(resource["port"]) || !address(resource["remoteip"]) {
			return f, "", lostUnknown
		}
		return f, "", ""
	case data["kfunc"] == "UDP_SENDMSG":
		f.Kind, f.Protocol, f.Port = behavior.DNS, "udp", 53
		f.Name, f.Type = behavior.Escape(strings.ToLower(strings.TrimSuffix(data["domain"], "."))), behavior.Escape(data["qtype"])
		if f.Name == "" || !address(data["daddr"]) {
			return f, "", lostUnknown
		}
		return f, "", ""
	case resource["domain"] != "" && resource["type"] != "":
		kind, _, _ := strings.Cut(resource["type"], "|")
		f.Kind, f.Family, f.Type = behavior.Socket, lower(resource["domain"], "AF_"), lower(kind, "SOCK_")
		if p := strings.ToLower(resource["protocol"]); p != "" && p != "0" {
			f.Protocol = behavior.Escape(p)
		}
		return f, "", ""
	}
	return f, unknownPeer, ""
}

func lower(s, prefix string) string {
	return behavior.Escape(strings.ToLower(strings.TrimPrefix(s, prefix)))
}

// words reads text of the form a=b c=d.
func words(text string) map[string]string {
	m := map[string]string{}
	for _, w := range strings.Fields(text) {
		if k, v, ok := strings.Cut(w, "="); ok {
			m[k] = v
		}
	}
	return m
}
