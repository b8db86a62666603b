package kubearmor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/kubearmor/KubeArmor/protobuf"
	"google.golang.org/grpc"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// log is what nginx did in web-1.
func log(operation, resource, data string) *pb.Log {
	return &pb.Log{Timestamp: 1_700_000_000, HostName: "node-1", NamespaceName: "shop", PodName: "web-1", Labels: "app=web,pod-template-hash=1", ContainerName: "web",
		Owner: &pb.Podowner{Ref: "Deployment", Name: "web", Namespace: "shop"}, HostPPID: 100, HostPID: 107, PPID: 1, PID: 7, ParentProcessName: "/usr/sbin/nginx",
		ProcessName: "/usr/sbin/nginx", Operation: operation, Resource: resource, Data: data, Cwd: "/srv/", Result: "Passed"}
}

func alert(operation, resource, data, action, result string) *pb.Alert {
	return &pb.Alert{Timestamp: 1_700_000_000, HostName: "node-1", NamespaceName: "shop", PodName: "web-1", Labels: "app=web", ContainerName: "web",
		Owner: &pb.Podowner{Ref: "Deployment", Name: "web", Namespace: "shop"}, HostPPID: 100, HostPID: 107, PPID: 1, PID: 7, ParentProcessName: "/usr/sbin/nginx",
		ProcessName: "/usr/sbin/nginx", PolicyName: "DefaultPosture", Operation: operation, Resource: resource, Data: data, Action: action, Result: result}
}

var web = behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"}

func texts(p behavior.Profile) []string {
	var list []string
	for _, o := range p.Observed() {
		list = append(list, o.Fact.String())
	}
	return list
}

