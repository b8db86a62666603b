package learn_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

func runs(parent, path string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Process, Parent: parent, Path: path}
}

func opens(exe, path string, a behavior.Access, o behavior.Operation) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: a, Operation: o}
}

func listens(exe string, port uint16) behavior.Fact {
	return behavior.Fact{Kind: behavior.Network, Exe: exe, Direction: behavior.Listen, Protocol: "tcp", Port: port}
}

func connects(exe, address, name string, port uint16) behavior.Fact {
	return behavior.Fact{Kind: behavior.Network, Exe: exe, Direction: behavior.Egress, Protocol: "tcp", Port: port,
		Peer: behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr(address), Name: name}}
}

func callsAPI(exe string) behavior.Fact {
	f := connects(exe, "192.0.2.1", "", 6443)
	f.Peer.Kind = behavior.PeerAPIServer
	return f
}

func script(parent, path, interpreter string) behavior.Fact {
	f := runs(parent, path)
	f.Interpreter = interpreter
	return f
}

func deleted(f behavior.Fact) behavior.Fact {
	f.Deleted = true
	return f
}

const (
	w  = behavior.Write
	wc = behavior.Write | behavior.Create
	rd = behavior.Read
)

var began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// seen is a fact that happened some seconds after the container began, so often.
type seen struct {
	behavior.Fact
	after   int
	times   uint64
	parents []string
}

func life(facts ...any) behavior.Profile {
	p := behavior.Profile{Subject: behavior.Subject{Workload: web, Container: "web"}, Labels: "app=web"}
	for _, x := range facts {
		s, ok := x.(seen)
		if !ok {
			s = seen{Fact: x.(behavior.Fact), times: 1}
		}
		at := began.Add(time.Duration(s.after) * time.Second)
		p.Add(s.Fact, behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{"web-1": s.times}, Parents: s.parents})
	}
	return p
}

