package learn_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// created are the facts of files that were made and written.
func created(exe string, paths ...string) []behavior.Fact {
	facts := read(exe, paths...)
	for i := range facts {
		facts[i].Access = behavior.Write | behavior.Create
	}
	return facts
}

// spread makes n paths, each a format of one of two numbers.
func spread(format string, n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(format, 16384+i%3, 2600+i))
	}
	return list
}

// words makes n paths with names that somebody chose.
func words(format string, n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(format, string([]rune{'a' + rune(i%26), 'x', 'a' + rune(i/26)})))
	}
	return list
}

func TestWhatVariesIsToldAtAnyDepth(t *testing.T) {
	for _, tt := range []struct {
		name   string
		facts  []behavior.Fact
		want   []string // wide rules
		exact  int
		denied []behavior.Fact
	}{
		{"databases are folders of numbers in a folder of numbers", created("/pg", spread("/var/lib/pg/base/%d/%d", 30)...),
			[]string{"write /var/lib/pg/base/*/*, by /pg"}, 0, []behavior.Fact{read("/pg", "/var/lib/pg/base/1/2")[0], created("/pg", "/var/lib/pg/global/1")[0]}},
		{"the same file in numbered folders", read("/a", names("/srv/data/%d/state", 5)...), []string{"read /srv/data/*/state, by /a"}, 0, read("/a", "/srv/data/7/other")},
		{"two numbered folders show nothing", read("/a", "/srv/data/1/state", "/srv/data/2/state"), nil, 2, nil},
		{"seven folders with a number in their name show nothing", read("/a", names("/srv/data/v%d/state", 7)...), nil, 7, nil},
		{"three UUIDs are folders that vary", created("/a", names("/srv/up/%08x-0000-4000-8000-000000000000/x", 3)...), []string{"write /srv/up/*/x, by /a"}, 0, nil},
		{"what mktemp made", created("/a", "/tmp/tmp.kZqWbT", "/tmp/tmp.aB3dEf", "/tmp/tmp.Qx9Lmn"), []string{"write files in /tmp/, by /a"}, 0, read("/a", "/tmp/tmp.other1")},
		{"what mkstemp made of a name", created("/a", "/srv/d/cache-kZqWbT", "/srv/d/cache-aB3dEf", "/srv/d/cache-Qx9Lmn"), []string{"write files in /srv/d/, by /a"}, 0, nil},
		{"names of days of the observation", created("/a", "/var/log/a/access-2026-01-02.log"), []string{"write files in /var/log/a/, by /a"}, 0, nil},
		{"names of other days are names", created("/a", "/var/log/a/access-2019-01-02.log"), nil, 1, nil},
		{"seconds since 1970 of the observation", created("/a", "/var/log/a/1767323045.log"), []string{"write files in /var/log/a/, by /a"}, 0, nil},
		{"the pod's name in a path", created("/a", "/var/lib/mq/rabbit@web-1/log"), []string{"write /var/lib/mq/*/log, by /a"}, 0, nil},
		{"the pod's name as a part of a word", created("/a", "/var/lib/mq/cobweb-12/log"), nil, 1, nil},
		{"the Java machine's counters", created("/java", "/tmp/hsperfdata_app/17"), []string{"write files in /tmp/hsperfdata_app/, by /java"}, 0, nil},
		{"libraries, though merely named", read("/a", words("/usr/lib/x86_64-linux-gnu/lib%s.so.1", 8)...), []string{"read anything below /usr/lib/x86_64-linux-gnu/, by /a"}, 0,
			created("/a", "/usr/lib/x86_64-linux-gnu/libnew.so")},
		{"libraries are those of all who read there", append(read("/a", words("/usr/lib/x/%s.so", 7)...), read("/b", "/usr/lib/x/other.so")...),
			[]string{"read anything below /usr/lib/x/, by /a, /b"}, 0, read("/c", "/usr/lib/x/other.so")},
		{"seven libraries stay exact", read("/a", words("/usr/lib/x/%s.so", 7)...), nil, 7, nil},
		{"Python's packages", read("/py", words("/opt/app/venv/lib/python3.12/site-packages/p/%s.py", 9)...), []string{"read anything below /opt/app/venv/lib/, by /py"}, 0,
			read("/py", "/opt/app/.env")},
		{"modules of Node.js", read("/node", words("/app/node_modules/%s/index.js", 9)...), []string{"read anything below /app/node_modules/, by /node"}, 0, read("/node", "/app/secret.js")},
		{"libraries that lie directly in their folder, as in Alpine's", read("/a", words("/usr/lib/%s.so", 8)...), []string{"read files in /usr/lib/, by /a"}, 0, read("/a", "/usr/lib/x/y")},
		{"pages with names that somebody chose", read("/a", words("/srv/www/%s.html", 16)...), []string{"read files in /srv/www/, by /a"}, 0, nil},
		{"fifteen such pages stay exact", read("/a", words("/srv/www/%s.html", 15)...), nil, 15, nil},
		{"data of /var/lib is no library", read("/a", words("/var/lib/x/%s", 9)...), nil, 9, nil},
		{"a key among generated names stays exact", append(read("/a", names("/srv/d/%d", 9)...), read("/a", "/srv/d/7.key")...), []string{"read files in /srv/d/, by /a"}, 1, nil},
		{"what another process holds stays exact", read("/a", "/proc/17/environ", "/proc/17/mem", "/proc/18/environ"), nil, 3, read("/a", "/proc/19/environ")},
		{"sockets of container runtimes stay exact", read("/a", append(names("/srv/run/%d", 9), "/srv/run/docker.sock")...), []string{"read files in /srv/run/, by /a"}, 1, nil},
		{"reading and writing one path is one rule", append(read("/a", "/srv/x"), created("/a", "/srv/x")...), nil, 1, nil},
		{"busybox is one program for all its names", read("/bin/busybox", words("/lib/modules/%s.ko", 3)...), nil, 3, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := learn.Rules([]behavior.Profile{profile("web", tt.facts...)}, blessed)
			if err != nil {
				t.Fatal(err)
			}
			var wide []string
			exact := 0
			for _, r := range set.Rules {
				switch {
				case r.Match == policy.Exact:
					exact++
				case r.Why == "":
					t.Errorf("%s does not say why", r)
				default:
					wide = append(wide, r.String())
				}
			}
			if !slices.Equal(wide, tt.want) || exact != tt.exact {
				t.Errorf("got %q and %d exact rules, want %q and %d", wide, exact, tt.want, tt.exact)
			}
			for _, f := range tt.facts {
				if !set.Allows("web", f) {
					t.Errorf("not allowed: %s", f)
				}
			}
			for _, f := range tt.denied {
				if set.Allows("web", f) {
					t.Errorf("allowed: %s by %q", f, describe(set.Rules))
				}
			}
		})
	}
}

