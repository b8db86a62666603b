package learn_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

var web = behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}

func profile(container string, facts ...behavior.Fact) behavior.Profile {
	p := behavior.Profile{Subject: behavior.Subject{Workload: web, Container: container}, Labels: "app=web"}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, f := range facts {
		p.Add(f, behavior.Evidence{First: at, Last: at.Add(time.Minute), Pods: map[string]uint64{"web-1": 2}})
	}
	return p
}

// blessed learns whatever was seen, for tests that are not about suspicions.
var blessed = learn.Options{Decided: func(string, behavior.Fact) policy.Decision { return policy.Accepted }}

func read(exe string, paths ...string) []behavior.Fact {
	var facts []behavior.Fact
	for _, p := range paths {
		facts = append(facts, behavior.Fact{Kind: behavior.File, Exe: exe, Path: p, Access: behavior.Read})
	}
	return facts
}

// names makes n paths in a folder, each a format of its number.
func names(format string, n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(format, i*7919+13))
	}
	return list
}

func describe(rules []policy.Rule) []string {
	var list []string
	for _, r := range rules {
		list = append(list, r.String())
	}
	return list
}

func TestFilesAreGeneralisedOnlyOnEvidence(t *testing.T) {
	writes := func(exe string, paths ...string) []behavior.Fact {
		facts := read(exe, paths...)
		for i := range facts {
			facts[i].Access = behavior.Write | behavior.Create
		}
		return facts
	}
	uuid := "%08x-0000-4000-8000-000000000000"
	for _, tt := range []struct {
		name  string
		facts []behavior.Fact
		want  []string // rules in words; a number stands for so many exact ones
		exact int
	}{
		{"seven generated names stay exact", read("/a", names("/data/s%d", 7)...), nil, 7},
		{"eight generated names become their folder", read("/a", names("/data/s%d", 8)...), []string{"read files in /data/, by /a"}, 0},
		{"eight UUIDs become their folder", read("/a", names("/data/"+uuid+".json", 8)...), []string{"read files in /data/, by /a"}, 0},
		{"eight temporary files become their folder", writes("/a", names("/tmp/tmpx%dq", 8)...), []string{"write files in /tmp/, by /a"}, 0},
		{"eight given names stay exact", read("/a", "/d/a", "/d/b", "/d/c", "/d/d", "/d/e", "/d/f", "/d/g", "/d/h", "/d/i"), nil, 9},
		{"two kinds of four names each stay exact", read("/a", append(names("/data/s%d", 4), names("/data/t%d", 4)...)...), nil, 8},
		{"names used by two executables are counted apart", append(read("/a", names("/data/s%d", 5)...), read("/b", names("/data/s%d9", 5)...)...), nil, 10},
		{"names written do not open the folder to readers", append(writes("/a", names("/data/s%d", 8)...), read("/b", "/data/s1")...),
			[]string{"write files in /data/, by /a"}, 1},
		{"secrets are never opened as a folder", read("/a", names("/run/secrets/s%d", 20)...), nil, 20},
		{"the service account is never opened as a folder", read("/a", names("/var/run/secrets/kubernetes.io/serviceaccount/t%d", 20)...), nil, 20},
		{"keys are never opened as a folder", read("/a", names("/etc/ssl/private/k%d", 20)...), nil, 20},
		{"the runtime's folder is never opened", read("/a", names("/run/containerd/s%d", 20)...), nil, 20},
		{"binaries' folders are never opened for writing", writes("/a", names("/usr/bin/s%d", 20)...), nil, 20},
		{"libraries' folders are never opened for writing", writes("/a", names("/opt/app/lib/s%d", 20)...), nil, 20},
		{"data below /var/lib may be opened for writing", writes("/a", names("/var/lib/app/s%d", 20)...), []string{"write files in /var/lib/app/, by /a"}, 0},
		{"the root is never opened", read("/a", names("/s%d", 20)...), nil, 20},
		{"/etc is never opened", read("/a", names("/etc/s%d", 20)...), nil, 20},
		{"/usr is never opened", read("/a", names("/usr/s%d", 20)...), nil, 20},
		{"/sys is never opened", read("/a", names("/sys/kernel/s%d", 20)...), nil, 20},
		{"a process number below /proc may be any", read("/a", "/proc/17/stat"), []string{"read /proc/*/stat, by /a"}, 0},
		{"the first process is told by its number", read("/a", "/proc/1/stat"), nil, 1},
		{"a thread of the first process may be any", read("/a", "/proc/1/task/9/comm"), []string{"read /proc/1/task/*/comm, by /a"}, 0},
		{"a mounted token is told without its timestamp", read("/a", "/run/secrets/kubernetes.io/serviceaccount/..2026_11_22_08_29_01.4013239584/token"),
			[]string{"read /run/secrets/kubernetes.io/serviceaccount/*/token, by /a"}, 0},
		{"a name that only looks like a version is kept", read("/a", "/d/..2026/token"), nil, 1},
		{"escaped names are never taken for generated ones", read("/a", names(`/data/\x0a%d`, 20)...), nil, 20},
		{"a path that is none is kept", read("/a", "memfd:x"), nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := learn.Rules([]behavior.Profile{profile("web", tt.facts...)}, blessed)
			if err != nil {
				t.Fatal(err)
			}
			var wide []string
			exact := 0
			for _, r := range set.Rules {
				if r.Match == policy.Exact {
					exact++
					if r.Why != "" {
						t.Errorf("exact rule %s explains itself: %s", r, r.Why)
					}
					continue
				}
				wide = append(wide, r.String())
				if r.Why == "" {
					t.Errorf("wide rule %s does not say why", r)
				}
			}
			if !slices.Equal(wide, tt.want) || exact != tt.exact {
				t.Errorf("got %q and %d exact rules, want %q and %d", wide, exact, tt.want, tt.exact)
			}
		})
	}
}

