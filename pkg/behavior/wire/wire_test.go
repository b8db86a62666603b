package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire/wirepb"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func facts() []behavior.Fact {
	return []behavior.Fact{
		{Kind: behavior.Process, Path: "/bin/sh", Parent: "/usr/sbin/nginx"},
		{Kind: behavior.File, Exe: "/bin/sh", Path: behavior.Escape("/tmp/a\nb\x1b[31m\xff\"'"), Access: behavior.Read | behavior.Create},
		{Kind: behavior.File, Exe: "/runc", Runtime: true, Path: "/" + strings.Repeat("x", 4000), Access: behavior.Write},
		{Kind: behavior.Network, Exe: "/a", Direction: behavior.Egress, Protocol: "tcp", Port: 443, Peer: behavior.Peer{Address: netip.MustParseAddr("2001:db8::1")}},
		{Kind: behavior.Network, Exe: "/a", Direction: behavior.Listen, Protocol: "udp", Port: 65535},
		{Kind: behavior.Capability, Exe: "/a", Name: "NET_RAW", Syscall: "socket", Refused: true},
		{Kind: behavior.Syscall, Name: "openat", Arch: "amd64"},
		{Kind: behavior.Process, Path: "/run.sh", Interpreter: "/bin/sh", Arguments: "run.sh -x", Origin: behavior.OriginExec, Deleted: true},
		{Kind: behavior.File, Exe: "/a", Path: "/b", Access: behavior.Write, Operation: behavior.OpUnlink},
		{Kind: behavior.Network, Exe: "/a", Direction: behavior.Egress, Protocol: "tcp", Port: 8080, Via: netip.MustParseAddrPort("10.96.0.1:80"),
			Peer: behavior.Peer{Address: netip.MustParseAddr("10.0.0.1"), Name: "api.example"}},
		{Kind: behavior.DNS, Exe: "/a", Name: "api.example", Type: "CNAME", Target: "b.example"},
		{Kind: behavior.Socket, Exe: "/a", Family: "inet", Type: "raw", Protocol: "icmp"},
	}
}

func container() Container {
	c := Container{Namespace: "shop", Pod: "web-1", UID: "u", Name: "web", ID: strings.Repeat("a", 64), Image: "web:1", From: at, To: at.Add(time.Minute), Start: true, Lost: map[string]uint64{"fact limit": 3},
		Ready: true, Steady: true, Terminated: true, Restarts: 2, LostAt: map[string]behavior.Span{"fact limit": {First: at, Last: at}},
		Mounts: map[string]behavior.Mount{"/data": {Volume: "data", Kind: "emptyDir", ReadOnly: true}}}
	for i, f := range facts() {
		c.Facts = append(c.Facts, Observation{Fact: f, Count: uint64(i + 1), First: at, Last: at.Add(time.Second), Snapshot: i%2 == 0, Parents: []string{"/bin/sh"}})
	}
	return c
}

func status() Status {
	return Status{Version: "1", Epoch: "e", Node: "n", Ready: true, Started: at, Deadline: at, Pods: 1, Containers: 2, Facts: 3, NewFacts: 4, Unattributed: 5, Lost: map[string]uint64{"ring": 1}, Missing: []string{"capabilities"}, Problems: []string{"api away"},
		LostAt: map[string]behavior.Span{"ring": {First: at, Last: at}}, Hooks: map[behavior.Kind][]string{behavior.File: {"fentry", "tracepoint"}},
		Maps: map[string]behavior.MapUse{"files": {High: 1, Size: 2}}}
}

