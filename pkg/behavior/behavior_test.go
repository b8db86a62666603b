package behavior

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"testing/quick"
	"time"

	"sigs.k8s.io/yaml"
)

// random makes profiles out of few names, so that they collide often.
func random(r *rand.Rand) Profile {
	p := Profile{Subject: Subject{Workload{"shop", "Deployment", "web"}, "web"}, Labels: []string{"", "app=web"}[r.IntN(2)]}
	at := func() time.Time { return time.Unix(int64(1_700_000_000+r.IntN(5)), 0).UTC() }
	for range r.IntN(8) {
		f := []Fact{
			{Kind: Process, Path: fmt.Sprint("/bin/", r.IntN(3)), Parent: fmt.Sprint("/bin/", r.IntN(2))},
			{Kind: File, Exe: "/a", Path: Escape(string([]byte{'/', byte(r.IntN(256)), '\n'})), Access: Access(1 + r.IntN(7))},
			{Kind: Network, Direction: Egress, Protocol: "tcp", Port: uint16(r.IntN(3)), Peer: Peer{Kind: PeerOutside, Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(3))})}},
			{Kind: Syscall, Name: fmt.Sprint("s", r.IntN(4)), Arch: "amd64"},
			{Kind: Capability, Name: "NET_RAW", Syscall: "socket", Refused: r.IntN(2) == 0},
			{Kind: File, Exe: "/a", Path: "/d", Access: Write, Operation: Operations()[r.IntN(len(Operations()))], Deleted: r.IntN(2) == 0},
			{Kind: DNS, Exe: "/a", Name: "a.example", Type: []string{"A", "AAAA"}[r.IntN(2)], Target: []string{"", "b.example"}[r.IntN(2)]},
			{Kind: Socket, Exe: "/a", Family: "inet", Type: "raw", Protocol: []string{"icmp", "tcp"}[r.IntN(2)], Origin: []Origin{"", OriginExec}[r.IntN(2)]},
		}[r.IntN(8)]
		e := Evidence{First: at(), Last: at(), Pods: map[string]uint64{fmt.Sprint("pod", r.IntN(3)): uint64(r.IntN(9))}, Snapshot: r.IntN(2) == 0,
			Witnesses: [][]string{nil, {ByHubble}, {ByHubble, ByKubeArmor}}[r.IntN(3)]}
		for i := range MaxParents + 2 {
			if r.IntN(4) == 0 {
				e.Parents = append(e.Parents, fmt.Sprint("/bin/", i))
			}
		}
		p.Add(f, e)
	}
	p.Coverage = Coverage{
		Pods:     map[string]PodCoverage{fmt.Sprint("pod", r.IntN(3)): {Node: fmt.Sprint("n", r.IntN(2)), Image: "i", From: at(), To: at(), Start: r.IntN(2) == 0, Held: []string{fmt.Sprint("CAP_", r.IntN(3))}}},
		Replicas: r.IntN(3),
		Lost:     map[string]uint64{"n: ring full": uint64(r.IntN(3))},
		Gaps:     []string{fmt.Sprint("gap", r.IntN(2))},
		LostAt:   map[string]Span{"n: ring full": {at(), at()}},
		Hooks:    map[Kind][]string{File: {[]string{"fentry", "tracepoint"}[r.IntN(2)]}},
		Maps:     map[string]MapUse{"n: files": {r.Uint64N(4), 4}},
		Mounts:   map[string]Mount{"/data": {"data", []string{"emptyDir", "hostPath"}[r.IntN(2)], r.IntN(2) == 0}},
	}
	return p
}

// same compares what profiles hold.
func same(x, y Profile) bool {
	facts := reflect.DeepEqual(x.Facts.Map(), y.Facts.Map())
	x.Facts, y.Facts = Facts{}, Facts{}
	return facts && reflect.DeepEqual(x, y)
}

