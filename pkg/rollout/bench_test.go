package rollout_test

import (
	"fmt"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// large is a namespace of workloads with three policies each, and what each of
// their containers was seen doing.
func large(b *testing.B, workloads, facts int) (overlay.Tree, []behavior.Profile) {
	b.Helper()
	var list []behavior.Profile
	for i := range workloads {
		p := profile(fmt.Sprintf("web-%04d", i))
		for j := range facts - 4 {
			p.Add(reads("/usr/bin/web", fmt.Sprintf("/srv/%c%d/data", 'a'+rune(j%26), j)), behavior.Evidence{First: noon, Last: noon, Pods: map[string]uint64{"web-1": 1}})
		}
		list = append(list, p)
	}
	plan, err := rollout.Discover(input(nil, list...), rollout.DiscoverOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return overlay.Tree{}.With(plan.Files), list
}

func BenchmarkPromote(b *testing.B) {
	for _, workloads := range []int{67, 667} {
		b.Run(fmt.Sprintf("%d policies, %d facts", 3*workloads, 150*workloads), func(b *testing.B) {
			tree, list := large(b, workloads, 150)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := rollout.Promote(input(tree, list...), rollout.PromoteOptions{To: policy.Deny}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDiscoverNothingNew(b *testing.B) {
	tree, list := large(b, 67, 150)
	b.ReportAllocs()
	for b.Loop() {
		if plan, err := rollout.Discover(input(tree, list...), rollout.DiscoverOptions{}); err != nil || !plan.Empty() {
			b.Fatal(err, len(plan.Files))
		}
	}
}

// plenty is a namespace of workloads with a policy of every engine each, and 200
// facts each: as many files, system calls, peers, programs and capabilities as a
// web service has.
func plenty(b *testing.B, workloads int) (overlay.Tree, []behavior.Profile) {
	b.Helper()
	var list []behavior.Profile
	for i := range workloads {
		name := fmt.Sprintf("web-%04d", i)
		exe := "/usr/bin/" + name
		var facts []behavior.Fact
		for j := range 110 {
			facts = append(facts, reads(exe, fmt.Sprintf("/srv/%c%c/data", 'a'+rune(j%26), 'a'+rune(j/26))))
		}
		for j := range 60 {
			facts = append(facts, behavior.Fact{Kind: behavior.Syscall, Name: seccompNames()[j], Arch: "amd64"})
		}
		for j := range 16 {
			peer := fmt.Sprintf("web-%04d", (i+j+1)%workloads)
			facts = append(facts, behavior.Fact{Kind: behavior.Network, Exe: exe, Direction: []behavior.Direction{behavior.Egress, behavior.Ingress}[j%2], Protocol: "tcp", Port: 8080,
				Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-" + peer, Labels: "app=" + peer}})
		}
		for j := range 6 {
			facts = append(facts, behavior.Fact{Kind: behavior.Process, Path: fmt.Sprintf("/usr/bin/tool-%c", 'a'+rune(j)), Parent: exe})
		}
		for _, c := range []string{"NET_BIND_SERVICE", "CHOWN", "SETUID"} {
			facts = append(facts, behavior.Fact{Kind: behavior.Capability, Exe: exe, Name: c, Syscall: "bind"})
		}
		list = append(list, profile(name, facts...))
	}
	plan, err := rollout.Discover(realInput(nil, list...), rollout.DiscoverOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return overlay.Tree{}.With(plan.Files), list
}

func seccompNames() []string {
	return []string{"read", "write", "openat", "close", "stat", "fstat", "lstat", "poll", "lseek", "mmap", "mprotect", "munmap", "brk", "rt_sigaction",
		"rt_sigprocmask", "ioctl", "pread64", "pwrite64", "readv", "writev", "access", "pipe", "select", "sched_yield", "mremap", "msync", "mincore", "madvise",
		"dup", "dup2", "nanosleep", "getitimer", "alarm", "getpid", "sendfile", "socket", "connect", "accept", "sendto", "recvfrom", "sendmsg", "recvmsg",
		"shutdown", "bind", "listen", "getsockname", "getpeername", "socketpair", "setsockopt", "getsockopt", "clone", "fork", "execve", "exit", "wait4",
		"kill", "uname", "fcntl", "flock", "fsync"}
}

// BenchmarkPromoteRealEngines promotes with the engines that people use.
func BenchmarkPromoteRealEngines(b *testing.B) {
	for _, workloads := range []int{50, 500} {
		b.Run(fmt.Sprintf("%d policies, %d facts", 4*workloads, 200*workloads), func(b *testing.B) {
			tree, list := plenty(b, workloads)
			b.ReportAllocs()
			for b.Loop() {
				// Forced, because what is measured is the plan, whatever else the gate asks for.
				if _, v, err := rollout.Promote(realInput(tree, list...), rollout.PromoteOptions{To: policy.Deny, Force: "bench"}); err != nil || v.Facts == 0 {
					b.Fatal(err, v.Facts)
				}
			}
		})
	}
}

// BenchmarkProof proves that a namespace of 2,000 policies builds, beside
// kustomize that builds the same files with nothing around it.
func BenchmarkProof(b *testing.B) {
	tree, _ := plenty(b, 500)
	b.Run("overlay", func(b *testing.B) {
		for b.Loop() {
			if err := overlay.Check(tree); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("krusty", func(b *testing.B) {
		fsys := filesys.MakeFsInMemory()
		for p, data := range tree {
			if err := fsys.WriteFile("/tree/"+p, data); err != nil {
				b.Fatal(err)
			}
		}
		for b.Loop() {
			if _, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fsys, "/tree"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