func TestFactsThatDifferOnlyInWhoBecomeOneRule(t *testing.T) {
	api := behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-api", Labels: "app=api"}
	through := api
	through.Service = "api:80"
	facts := slices.Concat(read("/a", "/f"), read("/b", "/f"), []behavior.Fact{
		{Kind: behavior.File, Exe: "/c", Path: "/f", Access: behavior.Read | behavior.Write},
		{Kind: behavior.Process, Exe: "/sh", Parent: "", Path: "/a"},
		{Kind: behavior.Process, Exe: "/sh", Parent: "/sh", Path: "/a"},
		{Kind: behavior.Network, Exe: "/a", Direction: behavior.Egress, Protocol: "tcp", Port: 80, Peer: api},
		{Kind: behavior.Network, Exe: "/a", Direction: behavior.Egress, Protocol: "tcp", Port: 80, Peer: through},
		{Kind: behavior.Network, Exe: "/a", Direction: behavior.Listen, Protocol: "tcp", Port: 80},
		{Kind: behavior.Capability, Exe: "/a", Name: "NET_RAW", Syscall: "socket"},
		{Kind: behavior.Capability, Exe: "/a", Name: "CHOWN", Syscall: "fchown"},
		{Kind: behavior.Capability, Exe: "/a", Name: "CHOWN", Syscall: "chown"},
		{Kind: behavior.Syscall, Name: "read", Arch: "amd64"},
		{Kind: behavior.Syscall, Name: "read", Arch: "arm64"},
	})
	set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"run /a, by the container's runtime, /sh",
		"read /f, by /a, /b",
		"read and write /f, by /c",
		"connect to shop/deployment-api on tcp/80, by /a",
		"listen on tcp/80, by /a",
		"use capability CHOWN, by /a",
		"use capability NET_RAW, by /a",
		"call read",
		"call read",
	}
	if got := describe(set.Rules); !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if set.Labels["app"] != "web" || !slices.Equal(set.Containers, []string{"web"}) {
		t.Errorf("labels %v, containers %v", set.Labels, set.Containers)
	}
}

