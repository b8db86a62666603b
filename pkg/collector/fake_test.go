//go:build linux

package collector

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/probe"
)

// fakeProbe is a kernel that tests plant facts in.
type fakeProbe struct {
	mu        sync.Mutex
	counts    map[uint64]uint64
	calls     map[uint32][]SyscallSet
	lost      map[string]uint64
	spaceLost map[uint32]map[string]uint64
	ignored   map[uint32]bool
	forgot    map[uint32]int
	lastSeen  time.Time
	err       error // of Syscalls
	forgetErr error
}

func newFakeProbe() *fakeProbe {
	return &fakeProbe{counts: map[uint64]uint64{}, calls: map[uint32][]SyscallSet{}, lost: map[string]uint64{}, spaceLost: map[uint32]map[string]uint64{}, ignored: map[uint32]bool{}, forgot: map[uint32]int{}}
}

func (p *fakeProbe) Run(ctx context.Context, _ func(Record)) error {
	<-ctx.Done()
	return nil
}

func (p *fakeProbe) Counts(f func(id, count uint64, first, last time.Time)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, n := range p.counts {
		f(id, n, time.Time{}, p.lastSeen)
	}
	return nil
}

func (p *fakeProbe) Syscalls() (map[uint32][]SyscallSet, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	calls := map[uint32][]SyscallSet{}
	for ns, sets := range p.calls {
		calls[ns] = slices.Clone(sets) // the caller's to change
	}
	return calls, p.err
}

func (p *fakeProbe) Lost() (probe.Losses, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return probe.Losses{Node: maps.Clone(p.lost), Namespace: maps.Clone(p.spaceLost)}, nil
}

func (p *fakeProbe) MapUse() (map[string]behavior.MapUse, error) {
	return map[string]behavior.MapUse{"files": {High: 7, Size: 10}}, nil
}
func (p *fakeProbe) Hooks() map[behavior.Kind][]string {
	return map[behavior.Kind][]string{behavior.File: {"tracepoint"}, behavior.DNS: {"cgroup"}}
}
func (p *fakeProbe) Missing() []string { return []string{"capabilities"} }

func (p *fakeProbe) Ignore(ns uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ignored[ns] = true
	return nil
}

func (p *fakeProbe) Heed(ns uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ignored, ns)
	return nil
}

func (p *fakeProbe) Forget(ns, generation uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[ns] = slices.DeleteFunc(slices.Clone(p.calls[ns]), func(s SyscallSet) bool { return s.Generation == generation })
	p.forgot[ns]++
	return p.forgetErr
}

// fakeProc is a proc file system in a folder.
type fakeProc struct {
	t    *testing.T
	root string
}

func newFakeProc(t *testing.T) fakeProc {
	p := fakeProc{t, t.TempDir()}
	p.process("1", 1, "/init.scope")
	p.process("self", 2, "/")
	return p
}

func (p fakeProc) write(name, content string) {
	p.t.Helper()
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p fakeProc) link(name, target string) {
	p.t.Helper()
	path := filepath.Join(p.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		p.t.Fatal(err)
	}
}

func (p fakeProc) process(pid string, ns uint32, cgroup string) {
	p.t.Helper()
	p.link(pid+"/ns/mnt", fmt.Sprintf("mnt:[%d]", ns))
	p.write(pid+"/cgroup", "0::"+cgroup+"\n")
}

func (p fakeProc) exit(pid string) {
	p.t.Helper()
	if err := os.RemoveAll(filepath.Join(p.root, pid)); err != nil {
		p.t.Fatal(err)
	}
}

// bench is a collector with everything around it planted.
type bench struct {
	*Collector
	t     *testing.T
	kern  *fakeProbe
	procs fakeProc
	clock time.Time
	id    uint64
}

func newBench(t *testing.T, limits Limits) *bench {
	b := &bench{t: t, kern: newFakeProbe(), procs: newFakeProc(t), clock: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)}
	c, err := New(b.kern, Options{Node: "node-1", Version: "test", Epoch: "e1", Proc: b.procs.root, Limits: limits, Now: func() time.Time { return b.clock }})
	if err != nil {
		t.Fatal(err)
	}
	c.pods.synced = true
	b.Collector = c
	return b
}

// pass lets time go by and looks at the processes.
func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	b.clock = b.clock.Add(d)
	if err := b.Collector.scan(); err != nil {
		b.t.Fatal(err)
	}
}

func reads(path string) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: "/app", Path: path, Access: behavior.Read}
}

func runs(path string) behavior.Fact { return behavior.Fact{Kind: behavior.Process, Path: path} }

func (b *bench) sees(ns uint32, pid int, f behavior.Fact, names ...string) uint64 {
	b.id++
	b.kern.counts[b.id] = 1
	b.record(Record{MountNS: ns, PID: pid, CgroupNames: names, ID: b.id, Time: b.clock, Fact: f})
	return b.id
}

// pod lets the API server name a pod of this node. Each container is a name and
// an ID, which is empty when it is not known yet.
func (b *bench) pod(name, uid string, started time.Time, containers ...[2]string) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid)}}
	for _, c := range containers {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: c[0], Image: "localhost/" + c[0] + ":1"})
		if c[1] == "" {
			continue
		}
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c[0], ContainerID: "containerd://" + c[1], ImageID: "sha256:1234",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(started)}},
		})
	}
	b.pods.set(p)
}

// facts gives how often each fact of a container was seen, by its words.
func (b *bench) facts(id string) map[string]uint64 {
	found := map[string]uint64{}
	if c := b.store.containers[id]; c != nil {
		for f, e := range c.entries {
			found[f.Value().String()] = e.count
		}
	}
	return found
}

func (b *bench) want(id string, facts ...behavior.Fact) {
	b.t.Helper()
	got := b.facts(id)
	want := map[string]bool{}
	for _, f := range facts {
		want[f.String()] = true
		if _, ok := got[f.String()]; !ok {
			b.t.Errorf("container %.4s lacks %q", id, f)
		}
	}
	for f := range got {
		if !want[f] {
			b.t.Errorf("container %.4s has %q too", id, f)
		}
	}
}

func cgroupOf(uid, id string) string { return "/kubepods/burstable/pod" + uid + "/" + id }
