//go:build linux

package probe

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/autopolicy/kubectl-autopolicy/bpf"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// rareFacts are actions whose facts nobody else's may push out, and those facts.
func rareFacts() ([]string, []behavior.Fact) {
	lines := []string{"read /etc/config", "read /etc/other", "tcp 127.0.0.1:7777", "run /bin/tool true"}
	want := []behavior.Fact{
		file("/etc/config", behavior.Read), file("/etc/other", behavior.Read),
		socket(behavior.Listen, "tcp", 7777, ""), {Kind: behavior.Process, Path: "/bin/tool", Parent: "/bin/app"},
	}
	for i := range 20 {
		name := fmt.Sprintf("/tmp/rare-%d", i)
		lines = append(lines, "create "+name)
		want = append(want, file(name, behavior.Read|behavior.Write|behavior.Create))
	}
	return lines, want
}

func lostOf(t *testing.T, p *Probe, c *container) map[string]uint64 {
	t.Helper()
	l, err := p.Lost()
	if err != nil {
		t.Fatal(err)
	}
	return l.Namespace[c.mntns]
}

func TestOneContainersFloodLeavesRoomInTheMapsForOthers(t *testing.T) {
	p := requireProbe(t, Options{Files: 2048, Processes: 64})
	flood := newContainer(t, "many", "/tmp", "4000", "--", "pause", "--", "many", "/mnt", "4000", "--", "pause")
	floodRecords := record(t, p, 0)
	flood.resume(t)
	lines, want := rareFacts()
	quiet := newContainer(t, actions(append(slices.Clone(lines), lines[:2]...)...)...)
	flood.resume(t)
	quiet.run(t)
	floodRecords.stop()
	var own []Record
	for _, r := range floodRecords.all() {
		if r.MountNS == quiet.mntns {
			own = append(own, r)
		}
	}
	for _, fact := range want {
		if r := wantFact(t, own, fact); r.ID == 0 {
			t.Errorf("not counted: %s", fact)
		}
	}
	if l := lostOf(t, p, quiet); l["map full: file"]+l["share of map used up: file"] > 0 {
		t.Errorf("the quiet one lost %v", l)
	}
	if l := lostOf(t, p, flood); l["share of map used up: file"] == 0 {
		t.Errorf("the flood lost %v", l)
	}
	use, err := p.MapUse()
	if err != nil || use["files"].High < 1024 || use["files"].High >= 2048 {
		t.Errorf("use is %+v, %v; want half of the map and less than all", use["files"], err)
	}
}

func TestOneContainersFloodLeavesRoomInTheRingForOthers(t *testing.T) {
	p := requireProbe(t, Options{RingBytes: 1 << 20})
	flood := newContainer(t, "many", "/tmp", "12000", "--", "pause")
	flood.resume(t) // nobody reads
	lines, want := rareFacts()
	quiet := newContainer(t, actions(append(lines, "pause")...)...)
	quiet.resume(t)
	if l := lostOf(t, p, quiet); len(l) > 0 {
		t.Errorf("the quiet one lost %v", l)
	}
	if l := lostOf(t, p, flood); l["share of ring buffer used up: file"] == 0 || l["ring buffer full: file"] > 0 {
		t.Errorf("the flood lost %v", l)
	}
	r := record(t, p, quiet.mntns)
	quiet.run(t)
	r.stop()
	for _, fact := range want {
		wantFact(t, r.all(), fact)
	}
}

// A reader that keeps up gives a flood all the room that it needs.
func TestWhoFillsTheRingMayGoOnOnceItIsRead(t *testing.T) {
	p := requireProbe(t, Options{RingBytes: 256 << 10})
	flood := newContainer(t, "many", "/tmp", "4000", "--", "pause", "--", "many", "/tmp", "4000")
	flood.resume(t)
	r := record(t, p, flood.mntns)
	flood.run(t)
	r.stop()
	found := map[string]bool{}
	for _, rec := range r.all() {
		if strings.HasPrefix(rec.Fact.Path, "/tmp/file-") {
			found[rec.Fact.Path] = true
		}
	}
	l := lostOf(t, p, flood)
	if lost := int(l["share of ring buffer used up: file"] + l["ring buffer full: file"]); len(found) < 1000 || len(found)+lost < 4000 {
		t.Errorf("%d files found, %d lost: some are lost silently", len(found), lost)
	}
}

// Who enters and starts process after process takes no more than a share, and what
// is not known any more is said.
func TestOneContainersSessionsLeaveRoomForOthers(t *testing.T) {
	p := requireProbe(t, Options{})
	box := newContainer(t, actions("pause")...)
	box.resume(t)
	var action []string
	for range 50 {
		action = append(action, "run", "/bin/tool", "true", "--")
	}
	box.enter(t, "setns", append([]string{"/bin/app"}, action...)...)
	use, err := p.MapUse()
	if err != nil || use["entrants"].High < 1 || use["entrants"].High > 50 {
		t.Errorf("at most %d at once, %v; want those that live together, not all that ever did", use["entrants"].High, err)
	}
	box.run(t)
}

// What one container takes of the kernel's memory for system calls and
// capabilities: an entry for its system calls, and one for each capability that it
// uses in another way, with what the kernel's hash table needs beside key and
// value. Two dozen are more than the container runtime and a server need.
func TestRoomThatAContainerTakesForCallsAndCapabilities(t *testing.T) {
	const element, bucket, capabilities, most = 48, 16, 24, 8 << 10
	namespace := element + 8 + unsafe.Sizeof(bpf.FloorNamespace{}) + bucket
	capability := element + unsafe.Sizeof(bpf.FloorCapabilityKey{}) + unsafe.Sizeof(bpf.FloorSeen{}) + bucket
	if total := namespace + capabilities*capability; total > most {
		t.Errorf("%d bytes for system calls and %d for each capability: %d with %d, want at most %d", namespace, capability, total, capabilities, most)
	}
	p := requireProbe(t, Options{})
	before, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	_, records := observe(t, p, actions("socket 2 3 1", "bind /etc /mnt", "chroot /")...)
	keys := 0
	for _, r := range records {
		if r.Fact.Kind == behavior.Capability {
			keys++
		}
	}
	t.Logf("%d bytes for system calls, %d for each of %d capabilities; map held %d of %d", namespace, capability, keys,
		before.Maps["capabilities"].Used, before.Maps["capabilities"].Size)
	if keys > capabilities {
		t.Errorf("a container that does three things takes %d entries", keys)
	}
}