func TestWhatIsNotLearnedIsNoted(t *testing.T) {
	facts := append(read("/a", "/f"),
		behavior.Fact{Kind: behavior.Capability, Exe: "/a", Name: "SYS_ADMIN", Syscall: "mount", Refused: true},
		behavior.Fact{Kind: behavior.File, Path: "/etc/hosts", Access: behavior.Read, Runtime: true},
		behavior.Fact{Kind: behavior.File, Exe: "/bin/sh", Path: "/root/.bash_history", Access: behavior.Write, Origin: behavior.OriginExec},
		behavior.Fact{Kind: behavior.Network, Exe: "/a", Direction: behavior.Egress, Protocol: "tcp", Port: 80, Peer: behavior.Peer{Address: netip.MustParseAddr("192.0.2.7")}},
	)
	set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, n := range set.Notes {
		text = append(text, n.Text)
	}
	for _, want := range []string{"SYS_ADMIN was asked for by /a and refused", "1 facts are what the container's runtime", "1 facts are of processes that entered", "192.0.2.7"} {
		if !strings.Contains(strings.Join(text, "\n"), want) {
			t.Errorf("no note says %q: %q", want, text)
		}
	}
	for _, f := range facts[1:4] {
		if set.Allows("web", f) {
			t.Errorf("%s was learned: %q", f, describe(set.Rules))
		}
	}
	if set, err = learn.Rules([]behavior.Profile{profile("web", facts...)}, learn.Options{Entered: true}); err != nil || !set.Allows("web", facts[3]) {
		t.Errorf("%v: asked to learn from who entered, and %s was not learned", err, facts[3])
	}
}

func TestNothingIsNeverAPolicy(t *testing.T) {
	other := profile("web", read("/a", "/f")...)
	other.Subject.Workload.Name = "api"
	labels := profile("web", read("/a", "/f")...)
	labels.Labels = "app"
	invalid := profile("web", behavior.Fact{Kind: behavior.File, Exe: "/a", Path: "/f\n", Access: behavior.Read})
	for _, tt := range []struct {
		name     string
		profiles []behavior.Profile
		want     error
	}{
		{"no profile", nil, learn.ErrNothingObserved},
		{"a profile without facts", []behavior.Profile{profile("web")}, learn.ErrNothingObserved},
		{"only the runtime's facts", []behavior.Profile{profile("web", behavior.Fact{Kind: behavior.File, Path: "/f", Access: behavior.Read, Runtime: true})}, learn.ErrNothingObserved},
		{"only a refused capability", []behavior.Profile{profile("web", behavior.Fact{Kind: behavior.Capability, Exe: "/a", Name: "CHOWN", Refused: true})}, learn.ErrNothingObserved},
		{"two workloads", []behavior.Profile{profile("web", read("/a", "/f")...), other}, learn.ErrMixedWorkloads},
		{"malformed labels", []behavior.Profile{labels}, nil},
		{"an invalid fact", []behavior.Profile{invalid}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := learn.Rules(tt.profiles, learn.Options{})
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Fatalf("got error %v, want %v", err, tt.want)
			}
			if len(set.Rules) > 0 {
				t.Errorf("rules beside an error: %q", describe(set.Rules))
			}
		})
	}
}

