package kubearmor_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

var update = flag.Bool("update", false, "write what was rendered as what is wanted")

func profile(container string, facts ...behavior.Fact) behavior.Profile {
	p := behavior.Profile{Subject: behavior.Subject{Workload: web.Workload, Container: container}, Labels: "app=web"}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, f := range facts {
		p.Add(f, behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{"web-1": 1}})
	}
	return p
}

// accepted is a person who lets everything be learned: what is set aside is not the
// engine's business.
func accepted(string, behavior.Fact) policy.Decision { return policy.Accepted }

func learnt(t testing.TB, profiles ...behavior.Profile) policy.Set {
	t.Helper()
	set, err := learn.Rules(profiles, learn.Options{Decided: accepted})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func render(t testing.TB, set policy.Set) engine.Rendered {
	t.Helper()
	rendered, err := kubearmor.Engine{}.Render(set)
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

// text is what a golden file holds: the notes as comments, then the objects.
func text(rendered engine.Rendered) []byte {
	var b bytes.Buffer
	for _, n := range rendered.Notes {
		fmt.Fprintf(&b, "# %s: %s\n", n.Container, n.Text)
	}
	b.Write(rendered.Base)
	return b.Bytes()
}

func TestRenderedPoliciesAreAsWanted(t *testing.T) {
	cases, err := filepath.Glob("testdata/*/in.yaml")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, in := range cases {
		dir := filepath.Dir(in)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			data, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			profiles, err := behavior.DecodeFile(data)
			if err != nil {
				t.Fatal(err)
			}
			got := text(render(t, learnt(t, profiles...)))
			valid(t, got)
			name := filepath.Join(dir, "want.yaml")
			if *update {
				if err := os.WriteFile(name, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is not what is rendered now:\n%s", name, got)
			}
		})
	}
}

// random makes facts in a small world, hostile names among them.
func random(rnd *rand.Rand, n int) []behavior.Fact {
	one := func(list ...string) string { return list[rnd.IntN(len(list))] }
	exe := func() string {
		return one("", "/usr/sbin/nginx", "/usr/bin/dash", "/opt/app/run", behavior.Escape("/opt/\x1b[31m\nodd"), "/"+strings.Repeat("x", 220), `/opt/back\\slash`)
	}
	path := func() string {
		switch rnd.IntN(12) {
		case 0:
			return one("/dev/null", "/etc/hosts", "/etc/shadow", "/etc/ssl/private/tls.key", "/", "memfd:x", `/opt/back\\slash`)
		case 1:
			return fmt.Sprintf("/proc/%d/%s", 1+rnd.IntN(30), one("stat", "mountinfo", "task/9/comm"))
		case 2:
			return fmt.Sprintf("/run/secrets/kubernetes.io/serviceaccount/..2026_11_22_08_29_%02d.%d/token", rnd.IntN(60), rnd.IntN(1000))
		case 3:
			return behavior.Escape(one("/data/\xff\xfe", "/data/new\nline", "/data/\"quote'", "/data/: {yaml}", "/data/ spaces ", "/data/\u202eright", "/data/ünïcode"))
		case 4:
			return "/long/" + strings.Repeat("a", rnd.IntN(300))
		case 5:
			return "/deep" + strings.Repeat("/d", rnd.IntN(40))
		case 6:
			return fmt.Sprintf("/%s/tmp%dx", strings.Repeat("b", 50+rnd.IntN(20)), rnd.IntN(40))
		case 7:
			return fmt.Sprintf("/usr/lib/python3/%s%d/m%d.py", one("a", "b"), rnd.IntN(20), rnd.IntN(400))
		case 8:
			return fmt.Sprintf("/tmp/tmp%dx", rnd.IntN(400))
		}
		return fmt.Sprintf("/%s/%s/f%s", one("usr/lib", "etc", "var/lib", "srv"), one("a", "b", "c", "d"), one("a", "b", "c", "d", "e", "f", "g", "h", "i"))
	}
	var facts []behavior.Fact
	for range n {
		f := behavior.Fact{Exe: exe()}
		switch rnd.IntN(8) {
		case 0:
			f.Kind, f.Parent, f.Path = behavior.Process, exe(), path()
		case 1:
			f.Kind, f.Direction, f.Protocol, f.Port = behavior.Network, behavior.Egress, one("tcp", "udp", "tcp", "quux"), 80
		case 2:
			f.Kind, f.Name, f.Refused = behavior.Capability, one("CHOWN", "NET_RAW", "SETUID", "SETUID", "BPF"), rnd.IntN(9) == 0
			if f.Name == "BPF" && rnd.IntN(20) > 0 {
				f.Name = "KILL"
			}
		default:
			f.Kind, f.Path, f.Access = behavior.File, path(), behavior.Access(1+rnd.IntN(7))
			if operations := behavior.Operations(); rnd.IntN(2) == 0 {
				f.Operation, f.Deleted = operations[rnd.IntN(len(operations))], rnd.IntN(8) == 0
			}
		}
		facts = append(facts, f)
	}
	return facts
}

// noted tells whether a note speaks of the fact, or leaves out its whole class.
func noted(notes []policy.Note, f behavior.Fact) bool {
	for _, n := range notes {
		switch {
		case f.Path != "" && strings.HasPrefix(n.Text, f.Path+" cannot be expressed"),
			f.Kind == behavior.Network && strings.HasPrefix(n.Text, "protocol "+f.Protocol+" has no name"):
			return true
		}
	}
	return false
}

func TestEveryFactIsAllowedOrNoted(t *testing.T) {
	allowed, excused, tight := 0, 0, 0
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		facts := random(rnd, 10+rnd.IntN(900))
		set := learnt(t, profile("web", facts...))
		rendered := render(t, set)
		valid(t, rendered.Base)
		for _, n := range rendered.Notes {
			if !behavior.IsEscaped(n.Text) || n.Engine != kubearmor.Name || n.Container != "web" {
				t.Errorf("seed %d: unfit note %+v", seed, n)
			}
			if strings.Contains(n.Text, "as it was learned") {
				tight++
			}
		}
		if bytes.Contains(rendered.Base, []byte("readOnly")) || bytes.Contains(rendered.Base, []byte("matchPatterns")) {
			t.Errorf("seed %d: rendered what the enforcer does not honour", seed)
		}
		j := parse(t, namespace("block")+string(rendered.Base))
		for _, f := range facts {
			if f.Refused {
				continue
			}
			v := j.Judge(web, f)
			switch {
			case v.Decision == engine.Allowed || v.Decision == engine.NotMine:
				allowed++
			case noted(rendered.Notes, f):
				excused++
			default:
				t.Errorf("seed %d: %s: %s (%s, %s)", seed, f, v.Decision, v.Object, v.Reason)
			}
		}
	}
	t.Logf("%d facts allowed, %d noted, %d containers over the key budget", allowed, excused, tight)
	if allowed < 1000 || excused == 0 || tight == 0 {
		t.Error("the facts do not try enough")
	}
}