func TestALogBecomesAFact(t *testing.T) {
	edited := func(l *pb.Log, edit func(*pb.Log)) *pb.Log { edit(l); return l }
	for name, c := range map[string]struct {
		log  *pb.Log
		want string // empty for none
		lost string // reason, if one is lost
	}{
		"a program": {edited(log("Process", "/bin/cat /etc/passwd", "syscall=SYS_EXECVE"), func(l *pb.Log) { l.ProcessName = "/bin/cat" }), "/usr/sbin/nginx runs /bin/cat", ""},
		"the container's first program": {edited(log("Process", "/usr/sbin/nginx", "syscall=SYS_EXECVE"), func(l *pb.Log) { l.PID, l.PPID, l.ParentProcessName = 1, 100, "/usr/bin/containerd-shim-runc-v2" }),
			"(outside the container) runs /usr/sbin/nginx", ""},
		"a program that somebody entered with": {edited(log("Process", "/bin/sh", "syscall=SYS_EXECVE"), func(l *pb.Log) { l.ProcessName, l.PPID, l.ParentProcessName = "/bin/sh", 100, "/usr/bin/runc" }),
			"(outside the container) runs /bin/sh (entered from outside)", ""},
		"a file read":                          {log("File", "/etc/nginx.conf", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY|O_CLOEXEC"), "/usr/sbin/nginx reads /etc/nginx.conf", ""},
		"a file written":                       {log("File", "/var/log/x", "syscall=SYS_OPENAT fd=-100 flags=O_WRONLY|O_CREAT|O_APPEND"), "/usr/sbin/nginx writes and creates /var/log/x", ""},
		"a path from the process's folder":     {log("File", "sub/../x", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY"), "/usr/sbin/nginx reads /srv/x", ""},
		"a path from a folder's number":        {log("File", "x", "syscall=SYS_OPENAT fd=9 flags=O_RDONLY"), "", lostRelative},
		"a file removed":                       {log("File", "/tmp/x", "syscall=SYS_UNLINKAT flags="), "/usr/sbin/nginx removes /tmp/x", ""},
		"a file closed":                        {log("File", "", "syscall=SYS_CLOSE fd=3"), "", ""},
		"an access that does not say for what": {log("File", "/tmp/x", "lsm=FILE_OPEN"), "", lostMode},
		"a path longer than Linux takes":       {log("File", "/"+strings.Repeat("a", 9000), "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY"), "", lostLong},
		"a path that a terminal would act on":  {log("File", "/x\x1b[2J\n", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY"), `/usr/sbin/nginx reads /x\x1b[2J\x0a`, ""},
		"a connection":                         {log("Network", "remoteip=192.0.2.7 port=443 protocol=TCP", "kprobe=tcp_connect domain=AF_INET"), "/usr/sbin/nginx connects to 192.0.2.7 on tcp/443", ""},
		"a connection that came in":            {log("Network", "remoteip=::ffff:10.1.0.9 port=80 protocol=TCPv6", "kprobe=tcp_accept domain=AF_INET6"), "/usr/sbin/nginx is reached on tcp/80 by 10.1.0.9", ""},
		"a question to DNS":                    {log("Network", "sa_family=AF_INET sin_port=53", "kfunc=UDP_SENDMSG,domain=Api.shop,daddr=10.2.0.10,qtype=A"), "/usr/sbin/nginx asks for api.shop (A)", ""},
		"a socket":                             {log("Network", "domain=AF_NETLINK type=SOCK_RAW|SOCK_CLOEXEC protocol=0", "syscall=SYS_SOCKET"), "/usr/sbin/nginx makes a socket: netlink raw", ""},
		"a connect that does not say by what":  {log("Network", "sa_family=AF_INET sin_port=53 sin_addr=10.0.0.10", "syscall=SYS_CONNECT fd=10"), "", ""},
		"an address that is none":              {log("Network", "remoteip=here port=443", "kprobe=tcp_connect"), "", lostUnknown},
		"a port that is none":                  {log("Network", "remoteip=192.0.2.7 port=443000", "kprobe=tcp_connect"), "", lostUnknown},
		"a system call":                        {log("Syscall", "", "syscall=SYS_SETUID userid=0"), "", ""},
		"a kind of a newer KubeArmor":          {log("Quantum", "x", "y"), "", lostUnknown},
		"an attempt that failed":               {edited(log("File", "/none", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY"), func(l *pb.Log) { l.Result = "No such file or directory" }), "", ""},
		"another namespace":                    {edited(log("File", "/x", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY"), func(l *pb.Log) { l.NamespaceName = "other" }), "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBook("shop")
			b.Log(c.log)
			r := b.Result(topology.New())
			got := texts(r.Profiles[web])
			if c.want == "" && len(got) != 0 || c.want != "" && !slices.Equal(got, []string{c.want}) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			lost := r.Profiles[web].Coverage.Lost
			if n := lost["web-1: "+c.lost]; c.lost != "" && n != 1 || c.lost == "" && len(lost) != 0 {
				t.Errorf("lost is %v, want %q", lost, c.lost)
			}
			for f := range r.Profiles[web].Facts.Keys() {
				if err := f.Validate(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestWhatAPolicyBlockedIsReportedAndNoFact(t *testing.T) {
	b := NewBook("shop")
	b.Alert(alert("File", "/etc/shadow", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY", "Block", "Permission denied"))
	b.Alert(alert("File", "/etc/hosts", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY", "Audit", "Passed"))
	b.Alert(alert("Capabilities", "CAP_NET_RAW", "lsm=CAPABLE CAP_NET_RAW", "Audit", "Passed"))
	r := b.Result(topology.New())
	if got := texts(r.Profiles[web]); len(got) != 2 || strings.Contains(fmt.Sprint(got), "shadow") {
		t.Errorf("facts are %q", got)
	}
	var denied []string
	for _, d := range r.Denials {
		denied = append(denied, fmt.Sprint(d.Fact, " ", d.Audited, " ", d.Policy))
	}
	if len(denied) != 3 || !slices.Contains(denied, "/usr/sbin/nginx reads /etc/shadow false DefaultPosture") {
		t.Errorf("denials are %q", denied)
	}
}

func TestMutedAlertsAreLost(t *testing.T) {
	b := NewBook("shop")
	b.Log(log("File", "/x", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY"))
	a := alert("AlertThreshold", "", "", "", "")
	a.Type, a.MaxAlertsPerSec, a.DroppingAlertsInterval = "SystemEvent", 10, 30
	b.Alert(a)
	c := b.Result(topology.New()).Profiles[web].Coverage
	if c.Lost["web-1: "+lostMuted] != 1 || len(c.LostAt) != 1 {
		t.Errorf("lost is %v at %v", c.Lost, c.LostAt)
	}
	if len(c.Hooks[behavior.File]) == 0 || len(c.Hooks[behavior.Process]) != 0 {
		t.Errorf("it claims to have watched %v, and was told of a file only", c.Hooks)
	}
}

// relay is a server that speaks KubeArmor's service; the daemon itself is served as
// no module and needs a kernel with its hooks.
type relay struct {
	pb.UnimplementedLogServiceServer
	logs   chan *pb.Log
	alerts chan *pb.Alert
}

func (*relay) HealthCheck(_ context.Context, n *pb.NonceMessage) (*pb.ReplyMessage, error) {
	return &pb.ReplyMessage{Retval: n.GetNonce()}, nil
}

func (r *relay) WatchLogs(_ *pb.RequestMessage, s pb.LogService_WatchLogsServer) error {
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case l := <-r.logs:
			if err := s.Send(l); err != nil {
				return err
			}
		}
	}
}

func (r *relay) WatchAlerts(_ *pb.RequestMessage, s pb.LogService_WatchAlertsServer) error {
	for {
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case a := <-r.alerts:
			if err := s.Send(a); err != nil {
				return err
			}
		}
	}
}

// serve starts the relay at an address, and gives where that is and what stops it.
func (r *relay) serve(t *testing.T, address string) (string, func()) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	pb.RegisterLogServiceServer(s, r)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String(), s.Stop
}

func TestARelayThatGoesAwayLeavesAGap(t *testing.T) {
	r := &relay{logs: make(chan *pb.Log, 10), alerts: make(chan *pb.Alert, 10)}
	address, stop := r.serve(t, "127.0.0.1:0")
	s := New(Options{Connect: source.Connector(address, nil, nil), Namespace: "shop"})
	if err := s.Check(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.logs <- log("File", "/a", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY")
	r.alerts <- alert("File", "/etc/shadow", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY", "Block", "Permission denied")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	step := 0
	_, err := source.Follow(ctx, source.Watch{Most: time.Hour}, time.Now, s, func(p source.Progress) {
		switch {
		case step == 0 && p.Events == 2:
			step++
			stop()
		case step == 1 && p.Broken != nil:
			step++
			r.serve(t, address)
			r.logs <- log("File", "/b", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY")
		case step == 2 && p.Facts == 2:
			step++
			cancel()
		}
	})
	if step != 3 || !errors.Is(err, context.Canceled) {
		t.Fatalf("it came to step %d: %v, %+v", step, err, s.Look())
	}
	result := s.Result(topology.New())
	p := result.Profiles[web]
	if len(texts(p)) != 2 || len(result.Denials) != 1 {
		t.Errorf("facts are %q, denials %v", texts(p), result.Denials)
	}
	if !slices.ContainsFunc(p.Coverage.Gaps, func(g string) bool { return strings.HasPrefix(g, "KubeArmor was not connected from ") }) {
		t.Errorf("gaps are %q", p.Coverage.Gaps)
	}
}

// FuzzAddJSON: whatever stands in a log, no fact is stated that nobody may state.
func FuzzAddJSON(f *testing.F) {
	f.Add("File", "/x", "syscall=SYS_OPENAT fd=-100 flags=O_RDONLY", "/srv/", "/bin/sh", int32(7))
	f.Add("Network", "remoteip=1.2.3.4 port=80", "kprobe=tcp_connect", "", "x", int32(0))
	f.Add("Network", "", "kfunc=UDP_SENDMSG,domain=a,daddr=::1,qtype=A", "", "", int32(1))
	f.Add("Process", "a b", "lsm=X", "\x00", "\xff", int32(1))
	f.Fuzz(func(t *testing.T, operation, resource, data, cwd, exe string, pid int32) {
		l := log(operation, resource, data)
		l.Cwd, l.ProcessName, l.ParentProcessName, l.PID = cwd, exe, exe, pid
		b := NewBook("shop")
		b.add(ofLog(l))
		for _, p := range b.Result(topology.New()).Profiles {
			for fact := range p.Facts.Keys() {
				if err := fact.Validate(); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