// random makes facts of a container in a small world, so that they meet.
func random(r *rand.Rand, n int) []behavior.Fact {
	exes := []string{"", "/usr/bin/nginx", "/bin/sh", `/opt/\x1bodd`}
	dirs := []string{"/tmp/", "/etc/", "/var/lib/app/", "/usr/bin/", "/run/secrets/x/", "/proc/12/", "/data/..2026_11_22_08_29_01.77/", "/"}
	forms := []string{"s%d", "tmp%dx", "%d.log", "given", `\x0a%d`, "%08x-0000-4000-8000-000000000000", "*"}
	one := func(list []string) string { return list[r.IntN(len(list))] }
	name := func() string {
		f := one(forms)
		if !strings.Contains(f, "%") {
			return f
		}
		return fmt.Sprintf(f, r.IntN(40))
	}
	var facts []behavior.Fact
	for range n {
		f := behavior.Fact{Exe: one(exes), Runtime: r.IntN(20) == 0}
		switch r.IntN(10) {
		case 8:
			f = odd(r, f.Exe)
		case 0:
			f.Kind, f.Path, f.Parent = behavior.Process, one(dirs)+name(), one(exes)
		case 1:
			f.Kind, f.Direction, f.Protocol, f.Port = behavior.Network, behavior.Egress, one([]string{"tcp", "udp"}), uint16(r.IntN(3))
			f.Peer = behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: one([]string{"deployment-api", "deployment-db"}), Service: one([]string{"", "api:80"}), Name: one([]string{"", "api.example"})}
			f.Via = [...]netip.AddrPort{{}, netip.MustParseAddrPort("10.96.0.9:80")}[r.IntN(2)]
		case 2:
			f.Kind, f.Name, f.Refused = behavior.Capability, one([]string{"CHOWN", "NET_RAW"}), r.IntN(4) == 0
		case 3:
			f = behavior.Fact{Kind: behavior.Syscall, Name: one([]string{"read", "write", "sys_999"}), Arch: one([]string{"amd64", "386"})}
		default:
			f.Kind, f.Path, f.Access = behavior.File, one(dirs)+name(), behavior.Access(1+r.IntN(7))
			if operations := behavior.Operations(); r.IntN(2) == 0 {
				f.Operation, f.Deleted = operations[r.IntN(len(operations))], r.IntN(8) == 0
			}
			f.Operation, f.Deleted = behavior.Operation(one([]string{"", "unlink", "chmod"})), r.IntN(9) == 0
		}
		f.Origin = behavior.Origin(one([]string{"", "", "", "probe", "exec"}))
		facts = append(facts, f)
	}
	return facts
}

func TestAnOperationNeedsWhatItsAccessSays(t *testing.T) {
	fact := func(o behavior.Operation, path string, a behavior.Access) behavior.Fact {
		return behavior.Fact{Kind: behavior.File, Exe: "/a", Path: path, Access: a, Operation: o}
	}
	set, err := learn.Rules([]behavior.Profile{profile("web",
		fact(behavior.OpUnlink, "/tmp/x", behavior.Write), fact(behavior.OpExecMap, "/lib/l.so", behavior.Read))}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for f, want := range map[behavior.Fact]bool{
		fact("", "/tmp/x", behavior.Write):                   true,
		fact(behavior.OpTruncate, "/tmp/x", behavior.Write):  true,
		fact("", "/tmp/x", behavior.Read):                    false,
		fact("", "/lib/l.so", behavior.Read):                 true,
		fact(behavior.OpUnlink, "/lib/l.so", behavior.Write): false,
	} {
		if set.Allows("web", f) != want {
			t.Errorf("%s: allowed is %t in %q", f, !want, describe(set.Rules))
		}
	}
}

// learnt tells whether a fact is one that Rules makes a rule of.
func learnt(f behavior.Fact) bool { return f.Own() && !f.Refused }

func TestEveryFactIsCoveredCarriedAndKept(t *testing.T) {
	wide := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		facts := random(r, 20+r.IntN(400))
		some := facts[:len(facts)/2]
		set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, blessed)
		if err != nil {
			t.Fatal(err)
		}
		before, err := learn.Rules([]behavior.Profile{profile("web", some...)}, blessed)
		if err != nil {
			t.Fatal(err)
		}
		carried := map[behavior.Fact]bool{}
		for _, rule := range set.Rules {
			if rule.Match != policy.Exact && rule.Match != "" {
				wide++
			}
			if rule.Facts.Len() == 0 {
				t.Errorf("seed %d: rule without facts: %s", seed, rule)
			}
			for o := range rule.Facts.All() {
				carried[o.Fact] = true
				if !rule.Allows(o.Fact) {
					t.Errorf("seed %d: rule %s does not allow its own fact %s", seed, rule, o.Fact)
				}
			}
		}
		for _, f := range facts {
			if learnt(f) && (!set.Allows("web", f) || !carried[f]) {
				t.Errorf("seed %d: not allowed or not carried: %s", seed, f)
			}
		}
		for _, f := range random(r, 2000) {
			if before.Allows("web", f) && !set.Allows("web", f) {
				t.Errorf("seed %d: more facts took back: %s", seed, f)
			}
		}
	}
	if wide < 60 {
		t.Errorf("only %d wide rules were met", wide)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		facts := random(r, 300)
		want, err := learn.Rules([]behavior.Profile{profile("web", facts[:100]...), profile("web", facts[100:200]...), profile("log", facts[200:]...)}, blessed)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range [][]behavior.Fact{facts[:200], facts[200:]} {
			r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		}
		got, err := learn.Rules([]behavior.Profile{profile("log", facts[200:]...), profile("web", facts[:200]...)}, blessed)
		if err != nil {
			t.Fatal(err)
		}
		if spelled(got) != spelled(want) {
			t.Fatalf("seed %d: shuffled facts made other rules", seed)
		}
	}
}