func rules(t *testing.T, p behavior.Profile, o learn.Options) policy.Set {
	t.Helper()
	set, err := learn.Rules([]behavior.Profile{p}, o)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const (
	nginx = "/usr/sbin/nginx"
	dash  = "/usr/bin/dash"
	node  = "/usr/local/bin/node"
	java  = "/usr/lib/jvm/bin/java"
	beam  = "/usr/lib/erlang/erts/bin/beam.smp"
	box   = "/bin/busybox"
)

func TestAttacksAreSetAside(t *testing.T) {
	server := []any{runs("", nginx), listens(nginx, 80)}
	for _, tt := range []struct {
		name  string
		facts []any
		class string
	}{
		{"a shell that a server runs", []any{seen{Fact: runs(nginx, dash), after: 9, times: 1}}, learn.ClassShell},
		{"a shell under one of busybox's names, which runs programs", []any{seen{Fact: runs(nginx, box), after: 9, times: 1}, runs(box, box)}, learn.ClassShell},
		{"a shell that a server runs, where it also starts with one", []any{runs("", node), listens(node, 80), seen{Fact: runs(node, dash), times: 2}, runs(dash, node)}, learn.ClassShell},
		{"a shell that is handed to the network", []any{runs("", "/usr/bin/ncat"), runs("/usr/bin/ncat", dash)}, learn.ClassShell},
		{"a shell that connects to an address outside", []any{runs("", "/usr/bin/bash"), connects("/usr/bin/bash", "203.0.113.9", "", 9001)}, learn.ClassReverseShell},
		{"a shell that connects to a name outside", []any{runs("", "/usr/bin/bash"), connects("/usr/bin/bash", "203.0.113.9", "c2.example", 443)}, learn.ClassReverseShell},
		{"a tool that waits for connections", []any{runs("", "/usr/bin/socat"), listens("/usr/bin/socat", 4242)}, learn.ClassListener},
		{"a program that is replaced", []any{opens(nginx, "/usr/bin/id", wc, behavior.OpRename)}, learn.ClassBinaryWritten},
		{"a library that is written", []any{opens(nginx, "/usr/lib/x86_64-linux-gnu/libc.so.6", w, "")}, learn.ClassBinaryWritten},
		{"a library that is preloaded", []any{opens(nginx, "/etc/ld.so.preload", wc, "")}, learn.ClassBinaryWritten},
		{"a program that is put down and run", []any{opens(nginx, "/tmp/x", wc, ""), runs(nginx, "/tmp/x")}, learn.ClassWrittenRun},
		{"a program that is renamed and run", []any{opens(nginx, "/tmp/y", wc, behavior.OpRename), runs(nginx, "/tmp/y")}, learn.ClassWrittenRun},
		{"a program in memory", []any{runs(nginx, "memfd:payload")}, learn.ClassHiddenRun},
		{"a program that was deleted", []any{deleted(runs(nginx, "/tmp/x"))}, learn.ClassHiddenRun},
		{"password hashes", []any{opens("/usr/bin/cat", "/etc/shadow", rd, "")}, learn.ClassSecretRead},
		{"password hashes that the server reads", []any{opens(nginx, "/etc/shadow", rd, "")}, learn.ClassSecretRead},
		{"a token that a tool reads", []any{opens("/usr/bin/cat", "/run/secrets/kubernetes.io/serviceaccount/..2026_11_22_08_29_01.4013239584/token", rd, "")}, learn.ClassSecretRead},
		{"a token that a tool reads, for another tool", []any{opens(box, "/run/secrets/kubernetes.io/serviceaccount/token", rd, ""), callsAPI("/usr/bin/curl")}, learn.ClassSecretRead},
		{"a private key that a tool reads", []any{opens("/usr/bin/base64", "/etc/ssl/private/site.key", rd, "")}, learn.ClassSecretRead},
		{"keys of a user", []any{opens("/usr/bin/tar", "/root/.ssh/id_ed25519", rd, "")}, learn.ClassSecretRead},
		{"the environment of the first process", []any{opens("/usr/bin/python3", "/proc/1/environ", rd, "")}, learn.ClassSecretRead},
		{"the memory of a process", []any{opens("/usr/bin/gdb", "/proc/77/mem", rd, "")}, learn.ClassSecretRead},
		{"the container runtime", []any{opens(nginx, "/run/containerd/containerd.sock", rd|w, behavior.OpConnect)}, learn.ClassRuntimeSocket},
		{"a mount", []any{behavior.Fact{Kind: behavior.Syscall, Name: "mount", Arch: "amd64"}}, learn.ClassEscape},
		{"a module", []any{behavior.Fact{Kind: behavior.Capability, Exe: nginx, Name: "SYS_MODULE", Syscall: "finit_module"}}, learn.ClassEscape},
		{"ptrace by its capability", []any{behavior.Fact{Kind: behavior.Capability, Exe: nginx, Name: "SYS_PTRACE", Syscall: "ptrace"}}, learn.ClassEscape},
		{"a release agent", []any{opens(nginx, "/sys/fs/cgroup/rdma/x/release_agent", w, "")}, learn.ClassEscape},
		{"the core pattern", []any{opens(nginx, "/proc/sys/kernel/core_pattern", w, "")}, learn.ClassEscape},
		{"a disk", []any{opens(nginx, "/dev/sda1", rd, "")}, learn.ClassEscape},
		{"a miner by its name", []any{runs(nginx, "/opt/xmrig")}, learn.ClassMiner},
		{"a pool by its port", []any{connects(nginx, "203.0.113.9", "", 3333)}, learn.ClassMiner},
		{"a pool by its name", []any{connects(nginx, "203.0.113.9", "pool.supportxmr.com", 443)}, learn.ClassMiner},
		{"a pool that is only asked for", []any{behavior.Fact{Kind: behavior.DNS, Exe: nginx, Name: "eu.stratum.antpool.com", Type: "A"}}, learn.ClassMiner},
		{"software that is installed", []any{runs(nginx, "/usr/bin/apt-get")}, learn.ClassPackages},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := rules(t, life(append(slices.Clone(server), tt.facts...)...), learn.Options{})
			if len(set.Suspicions) == 0 || set.Suspicions[0].Class != tt.class {
				t.Fatalf("suspicions are %v, want one of class %s", set.Suspicions, tt.class)
			}
			for _, s := range set.Suspicions {
				if s.Why == "" || s.Container != "web" || s.Decision != "" {
					t.Errorf("it is not whole: %+v", s)
				}
				for _, f := range append(slices.Clone(s.Facts), s.With...) {
					if set.Allows("web", f.Fact) {
						t.Errorf("set aside and allowed: %s", f.Fact)
					}
				}
			}
		})
	}
}