func TestEveryOperationIsAllowedByWhatWasLearnedOfIt(t *testing.T) {
	for _, o := range behavior.Operations() {
		access := behavior.Write
		if o == behavior.OpExecMap {
			access = behavior.Read
		}
		f := behavior.Fact{Kind: behavior.File, Exe: "/app", Path: "/srv/x", Access: access, Operation: o}
		rendered := render(t, learnt(t, profile("web", f)))
		j := parse(t, namespace("block")+string(rendered.Base))
		if v := j.Judge(web, f); v.Decision != engine.Allowed {
			t.Errorf("%s: %s (%s)", f, v.Decision, v.Reason)
		}
		other := f
		other.Path = "/srv/y"
		want := engine.Denied
		if o == behavior.OpChown {
			want = engine.Allowed // nobody looks at it
		}
		if v := j.Judge(web, other); v.Decision != want {
			t.Errorf("%s: %s (%s)", other, v.Decision, v.Reason)
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(10) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		facts := random(rnd, 600)
		want := text(render(t, learnt(t, profile("web", facts...))))
		rnd.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
		if got := text(render(t, learnt(t, profile("web", facts...)))); !bytes.Equal(got, want) {
			t.Fatalf("seed %d: shuffled facts gave other bytes", seed)
		}
	}
}

func TestTheKeyBudgetIsKept(t *testing.T) {
	for _, tt := range []struct {
		name   string
		facts  func(i int) behavior.Fact
		n      int
		widen  string // in a note
		denied behavior.Fact
	}{
		{"libraries are widened first", func(i int) behavior.Fact {
			if i%10 == 0 {
				return open("/a", fmt.Sprintf("/srv/data/x%cy", 'a'+i/10%26), rw)
			}
			return open("/a", fmt.Sprintf("/usr/lib/x/m%c%c.so", 'a'+i%26, 'a'+i/26), r)
		}, 400, "/usr/lib/x/", open("/a", "/srv/data/new", r)},
		{"folders with many folders are widened as a whole", func(i int) behavior.Fact {
			return open("/a", fmt.Sprintf("/srv/data/%c/%c/doc", 'a'+i%20, 'a'+i/20), r)
		}, 400, "anything else below it", open("/a", "/etc/passwd", r)},
		{"sources of processes are given up", func(i int) behavior.Fact {
			return run(fmt.Sprintf("/bin/p%d", i), "/bin/sh")
		}, 400, "who may run /bin/sh is not restricted", run("/bin/p1", "/bin/new")},
		{"secrets are never widened", func(i int) behavior.Fact {
			return open("/a", fmt.Sprintf("/run/secrets/s%d/key", i), r)
		}, 400, "the rules for files are left out", behavior.Fact{}},
		{"writing to folders of programs is never widened", func(i int) behavior.Fact {
			return open("/a", fmt.Sprintf("/usr/bin/x%cy%c", 'a'+i%26, 'a'+i/26), w)
		}, 400, "the rules for files are left out", behavior.Fact{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var facts []behavior.Fact
			for i := range tt.n {
				facts = append(facts, tt.facts(i))
			}
			// Something else stays, so that there is always a policy.
			facts = append(facts, dial("/a", "tcp"))
			rendered := render(t, learnt(t, profile("web", facts...)))
			valid(t, rendered.Base)
			if !strings.Contains(string(text(rendered)), tt.widen) {
				t.Errorf("no note says %q:\n%s", tt.widen, text(rendered))
			}
			j := parse(t, namespace("block")+string(rendered.Base))
			for _, f := range facts {
				if v := j.Judge(web, f); v.Decision == engine.Denied || v.Decision == engine.Unknown {
					t.Errorf("%s: %s (%s)", f, v.Decision, v.Reason)
				}
			}
			if tt.denied.Kind != "" {
				if v := j.Judge(web, tt.denied); v.Decision != engine.Denied {
					t.Errorf("%s: got %s, want it denied still", tt.denied, v.Decision)
				}
			}
		})
	}
}

func TestNamesOfPolicies(t *testing.T) {
	long := web.Workload
	long.Name = strings.Repeat("n", 250)
	for _, tt := range []struct {
		name       string
		workload   behavior.Workload
		containers []string
		want       []string
	}{
		{"one container", web.Workload, []string{"web"}, []string{"name: autopolicy-deployment-web\n"}},
		{"several containers", web.Workload, []string{"log", "web"}, []string{"name: autopolicy-deployment-web--log\n", "name: autopolicy-deployment-web--web\n"}},
		{"a name that is too long is cut and told apart", long, []string{"web"}, []string{"name: autopolicy-deployment-" + strings.Repeat("n", 32) + "-"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var profiles []behavior.Profile
			for _, c := range tt.containers {
				p := profile(c, open("/a", "/f", r))
				p.Subject.Workload = tt.workload
				profiles = append(profiles, p)
			}
			rendered := render(t, learnt(t, profiles...))
			valid(t, rendered.Base)
			for _, want := range tt.want {
				if !strings.Contains(string(rendered.Base), want) {
					t.Errorf("no %q in:\n%s", want, rendered.Base)
				}
			}
			for _, o := range objects(t, string(rendered.Base)) {
				if len(o.Name) > 63 {
					t.Errorf("name %s has %d characters", o.Name, len(o.Name))
				}
			}
		})
	}
}

func TestAContainerThatWasNotObservedIsLeftAlone(t *testing.T) {
	rendered := render(t, learnt(t, profile("web", open("/a", "/f", r))))
	j := parse(t, namespace("block")+string(rendered.Base))
	other := web
	other.Container = "init-web"
	if v := j.Judge(other, open("/a", "/g", r)); v.Decision != engine.NotMine {
		t.Errorf("got %s (%s), want not governed", v.Decision, v.Reason)
	}
	if v := j.Judge(web, open("/a", "/g", r)); v.Decision != engine.Denied {
		t.Errorf("got %s (%s), want denied", v.Decision, v.Reason)
	}
}

func TestAScriptMayBeRunWhereItsInterpreterIs(t *testing.T) {
	facts := []behavior.Fact{
		run("", "/usr/bin/dash"), run("/usr/bin/dash", "/usr/bin/python3.11"),
		open("/usr/bin/dash", "/docker-entrypoint.sh", r), open("/usr/bin/dash", "/etc/passwd", r), open("/usr/bin/dash", "/var/log/out", w),
		open("/usr/bin/python3.11", "/app/bin/serve", r), open("/usr/bin/python3.11", "/app/lib/module.py", r), open("/usr/sbin/nginx", "/srv/run.sh", r),
	}
	rendered := render(t, learnt(t, profile("web", facts...)))
	j := parse(t, namespace("block")+string(rendered.Base))
	for path, want := range map[string]engine.Decision{
		"/docker-entrypoint.sh": engine.Allowed, "/app/bin/serve": engine.Allowed,
		"/etc/passwd": engine.Denied, "/var/log/out": engine.Denied, "/app/lib/module.py": engine.Denied, "/srv/run.sh": engine.Denied,
	} {
		if v := j.Judge(web, run("/usr/bin/dash", path)); v.Decision != want {
			t.Errorf("run %s: got %s (%s), want %s", path, v.Decision, v.Reason, want)
		}
		if noted := len(rendered.Notes) == 1 && strings.Contains(rendered.Notes[0].Text, path); noted != (want == engine.Allowed) {
			t.Errorf("%s is noted: %t", path, noted)
		}
	}
}

func TestNothingToRenderIsNoPolicy(t *testing.T) {
	set := learnt(t, profile("web", behavior.Fact{Kind: behavior.Syscall, Name: "read", Arch: "amd64"}))
	if rendered, err := (kubearmor.Engine{}).Render(set); !errors.Is(err, engine.ErrNoEvidence) || len(rendered.Base) > 0 {
		t.Errorf("got %q and %v, want ErrNoEvidence", rendered.Base, err)
	}
	p := profile("web", open("/a", "/f", r))
	p.Labels = ""
	rendered := render(t, learnt(t, p))
	if len(rendered.Base) > 0 || len(rendered.Notes) != 1 || !strings.Contains(rendered.Notes[0].Text, "label") {
		t.Errorf("pods without labels: got %q and %v, want a note and no policy", rendered.Base, rendered.Notes)
	}
}

func FuzzParseRefusesOrJudges(f *testing.F) {
	f.Add([]byte(`{"spec":{"action":"Allow","file":{"matchDirectories":[{"dir":"/a/","recursive":true}]}}}`), "/a/b")
	f.Add([]byte(`{"spec":{"network":{"matchProtocols":[{"protocol":"tcp,udp"}]},"selector":{"matchLabels":{"kubearmor.io/container.name":"[a"}}}}`), "x")
	f.Fuzz(func(t *testing.T, data []byte, path string) {
		j, err := kubearmor.Engine{}.Parse([]engine.Object{{APIVersion: "security.kubearmor.com/v1", Kind: "KubeArmorPolicy", Namespace: "shop", Name: "p", JSON: data}})
		if err != nil {
			var invalid *engine.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			return
		}
		for _, fact := range []behavior.Fact{open("/a", behavior.Escape(path), rw), run("/a", behavior.Escape(path)), dial("/a", "tcp"), use("/a", "CHOWN")} {
			if v := j.Judge(web, fact); !behavior.IsEscaped(v.Object) || !behavior.IsEscaped(v.Reason) {
				t.Errorf("verdict %+v is not escaped", v)
			}
		}
	})
}
