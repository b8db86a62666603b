//go:build linux

package collector

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

// keeping is a bench that keeps its profile in a file.
func keeping(t *testing.T) *bench {
	b := newBench(t, DefaultLimits())
	b.keeper.path = filepath.Join(t.TempDir(), "profile")
	return b
}

func (b *bench) saved(counts bool) {
	b.t.Helper()
	if err := b.save(counts); err != nil {
		b.t.Fatal(err)
	}
}

// again is the collector that is started when this one was killed: in the same
// pod, with another kernel side, after a while. It has not looked at the processes
// yet.
func (b *bench) again(after time.Duration) *bench {
	b.t.Helper()
	n := &bench{t: b.t, kern: newFakeProbe(), procs: b.procs, clock: b.clock.Add(after), id: 1000}
	c, err := New(n.kern, Options{
		Node: "node-1", Version: "test", Epoch: "e2", Proc: b.procs.root, Limits: b.options.Limits,
		Now: func() time.Time { return n.clock }, Keep: b.keeper.path,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	c.pods = b.pods // the API server says the same
	n.Collector = c
	return n
}

func TestAProfileOutlivesItsCollector(t *testing.T) {
	b := keeping(t)
	b.pod("web-1", uidA, b.clock.Add(time.Second), [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.clock = b.clock.Add(time.Minute)
	b.sees(77, 100, runs("/app"))
	id := b.sees(77, 100, reads("/a"))
	b.pass(time.Second)
	b.saved(false)
	client := b.client()
	_, last := b.pull(client, &wirepb.PullRequest{})
	since := &wirepb.PullRequest{Epoch: last.Epoch, Since: last.Revision}

	b.sees(77, 100, reads("/b"))
	b.kern.counts[id] = 9
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	b.saved(true)
	at := b.clock
	b.clock = b.clock.Add(2 * time.Second)
	b.sees(77, 100, reads("/never written")) // and then it is killed

	n := b.again(5 * time.Second)
	n.pass(time.Second)
	n.want(idA, runs("/app"), reads("/a"), reads("/b"))
	if got := n.facts(idA)[reads("/a").String()]; got != 9 {
		t.Errorf("a count of 9 is %d", got)
	}
	n.sees(77, 100, reads("/a"))
	n.sees(77, 100, reads("/c"))
	facts, batch := n.pull(n.client(), since)
	if batch.Epoch != "e1" {
		t.Errorf("epoch is %s", batch.Epoch)
	}
	if facts[reads("/a")].Count != 10 {
		t.Errorf("9 times and once more are %d", facts[reads("/a")].Count)
	}
	if _, ok := facts[reads("/c")]; !ok {
		t.Errorf("a puller that goes on misses what is new: %v", facts)
	}
	if _, ok := facts[reads("/b")]; !ok {
		t.Errorf("a puller that goes on misses what was never told: %v", facts)
	}
	k := batch.Containers[0]
	for _, c := range batch.Containers {
		if c.Pod == "web-1" {
			k = c
		}
	}
	if want := (behavior.Span{First: at, Last: n.attached}); k.Lost[restartReason] != 1 || k.LostAt[restartReason] != want {
		t.Errorf("the hole is %d, %v; want 1, %v", k.Lost[restartReason], k.LostAt[restartReason], want)
	}
	if !k.Start || !k.From.Equal(b.store.containers[idA].from) || k.Terminated {
		t.Errorf("after the restart the container is %+v", k)
	}
}

func TestWhatHappenedWhileNoCollectorRan(t *testing.T) {
	b := keeping(t)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/a"))
	b.sees(99, 900, reads("/x"), idB) // nobody knows yet whose it is
	b.pass(time.Second)
	b.saved(true)
	hole := b.clock

	b.procs.exit("100") // one ended in the hole, one began, one begins after it
	idC := strings.Repeat("c", 64)
	const uidC = "2c7c5c2d-1111-4222-8333-444455556666"
	b.clock = b.clock.Add(time.Minute)
	b.pod("new-1", uidB, b.clock.Add(-30*time.Second), [2]string{"web", idB})
	b.procs.process("200", 78, cgroupOf(uidB, idB))
	n := b.again(0)
	n.pass(time.Second)
	n.clock = n.clock.Add(time.Second)
	n.pod("new-2", uidC, n.clock, [2]string{"web", idC})
	n.procs.process("300", 79, cgroupOf(uidC, idC))
	n.sees(79, 300, runs("/app"))
	n.pass(3 * time.Second)

	ended, began, after := n.store.containers[idA].wire(n.clock), n.store.containers[idB].wire(n.clock), n.store.containers[idC].wire(n.clock)
	if ended.Terminated || ended.To.After(n.attached) || ended.Lost[restartReason] != 1 {
		t.Errorf("the one that ended unseen is %+v", ended)
	}
	if began.Start || began.Lost[restartReason] != 1 || began.LostAt[restartReason].Last != n.attached {
		t.Errorf("the one that began unseen is %+v", began)
	}
	if !after.Start || len(after.Lost) > 0 {
		t.Errorf("the one that began later is %+v", after)
	}
	s := n.Status()
	const reason = "records whose container was not known when the collector restarted"
	if s.Lost[reason] != 1 || s.LostAt[reason].First != hole {
		t.Errorf("what was waiting is told as %v, %v", s.Lost, s.LostAt)
	}
}

func TestSecondsOfNothingNewMoveTheBeginOfTheHole(t *testing.T) {
	b := keeping(t)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/a"))
	b.saved(false)
	before := b.keeper.size
	for range 10 {
		b.clock = b.clock.Add(3 * time.Second)
		b.saved(false)
	}
	if n := b.keeper.size - before; n > 2000 {
		t.Errorf("30 seconds without news take %d bytes", n)
	}
	n := b.again(time.Second)
	if n.hole.First != b.clock {
		t.Errorf("the hole begins %s, want %s", n.hole.First, b.clock)
	}
}

func TestALossWithoutAFactIsWritten(t *testing.T) {
	b := keeping(t)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/a"))
	b.saved(false)
	b.record(Record{MountNS: 77, PID: 100, Time: b.clock, Fact: reads("/cut"), Truncated: true})
	b.saved(false)
	n := b.again(time.Second)
	if got := n.store.containers[idA].lost["path longer than the probe can follow"]; got != 1 {
		t.Errorf("lost is %v", n.store.containers[idA].lost)
	}
}

func TestAFileThatIsNotOursIsToldAndIgnored(t *testing.T) {
	frame := func(kind byte, text string) string {
		var b bytes.Buffer
		if err := writeFrame(&b, kind, []byte(text)); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	ours := frame(headerFrame, `{"format":1,"epoch":"old","node":"node-1"}`)
	for name, content := range map[string]string{
		"an empty file":                      "",
		"text":                               "a policy is as good as what was seen\n",
		"another format":                     frame(headerFrame, `{"format":2,"epoch":"old","node":"node-1"}`),
		"another node's":                     frame(headerFrame, `{"format":1,"epoch":"old","node":"node-2"}`),
		"a header that is not escaped":       frame(headerFrame, `{"format":1,"epoch":"\u001b","node":"node-1"}`),
		"a header and nothing else":          ours,
		"a state without a time":             ours + frame(stateFrame, `{}`),
		"a revision that leaves no room":     ours + frame(stateFrame, `{"at":"2026-01-01T00:00:00Z","revision":18446744073709551615}`),
		"a frame that claims to be enormous": ours + string(binary.BigEndian.AppendUint32(nil, 1<<31)) + "xxxxxxxxx",
	} {
		t.Run(name, func(t *testing.T) {
			b := keeping(t)
			if err := os.WriteFile(b.keeper.path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			n := b.again(time.Second)
			if n.options.Epoch != "e2" || len(n.store.containers) > 0 || !n.hole.Last.IsZero() {
				t.Errorf("it was believed: epoch %s, %d containers", n.options.Epoch, len(n.store.containers))
			}
			if p := n.Status().Problems; len(p) != 1 || !strings.HasPrefix(p[0], "restore profile: ") {
				t.Errorf("problems are %q", p)
			}
			n.saved(false) // and it is replaced
			if again := n.again(time.Second); again.options.Epoch != "e2" {
				t.Errorf("what replaced it is not read: %q", again.Status().Problems)
			}
		})
	}
}

func TestATornEndFallsAwayAndTheHoleBeginsBeforeIt(t *testing.T) {
	b := keeping(t)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/a"))
	b.saved(true)
	whole, first := b.keeper.size, b.clock
	b.clock = b.clock.Add(3 * time.Second)
	b.sees(77, 100, reads("/b"))
	b.saved(false)
	content, err := os.ReadFile(b.keeper.path)
	if err != nil {
		t.Fatal(err)
	}
	for end := whole; end < int64(len(content)); end += 5 {
		if err := os.WriteFile(b.keeper.path, content[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		n := b.again(time.Second)
		if n.options.Epoch != "e1" || n.facts(idA)[reads("/a").String()] != 1 || !n.hole.First.Equal(first) {
			t.Fatalf("cut at %d of %d: epoch %s, facts %v, hole from %s", end, len(content), n.options.Epoch, n.facts(idA), n.hole.First)
		}
	}
	for at := whole; at < int64(len(content)); at += 5 {
		changed := bytes.Clone(content)
		changed[at] ^= 0x20
		if err := os.WriteFile(b.keeper.path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := b.again(time.Second); n.facts(idA)[reads("/a").String()] != 1 || n.hole.First.After(b.clock) {
			t.Fatalf("changed at %d: facts %v, hole from %s", at, n.facts(idA), n.hole.First)
		}
	}
}

func TestTheFileIsWrittenAnewBeforeItGrowsWithoutEnd(t *testing.T) {
	b := keeping(t)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	for i := range 3000 {
		b.sees(77, 100, reads(fmt.Sprintf("/%d%s", i, strings.Repeat("x", 2000))))
	}
	b.saved(true)
	full := b.keeper.size
	for round := range 10 {
		for id := range b.kern.counts {
			b.kern.counts[id] = uint64(round + 2)
		}
		if err := b.refresh(); err != nil {
			t.Fatal(err)
		}
		b.saved(true)
		if b.keeper.size > 5*full {
			t.Fatalf("%d bytes after %d at first", b.keeper.size, full)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(b.keeper.path)); err != nil || len(entries) != 1 {
		t.Errorf("beside the file there are %v (%v)", entries, err)
	}
	if n := b.again(time.Second); len(n.facts(idA)) != 3000 || n.facts(idA)[reads("/0"+strings.Repeat("x", 2000)).String()] != 11 {
		t.Errorf("%d facts were read back", len(n.facts(idA)))
	}
}

func TestAFolderThatCannotBeWrittenIsAProblemAndEndsNothing(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.keeper.path = filepath.Join(t.TempDir(), "missing", "profile")
	if err := b.save(false); err == nil || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("error is %v", err)
	}
	if err := os.Mkdir(filepath.Dir(b.keeper.path), 0o700); err != nil {
		t.Fatal(err)
	}
	b.saved(false)
}

func TestTheEndOfARunWritesWhatIsNew(t *testing.T) {
	b := keeping(t)
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.sees(77, 100, reads("/a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.options.API = fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{{Version: "v1", Resource: "pods"}: "PodList"})
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := b.again(time.Second); n.facts(idA)[reads("/a").String()] != 1 {
		t.Errorf("facts are %v", n.facts(idA))
	}
}

func FuzzReadJournal(f *testing.F) {
	var b bytes.Buffer
	batch, err := proto.Marshal(&wirepb.Batch{Epoch: "e", Containers: []*wirepb.Container{wire.EncodeContainer(wire.Container{
		Namespace: "n", Pod: "p", Name: "c", ID: idA, Facts: []wire.Observation{{Fact: reads("/a"), Count: 1}},
	})}})
	if err == nil {
		err = errors.Join(
			writeJSON(&b, headerFrame, header{journalFormat, "e", "node-1"}), writeFrame(&b, batchFrame, batch),
			writeJSON(&b, stateFrame, state{At: time.Unix(1, 0), Revision: 7, Running: []string{idA}}),
		)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes(), true)
	f.Add([]byte("x"), false)
	f.Fuzz(func(t *testing.T, content []byte, checked bool) {
		if checked {
			content = rechecked(content)
		}
		s := newStore(Limits{ContainerFacts: 10, TotalFacts: 20, ReservedFacts: 5, SharedFacts: 10})
		j, err := readJournal(bytes.NewReader(content), "node-1", func(b wire.Batch) {
			for _, c := range b.Containers {
				s.restore(c)
			}
		})
		if err == nil && (j.state.At.IsZero() || j.header.Epoch == "") {
			t.Errorf("accepted %+v", j)
		}
		if s.facts > 20 {
			t.Errorf("%d facts were kept", s.facts)
		}
	})
}

// rechecked gives every frame the checksum that it needs, so that what is in it
// is looked at.
func rechecked(content []byte) []byte {
	content = bytes.Clone(content)
	for rest := content; len(rest) >= frameHead; {
		n := int(binary.BigEndian.Uint32(rest))
		if n > len(rest)-frameHead {
			break
		}
		binary.BigEndian.PutUint32(rest[4:], checksum(rest[8], rest[frameHead:frameHead+n]))
		rest = rest[frameHead+n:]
	}
	return content
}