func TestWhatServersNormallyDoIsNotSuspicious(t *testing.T) {
	var scrape []any
	for i := range 200 {
		f := connects("/bin/prometheus", fmt.Sprintf("10.0.%d.%d", i/100, i%100+1), "", uint16(9100+i%5))
		f.Peer.Kind = behavior.PeerNode
		scrape = append(scrape, f)
	}
	var crawl []any
	for i := range 200 {
		crawl = append(crawl, connects("/bin/crawler", fmt.Sprintf("203.0.113.%d", i+1), fmt.Sprintf("site%d.example", i), 443))
	}
	entrypoint := []any{script("", "/docker-entrypoint.sh", dash), runs(dash, "/usr/bin/sed"), runs(dash, "/usr/bin/cat"), runs(dash, "/usr/bin/chown"),
		opens("/usr/bin/sed", "/etc/nginx/conf.d/default.conf", wc, ""), runs(dash, nginx), listens(nginx, 80), opens(nginx, "/etc/ssl/private/site.key", rd, ""),
		opens("/usr/bin/cat", "/run/secrets/db_password", rd, "")}
	for _, tt := range []struct {
		name  string
		facts []any
	}{
		{"an entrypoint script with tools", entrypoint},
		{"a script that waits for a service from the shell itself", []any{runs("", "/usr/bin/bash"), connects("/usr/bin/bash", "10.1.2.3", "db.example", 5432), runs("/usr/bin/bash", nginx)}},
		{"npm start", []any{runs("", node), runs(node, dash), runs(dash, node), seen{Fact: listens(node, 3000), after: 2, times: 1}}},
		{"npm start whose shell becomes the server", []any{runs("", node), runs(node, dash), runs(node, node), seen{Fact: listens(node, 3000), after: 2, times: 1}}},
		{"a supervisor that starts servers by a shell", []any{runs("", "/usr/bin/python3"), listens("/usr/bin/python3", 9001),
			seen{Fact: runs("/usr/bin/python3", dash), times: 2, after: 1}, seen{Fact: runs(dash, nginx), times: 2}, listens(nginx, 80)}},
		{"cron runs jobs by a shell and asks PAM", []any{runs("", "/usr/sbin/cron"), runs("/usr/sbin/cron", dash), runs(dash, "/usr/local/bin/job"), opens("/usr/sbin/cron", "/etc/shadow", rd, "")}},
		{"erlang's helper runs shells, and not the server", []any{runs("", beam), listens(beam, 5672), runs(beam, "/usr/lib/erlang/bin/erl_child_setup"),
			runs("/usr/lib/erlang/bin/erl_child_setup", dash), runs(dash, "/usr/bin/df"), listens(beam, 25672)}},
		{"a JVM maps libraries that it unpacked", []any{runs("", java), listens(java, 8080), opens(java, "/tmp/libnetty.so", wc, ""), opens(java, "/tmp/libnetty.so", rd, behavior.OpExecMap)}},
		{".NET maps code from memory", []any{runs("", "/usr/bin/dotnet"), opens("/usr/bin/dotnet", "memfd:doublemapper", rd|w, behavior.OpExecMap)}},
		{"Python compiles its modules", []any{runs("", "/usr/bin/python3.11"), opens("/usr/bin/python3.11", "/usr/lib/python3/dist-packages/__pycache__/a.cpython-311.pyc.140", wc, ""),
			opens("/usr/bin/python3.11", "/usr/lib/python3/dist-packages/__pycache__/a.cpython-311.pyc", wc, behavior.OpRename)}},
		{"postgres is started by a Perl wrapper that looks users up", []any{script("", "/usr/bin/pg_ctlcluster", "/usr/bin/perl"), opens("/usr/bin/perl", "/etc/shadow", rd, ""),
			runs("/usr/bin/perl", "/usr/lib/postgresql/15/bin/postgres"), listens("/usr/lib/postgresql/15/bin/postgres", 5432)}},
		{"a server under one of busybox's names", []any{runs("", box), listens(box, 80), runs(box, box)}},
		{"a server that runs one of busybox's tools", []any{runs("", "/shop"), listens("/shop", 80), runs("/shop", box)}},
		{"a controller reads its token", []any{runs("", "/manager"), opens("/manager", "/run/secrets/kubernetes.io/serviceaccount/token", rd, ""), callsAPI("/manager")}},
		{"a script hands the token to a controller", []any{runs("", dash), opens("/usr/bin/cat", "/run/secrets/kubernetes.io/serviceaccount/token", rd, ""), callsAPI("/manager"), runs(dash, "/manager")}},
		{"a client library reads the token and calls nobody", []any{runs("", java), opens(java, "/run/secrets/kubernetes.io/serviceaccount/token", rd, "")}},
		{"a database reads what is its own below /proc", []any{runs("", "/usr/sbin/mariadbd"), opens("/usr/sbin/mariadbd", "/proc/self/status", rd, ""), opens("/usr/sbin/mariadbd", "/proc/1/environ", rd, "")}},
		{"top looks at all processes", []any{runs("", dash), runs(dash, "/usr/bin/ps"), opens("/usr/bin/ps", "/proc/1/environ", rd, ""), opens("/usr/bin/ps", "/proc/77/stat", rd, "")}},
		{"a monitor reaches every node", append(scrape, runs("", "/bin/prometheus"), listens("/bin/prometheus", 9090))},
		{"a crawler reaches many names", append(crawl, runs("", "/bin/crawler"))},
		{"the kernel asks for a capability by the way", []any{runs("", nginx), behavior.Fact{Kind: behavior.Capability, Exe: nginx, Name: "SYS_ADMIN", Syscall: "mmap"},
			behavior.Fact{Kind: behavior.Capability, Exe: nginx, Name: "DAC_READ_SEARCH", Syscall: "openat"}, behavior.Fact{Kind: behavior.Capability, Exe: nginx, Name: "NET_BIND_SERVICE", Syscall: "bind"}}},
		{"a pool's port inside the cluster", []any{runs("", nginx), behavior.Fact{Kind: behavior.Network, Exe: nginx, Direction: behavior.Egress, Protocol: "tcp", Port: 4444,
			Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-selenium", Labels: "app=s"}}}},
		{"a probe with a shell", []any{runs("", nginx), listens(nginx, 80), behavior.Fact{Kind: behavior.Process, Path: dash, Origin: behavior.OriginProbe},
			behavior.Fact{Kind: behavior.Process, Parent: dash, Path: "/usr/bin/curl", Origin: behavior.OriginProbe}}},
		{"the runtime prepares the container", []any{runs("", nginx), behavior.Fact{Kind: behavior.File, Path: "/proc/sys/kernel/core_pattern", Access: w, Runtime: true},
			behavior.Fact{Kind: behavior.Process, Path: "memfd:runc", Runtime: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if set := rules(t, life(tt.facts...), learn.Options{}); len(set.Suspicions) > 0 {
				t.Errorf("set aside: %+v", set.Suspicions)
			}
		})
	}
}

// A scan is told by its haste: the same facts spread over days are none.
func TestAScanIsToldByItsHaste(t *testing.T) {
	for _, tt := range []struct {
		name    string
		seconds int // between two
		want    bool
	}{{"at once", 0, true}, {"one a second", 1, true}, {"one a minute", 60, false}} {
		ports, addresses := []any{runs("", nginx)}, []any{runs("", nginx)}
		for i := range 100 {
			ports = append(ports, seen{Fact: connects(nginx, "10.9.8.7", "", uint16(i+1)), after: i * tt.seconds, times: 1})
			addresses = append(addresses, seen{Fact: connects(nginx, fmt.Sprintf("10.9.8.%d", i+1), "", 22), after: i * tt.seconds / 2, times: 1})
		}
		for what, facts := range map[string][]any{"ports": ports, "addresses": addresses} {
			set := rules(t, life(facts...), learn.Options{})
			if found := len(set.Suspicions) == 1 && set.Suspicions[0].Class == learn.ClassScan; found != tt.want {
				t.Errorf("%s, %s: suspicions are %d, want a scan: %t", what, tt.name, len(set.Suspicions), tt.want)
			}
		}
	}
}

func TestWhatOnlyASuspiciousProgramDidGoesWithIt(t *testing.T) {
	facts := []any{runs("", nginx), listens(nginx, 80), runs("", dash), opens(dash, "/etc/passwd", rd, ""),
		seen{Fact: runs(nginx, dash), after: 60, times: 1},
		seen{Fact: opens(dash, "/etc/hosts", rd, ""), times: 1, parents: []string{nginx}},
		seen{Fact: opens(dash, "/etc/group", rd, ""), times: 1, parents: []string{"", nginx}},
	}
	other := []any{runs("", nginx), listens(nginx, 80), seen{Fact: runs(nginx, "/usr/bin/bash"), after: 60, times: 1}, runs("/usr/bin/bash", "/usr/bin/id"), opens("/usr/bin/id", "/etc/passwd", rd, "")}
	for _, tt := range []struct {
		name  string
		facts []any
		with  []behavior.Fact
	}{
		{"of a shell that the entrypoint runs too, what its parent proves", facts, []behavior.Fact{opens(dash, "/etc/hosts", rd, "")}},
		{"of a shell that nobody else runs, everything", other, []behavior.Fact{runs("/usr/bin/bash", "/usr/bin/id"), opens("/usr/bin/id", "/etc/passwd", rd, "")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := rules(t, life(tt.facts...), learn.Options{})
			if len(set.Suspicions) != 1 {
				t.Fatalf("suspicions: %+v", set.Suspicions)
			}
			var with []behavior.Fact
			for _, o := range set.Suspicions[0].With {
				with = append(with, o.Fact)
			}
			if !slices.Equal(with, tt.with) {
				t.Errorf("with it goes %v, want %v", with, tt.with)
			}
			accepted := rules(t, life(tt.facts...), learn.Options{Decided: func(_ string, f behavior.Fact) policy.Decision {
				if f == set.Suspicions[0].Facts[0].Fact {
					return policy.Accepted
				}
				return ""
			}})
			for _, f := range append(tt.with, set.Suspicions[0].Facts[0].Fact) {
				if !accepted.Allows("web", f) {
					t.Errorf("accepted and not learned: %s", f)
				}
			}
		})
	}
}

// Whatever was seen and whatever was decided: a fact is in a rule or set aside and
// never both, what is accepted is learned, and neither order matters.
func TestDecisionsHold(t *testing.T) {
	aside := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		facts := random(r, 20+r.IntN(300))
		decisions := map[behavior.Fact]policy.Decision{}
		for _, f := range facts {
			decisions[f] = []policy.Decision{"", "", "", policy.Accepted, policy.Declined, policy.Postponed}[r.IntN(6)]
		}
		o := learn.Options{Entered: true, Decided: func(_ string, f behavior.Fact) policy.Decision { return decisions[f] }}
		set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, o)
		if err != nil {
			t.Fatal(err)
		}
		carried, out := map[behavior.Fact]bool{}, map[behavior.Fact]bool{}
		for _, rule := range set.Rules {
			for _, f := range rule.Facts.List() {
				carried[f.Fact] = true
			}
		}
		for _, s := range set.Suspicions {
			for _, f := range append(slices.Clone(s.Facts), s.With...) {
				out[f.Fact] = true
				aside++
			}
			for _, f := range s.Facts {
				if decisions[f.Fact] != s.Decision || s.Decision == policy.Accepted {
					t.Errorf("seed %d: %s was %q, and is set aside as %q", seed, f.Fact, decisions[f.Fact], s.Decision)
				}
			}
		}
		for _, f := range facts {
			if carried[f] && out[f] || learnt(f) && !carried[f] && !out[f] {
				t.Errorf("seed %d: in a rule %t, set aside %t: %s", seed, carried[f], out[f], f)
			}
			switch decisions[f] {
			case policy.Accepted:
				if learnt(f) && !set.Allows("web", f) {
					t.Errorf("seed %d: accepted and not allowed: %s", seed, f)
				}
			case policy.Declined, policy.Postponed:
				if learnt(f) && carried[f] {
					t.Errorf("seed %d: %s and in a rule: %s", seed, decisions[f], f)
				}
			}
		}
		r.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
		if again, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, o); err != nil || spelled(again) != spelled(set) {
			t.Errorf("seed %d: shuffled facts made another set (%v)", seed, err)
		}
	}
	if aside < 1000 {
		t.Errorf("only %d facts were set aside", aside)
	}
}