func TestAWideRuleNamesWhatItCameFrom(t *testing.T) {
	set, err := learn.Rules([]behavior.Profile{profile("web", created("/pg", spread("/var/lib/pg/base/%d/%d", 30)...)...)}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := "3 folders in /var/lib/pg/base/, such as 16384, 16385, 16386; any other is newly allowed there; 30 names, such as 2600, 2601, 2602; any other file directly in it is newly allowed"
	if len(set.Rules) != 1 || set.Rules[0].Why != want {
		t.Errorf("got %q, want %q", set.Rules[0].Why, want)
	}
}

// hostile makes paths of parts that are sensitive, that vary, and that are neither.
func hostile(r *rand.Rand) string {
	parts := []string{"etc", "usr", "bin", "lib", "var", "run", "secrets", "proc", "sys", "tmp", "srv", "data", ".ssh", "private", "root", "home", "docker", "..", ".", "", "*", "node_modules",
		"%d", "%d.log", "tmp.%06d", "%016x", "..2026_11_22_08_29_01.%d", "token", "%d.key", "environ", "shadow", `\x0a%d`}
	var b strings.Builder
	for range 1 + r.IntN(5) {
		part := parts[r.IntN(len(parts))]
		if strings.Contains(part, "%") {
			part = fmt.Sprintf(part, r.IntN(60))
		}
		b.WriteString("/" + part)
	}
	return b.String()
}

func TestNoWideRuleCrossesABoundary(t *testing.T) {
	wide := 0
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 9))
		var facts []behavior.Fact
		for range 1000 {
			facts = append(facts, behavior.Fact{Kind: behavior.File, Exe: []string{"/a", "/b"}[r.IntN(2)], Path: hostile(r), Access: behavior.Access(1 + r.IntN(7))})
		}
		set, err := learn.Rules([]behavior.Profile{profile("web", facts...)}, blessed)
		if err != nil {
			t.Fatal(err)
		}
		for _, rule := range set.Rules {
			if rule.Match == policy.Exact {
				continue
			}
			wide++
			crosses(t, rule)
		}
		for _, f := range facts {
			if !set.Allows("web", f) {
				t.Errorf("seed %d: not allowed: %s", seed, f)
			}
		}
	}
	if wide < 100 {
		t.Errorf("only %d wide rules were met", wide)
	}
}