func TestMergeIsCommutativeAssociativeAndIdempotent(t *testing.T) {
	law := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		a, b, c := random(r), random(r), random(r)
		ab := Merge(a, b)
		return same(ab, Merge(b, a)) && same(Merge(ab, c), Merge(a, Merge(b, c))) && same(Merge(ab, ab), ab) && same(Merge(ab, b), ab)
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func TestMergeSharesNoMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	a := random(r)
	for a.Facts.Len() == 0 {
		a = random(r)
	}
	m, before := Merge(a, a), a.Facts.Map()
	for f := range before {
		m.Add(f, Evidence{Pods: map[string]uint64{"other": 1}, Parents: []string{"/bin/other"}})
		f.Path += "/other"
		m.Add(f, Evidence{})
	}
	if m.Facts.Len() != 2*len(before) || !reflect.DeepEqual(a.Facts.Map(), before) {
		t.Fatal("writing to the merged profile changed its origin")
	}
}

func TestCompareIsATotalOrderOnFacts(t *testing.T) {
	law := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 2))
		for f := range random(r).Facts.Keys() {
			for g := range random(r).Facts.Keys() {
				if (Compare(f, g) == 0) != (f == g) || Compare(f, g) != -Compare(g, f) {
					t.Logf("%+v, %+v", f, g)
					return false
				}
			}
		}
		return true
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

// Every field of a fact must take part in Compare, or two facts would change
// places from run to run.
func TestCompareLooksAtEveryField(t *testing.T) {
	fields(reflect.TypeFor[Fact](), nil, func(path []int, name string) {
		var a, b Fact
		v := reflect.ValueOf(&b).Elem().FieldByIndex(path)
		switch v.Kind() {
		case reflect.String:
			v.SetString("network")
		case reflect.Uint8, reflect.Uint16:
			v.SetUint(1)
		case reflect.Bool:
			v.SetBool(true)
		default:
			if v.Type() == reflect.TypeFor[netip.AddrPort]() {
				v.Set(reflect.ValueOf(netip.AddrPortFrom(netip.IPv6Loopback(), 1)))
			} else {
				v.Set(reflect.ValueOf(netip.IPv6Loopback()))
			}
		}
		if Compare(a, b) == 0 {
			t.Errorf("facts that differ in %s compare as equal", name)
		}
	})
}

func fields(typ reflect.Type, path []int, visit func([]int, string)) {
	for i := range typ.NumField() {
		f, p := typ.Field(i), append(append([]int{}, path...), i)
		if f.Type == reflect.TypeFor[Peer]() {
			fields(f.Type, p, visit)
			continue
		}
		visit(p, f.Name)
	}
}

func TestAProfileSurvivesItsFile(t *testing.T) {
	law := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 3))
		p := Merge(random(r), random(r))
		data, err := EncodeFile([]Profile{p})
		if err != nil {
			t.Log(err)
			return false
		}
		back, err := DecodeFile(data)
		if err != nil {
			t.Logf("%v\n%s", err, data)
			return false
		}
		bare, err := DecodeCoverage(data)
		if err != nil || len(bare) != 1 || bare[0].Facts.Len() > 0 || !reflect.DeepEqual(bare[0].Coverage, p.Coverage) {
			t.Logf("%v: coverage %+v, want %+v", err, bare, p.Coverage)
			return false
		}
		return len(back) == 1 && same(back[0], p)
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 300}); err != nil {
		t.Error(err)
	}
}

// What the quick reader takes, the YAML parser must take for the same; and it must
// take what was written, or nobody would notice that it is of no use.
func TestTheQuickReaderAgreesWithYAML(t *testing.T) {
	law := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 4))
		data, err := EncodeFile([]Profile{random(r)})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := asWritten(data, true); !ok {
			t.Logf("not taken:\n%s", data)
			return false
		}
		// A person's edit: a byte changed, doubled or removed, or a line doubled.
		at := r.IntN(len(data))
		switch r.IntN(4) {
		case 0:
			data[at] = "\n\"{}:, -a0\\"[r.IntN(11)]
		case 1:
			data = slices.Insert(data, at, data[at])
		case 2:
			data = slices.Delete(data, at, at+1)
		default:
			lines := bytes.SplitAfter(data, []byte("\n"))
			i := r.IntN(len(lines))
			data = bytes.Join(slices.Insert(lines, i, lines[i]), nil)
		}
		got, ok := asWritten(data, true)
		if !ok {
			return true
		}
		var want file
		if err := yaml.UnmarshalStrict(data, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Logf("%v\ngot  %+v\nwant %+v\n%s", err, got, want, data)
			return false
		}
		return true
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 3000}); err != nil {
		t.Error(err)
	}
}