// spelled is a set with everything that is in it, in its order.
func spelled(s policy.Set) string {
	var b strings.Builder
	for _, r := range s.Rules {
		facts := r.Facts.List()
		r.Facts = behavior.Selection{}
		fmt.Fprintf(&b, "%+v\n", r)
		for _, o := range facts {
			fmt.Fprintf(&b, "  %+v\n", o)
		}
	}
	s.Rules = nil
	return fmt.Sprintf("%s%+v", &b, s)
}

func FuzzFileRulesCoverTheirPath(f *testing.F) {
	for _, s := range []string{"/proc/12/task/3/stat", "/a/..2026_11_22_08_29_01.4/x", "", "/", "x", `/\x0a`, "/tmp/tmpab12", "/proc//x", "/proc/7", "/*/proc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		path := behavior.Escape(raw)
		if path == "" {
			return
		}
		fact := read("/a", path)[0]
		set, err := learn.Rules([]behavior.Profile{profile("web", fact)}, learn.Options{Siblings: 1, Decided: blessed.Decided})
		if err != nil {
			t.Fatal(err)
		}
		if len(set.Rules) != 1 || !set.Allows("web", fact) {
			t.Errorf("%s is not allowed by %q", path, describe(set.Rules))
		}
	})
}

func TestHowAPeerWasAskedForMakesNoOtherRule(t *testing.T) {
	plain := behavior.Fact{Kind: behavior.Network, Exe: "/app", Direction: behavior.Egress, Protocol: "tcp", Port: 5432,
		Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "statefulset-db", Labels: "app=db"}}
	named, via, service := plain, plain, plain
	named.Peer.Name = "db.example"
	via.Via = netip.MustParseAddrPort("198.51.100.1:5432")
	service.Peer.Service = "legacy:5432"
	want, err := learn.Rules([]behavior.Profile{profile("web", plain)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := learn.Rules([]behavior.Profile{profile("web", plain, named, via, service)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(describe(got.Rules), describe(want.Rules)) {
		t.Errorf("got %q, want %q", describe(got.Rules), describe(want.Rules))
	}
	for _, f := range []behavior.Fact{plain, named, via, service} {
		if !want.Allows("web", f) {
			t.Errorf("the rules of one do not allow %s", f)
		}
	}
}