// crosses fails for a rule that opens a folder which is not to be opened.
func crosses(t *testing.T, rule policy.Rule) {
	t.Helper()
	if rule.Match != policy.Pattern {
		if why := policy.Boundary(rule.Path, rule.Access); why != "" {
			t.Errorf("%s: %s", rule, why)
		}
		return
	}
	seen := strings.Split(rule.Facts.List()[0].Fact.Path, "/")
	dir := ""
	for i, part := range strings.Split(rule.Path, "/") {
		process := strings.HasPrefix(rule.Path, "/proc/")
		if stamp := i < len(seen) && strings.HasPrefix(seen[i], "..2026"); part == "*" && !process && !stamp {
			if why := policy.Boundary(dir, rule.Access); why != "" {
				t.Errorf("%s, at %s: %s", rule, dir, why)
			}
		}
		dir += part + "/"
	}
}

func TestMoreFactsNeverNarrowHostileOnes(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 10))
		var facts []behavior.Fact
		for range 600 {
			facts = append(facts, behavior.Fact{Kind: behavior.File, Exe: []string{"/a", "/b"}[r.IntN(2)], Path: hostile(r), Access: behavior.Access(1 + r.IntN(7))})
		}
		rules := func(facts []behavior.Fact, day int) policy.Set {
			p := behavior.Profile{Subject: behavior.Subject{Workload: web, Container: "web"}}
			for i, f := range facts {
				at := time.Date(2026, 1, 2+day*(i%2), 3, 4, 5, 0, time.UTC)
				p.Add(f, behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{fmt.Sprintf("data-%d", i%(1+day)): 1}})
			}
			set, err := learn.Rules([]behavior.Profile{p}, blessed)
			if err != nil {
				t.Fatal(err)
			}
			return set
		}
		before, after := rules(facts[:300], 0), rules(facts, 3)
		for range 1500 {
			f := behavior.Fact{Kind: behavior.File, Exe: "/a", Path: hostile(r), Access: 1 << r.IntN(3)}
			if before.Allows("web", f) && !after.Allows("web", f) {
				t.Errorf("seed %d: more facts took back: %s", seed, f)
			}
		}
	}
}

func TestThinEvidenceIsSaid(t *testing.T) {
	at := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	seen := func(times uint64, pods ...string) behavior.Evidence {
		e := behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{}}
		for _, pod := range pods {
			e.Pods[pod] = times
		}
		return e
	}
	pod := func(image string, hours int) behavior.PodCoverage {
		return behavior.PodCoverage{Image: image, From: at, To: at.Add(time.Duration(hours) * time.Hour)}
	}
	three := map[string]behavior.PodCoverage{"a": pod("i@sha256:1", 1), "b": pod("i@sha256:1", 1), "c": {Image: "i@sha256:1", From: at, To: at.Add(time.Hour), Restarts: 2}}
	for _, tt := range []struct {
		name string
		pods map[string]behavior.PodCoverage
		by   behavior.Evidence
		want string
	}{
		{"seen in all pods", three, seen(1, "a", "b", "c"), ""},
		{"seen once in one of three", three, seen(1, "a"), "seen once in one of 3 pods, 2 restarts, 3.0 hours"},
		{"seen often in one of three", three, seen(9, "a"), "seen 9 times in one of 3 pods, 2 restarts, 3.0 hours"},
		{"seen often in the only pod", map[string]behavior.PodCoverage{"a": pod("", 1)}, seen(2, "a"), ""},
		{"seen once in the only pod", map[string]behavior.PodCoverage{"a": pod("", 1)}, seen(1, "a"), "seen once in the only pod, 1.0 hours"},
		{"seen in an older image only", map[string]behavior.PodCoverage{"a": pod("i@sha256:1", 1), "b": pod("i@sha256:1", 1), "c": pod("i@sha256:2", 2)}, seen(2, "a", "b"),
			"seen only in an image before the current one"},
		{"seen in both images", map[string]behavior.PodCoverage{"a": pod("i@sha256:1", 1), "c": pod("i@sha256:2", 2)}, seen(2, "a", "c"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := behavior.Profile{Subject: behavior.Subject{Workload: web, Container: "web"}, Coverage: behavior.Coverage{Pods: tt.pods}}
			p.Add(read("/a", "/etc/x")[0], tt.by)
			set, err := learn.Rules([]behavior.Profile{p}, learn.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Rules[0].Weak; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