func BenchmarkDecodeFile(b *testing.B) {
	p := Profile{Subject: Subject{Workload{"shop", "Deployment", "web"}, "web"}}
	at := time.Unix(1_700_000_000, 0).UTC()
	for i := range 10_000 {
		p.Add(Fact{Kind: File, Exe: "/usr/bin/web", Path: fmt.Sprint("/srv/data/", i), Access: Read}, Evidence{First: at, Last: at, Pods: map[string]uint64{"web-1": 1}})
	}
	data, err := EncodeFile([]Profile{p})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := DecodeFile(data); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDigestForgetsHowOftenAndRemembersWhat(t *testing.T) {
	p := Profile{Subject: Subject{Workload{"shop", "Deployment", "web"}, "web"}}
	p.Add(Fact{Kind: Syscall, Name: "read", Arch: "amd64"}, Evidence{Pods: map[string]uint64{"a": 1}})
	before := Digest([]Profile{p})
	p.Add(Fact{Kind: Syscall, Name: "read", Arch: "amd64"}, Evidence{Pods: map[string]uint64{"b": 9}})
	if got := Digest([]Profile{p}); got != before {
		t.Errorf("the digest changed with the count: %s, %s", before, got)
	}
	p.Add(Fact{Kind: Syscall, Name: "write", Arch: "amd64"}, Evidence{})
	if got := Digest([]Profile{p}); got == before {
		t.Error("a new fact left the digest as it was")
	}
}

func TestDecodeFileRefuses(t *testing.T) {
	head := "apiVersion: autopolicy.dev/v1alpha1\nkind: Evidence\nworkload: {namespace: shop, kind: Deployment, name: web}\n"
	for name, text := range map[string]string{
		"another version":             "apiVersion: autopolicy.dev/v9\nkind: Evidence\n",
		"a field nobody knows":        head + "colour: blue\n",
		"a key given twice":           head + "labels: a=b\nlabels: a=b\n",
		"a raw control character":     head + "containers:\n- name: web\n  facts:\n  - {\"kind\":\"file\",\"path\":\"/\\u001b[2J\",\"access\":\"r\"}\n",
		"a fact of an unknown kind":   head + "containers:\n- name: web\n  facts:\n  - {kind: telepathy}\n",
		"a container named twice":     head + "containers:\n- name: web\n- name: web\n",
		"labels that are not labels":  head + "labels: nonsense\n",
		"an access letter of no kind": head + "containers:\n- name: web\n  facts:\n  - {kind: file, path: /a, access: x}\n",
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := DecodeFile([]byte(text)); err == nil {
				t.Errorf("accepted as %+v", p)
			}
		})
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"/bin/sh", "a\nb", `a\b`, "\x1b[31m", "\xff\xfe", "\u202e", "snow\u2603", "nbsp\u00a0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		e := Escape(raw)
		if !IsEscaped(e) {
			t.Fatalf("Escape(%q) = %q, which is not escaped", raw, e)
		}
		if back, err := Unescape(e); err != nil || back != raw {
			t.Fatalf("Unescape(Escape(%q)) = %q, %v", raw, back, err)
		}
	})
}

func FuzzDecodeFile(f *testing.F) {
	p := Profile{Subject: Subject{Workload{"shop", "Deployment", "web"}, "web"}}
	p.Add(Fact{Kind: Process, Path: "/web"}, Evidence{Pods: map[string]uint64{"a": 1}})
	data, err := EncodeFile([]Profile{p})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		profiles, err := DecodeFile(data)
		if err != nil || len(profiles) == 0 {
			return
		}
		if _, err := EncodeFile(profiles); err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
	})
}