func TestABatchComesBackAsItWasSent(t *testing.T) {
	status := status()
	var got []Batch
	w := NewWriter("e", func(m *wirepb.Batch) error {
		raw, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		var back wirepb.Batch
		if err := proto.Unmarshal(raw, &back); err != nil {
			return err
		}
		b, err := DecodeBatch(&back)
		got = append(got, b)
		return err
	})
	want := container()
	for i, o := range want.Facts {
		if err := w.Add(want, o, uint64(i)+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(9, status); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || !reflect.DeepEqual(got[0].Containers, []Container{want}) || got[0].Revision != 9 || !reflect.DeepEqual(*got[0].Status, status) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestLargeFactsAreSplitIntoBatchesWithinTheLimit(t *testing.T) {
	const n = 500
	c := container()
	seen, batches, revision := 0, 0, uint64(0)
	w := NewWriter("e", func(m *wirepb.Batch) error {
		b, err := DecodeBatch(m)
		if err != nil {
			return err
		}
		if b.Revision < revision {
			t.Errorf("revision went back from %d to %d", revision, b.Revision)
		}
		revision = b.Revision
		batches++
		for _, c := range b.Containers {
			seen += len(c.Facts)
		}
		if uint64(seen) < b.Revision && b.Status == nil {
			t.Errorf("batch claims revision %d after %d facts", b.Revision, seen)
		}
		return nil
	})
	for i := range n {
		long := "/" + strings.Repeat(`\xff`, 4000)
		f := behavior.Fact{Kind: behavior.File, Exe: long, Path: long + fmt.Sprint(i), Access: behavior.Read}
		if err := w.Add(c, Observation{Fact: f, Count: 1, First: at, Last: at}, uint64(i)+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(n, Status{}); err != nil {
		t.Fatal(err)
	}
	if seen != n || batches < 10 {
		t.Errorf("%d facts in %d batches, want %d in many", seen, batches, n)
	}
}

func TestWhatNoCollectorMayStateIsRefused(t *testing.T) {
	base := func() *wirepb.Batch {
		return &wirepb.Batch{Containers: []*wirepb.Container{EncodeContainer(container())}}
	}
	for name, breakIt := range map[string]func(*wirepb.Batch){
		"a raw newline in a path":         func(b *wirepb.Batch) { b.Containers[0].Facts[1].Path = "/a\nb" },
		"an escape sequence in an image":  func(b *wirepb.Batch) { b.Containers[0].Image = "\x1b[0m" },
		"a fact of an unknown kind":       func(b *wirepb.Batch) { b.Containers[0].Facts[0].Kind = "magic" },
		"a port beyond 65535":             func(b *wirepb.Batch) { b.Containers[0].Facts[3].Port = 65536 },
		"an access bit that is not known": func(b *wirepb.Batch) { b.Containers[0].Facts[1].Access = 8 },
		"an address of five bytes":        func(b *wirepb.Batch) { b.Containers[0].Facts[3].Peer = []byte("12345") },
		"a text longer than any path":     func(b *wirepb.Batch) { b.Containers[0].Facts[1].Path = "/" + strings.Repeat("a", MaxText) },
		"a container without a pod":       func(b *wirepb.Batch) { b.Containers[0].Pod = "" },
		"a loss with a raw reason":        func(b *wirepb.Batch) { b.Containers[0].Lost = map[string]uint64{"\x00": 1} },
		"a time before all times":         func(b *wirepb.Batch) { b.Containers[0].Facts[0].First = -1 },
		"a time that JSON cannot write":   func(b *wirepb.Batch) { b.Containers[0].To = lastSecond + 1 },
		"a loss at a time without end":    func(b *wirepb.Batch) { b.Containers[0].LostAt["fact limit"].Last = math.MaxInt64 },
		"a status of another age":         func(b *wirepb.Batch) { b.Last, b.Status = true, &wirepb.StatusReply{Started: math.MinInt64} },
		"more parents than are kept":      func(b *wirepb.Batch) { b.Containers[0].Facts[0].Parents = []string{"/a", "/b", "/c", "/d", "/e"} },
		"a parent that is not escaped":    func(b *wirepb.Batch) { b.Containers[0].Facts[0].Parents = []string{"\n\r"} },
		"an origin that is not known":     func(b *wirepb.Batch) { b.Containers[0].Facts[0].Origin = "elsewhere" },
		"an operation on no file":         func(b *wirepb.Batch) { b.Containers[0].Facts[0].Operation = "unlink" },
		"a name with a raw byte":          func(b *wirepb.Batch) { b.Containers[0].Facts[9].PeerName = "a\x80" },
		"an address asked for of 3 bytes": func(b *wirepb.Batch) { b.Containers[0].Facts[9].Via = []byte("abc") },
		"a port asked for beyond 65535":   func(b *wirepb.Batch) { b.Containers[0].Facts[9].ViaPort = 1 << 20 },
		"a mount whose path is not text":  func(b *wirepb.Batch) { b.Containers[0].Mounts["/\n"] = &wirepb.Mount{} },
		"a hook of no kind": func(b *wirepb.Batch) {
			b.Last, b.Status = true, &wirepb.StatusReply{Hooks: map[string]string{"x": "y"}}
		},
		"a map whose name is not text": func(b *wirepb.Batch) {
			b.Last, b.Status = true, &wirepb.StatusReply{Maps: map[string]*wirepb.MapUse{"\x1b": {}}}
		},
		"a status with a raw problem": func(b *wirepb.Batch) { b.Last, b.Status = true, &wirepb.StatusReply{Problems: []string{"\r"}} },
	} {
		t.Run(name, func(t *testing.T) {
			b := base()
			breakIt(b)
			if _, err := DecodeBatch(b); !errors.Is(err, ErrMessage) {
				t.Errorf("got %v, want ErrMessage", err)
			} else if !behavior.IsEscaped(err.Error()) {
				t.Errorf("the error is not safe to print: %q", err)
			}
		})
	}
	if _, err := DecodeBatch(base()); err != nil {
		t.Errorf("the unbroken batch is refused: %v", err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	for _, fact := range facts() {
		if len(fact.Path) > 100 {
			continue // a long seed keeps the fuzzer busy with making it shorter
		}
		c := container()
		c.ID, c.Facts = "id", []Observation{{Fact: fact, Count: 1, First: at, Last: at, Snapshot: true, Parents: []string{"", "/bin/sh"}}}
		raw, err := proto.Marshal(&wirepb.Batch{Epoch: "e", Revision: 1, Containers: []*wirepb.Container{EncodeContainer(c)}, Last: true, Status: EncodeStatus(status())})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m wirepb.Batch
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		b, err := DecodeBatch(&m)
		if err != nil {
			if !behavior.IsEscaped(err.Error()) {
				t.Fatalf("error is not safe to print: %q", err)
			}
			return
		}
		if _, err := json.Marshal(b); err != nil {
			t.Fatalf("nothing can write it down: %v", err)
		}
		again := &wirepb.Batch{Epoch: b.Epoch, Revision: b.Revision}
		for _, c := range b.Containers {
			again.Containers = append(again.Containers, EncodeContainer(c))
		}
		if b.Status != nil {
			again.Last, again.Status = true, EncodeStatus(*b.Status)
		}
		second, err := DecodeBatch(again)
		if err != nil {
			t.Fatalf("encoded again it is refused: %v", err)
		}
		if !reflect.DeepEqual(second, b) {
			t.Fatalf("encoded again it differs:\n%+v\n%+v", b, second)
		}
	})
}

func FuzzDecodeStatus(f *testing.F) {
	raw, err := proto.Marshal(EncodeStatus(status()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m wirepb.StatusReply
		if proto.Unmarshal(raw, &m) != nil {
			return
		}
		s, err := DecodeStatus(&m)
		if err != nil {
			if !behavior.IsEscaped(err.Error()) {
				t.Fatalf("error is not safe to print: %q", err)
			}
			return
		}
		if _, err := json.Marshal(s); err != nil {
			t.Fatalf("nothing can write it down: %v", err)
		}
		second, err := DecodeStatus(EncodeStatus(s))
		if err != nil || !reflect.DeepEqual(second, s) {
			t.Fatalf("encoded again it differs: %v\n%+v\n%+v", err, s, second)
		}
	})
}
