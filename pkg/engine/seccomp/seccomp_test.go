package seccomp_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

var update = flag.Bool("update", false, "write what was rendered as what is wanted")

var web = engine.Subject{Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"}}

func call(arch string, names ...string) []behavior.Fact {
	var facts []behavior.Fact
	for _, name := range names {
		facts = append(facts, behavior.Fact{Kind: behavior.Syscall, Name: name, Arch: arch})
	}
	return facts
}

func learnt(t testing.TB, container string, facts ...behavior.Fact) policy.Set {
	t.Helper()
	p := behavior.Profile{Subject: behavior.Subject{Workload: web.Workload, Container: container}, Labels: "app=web",
		Coverage: behavior.Coverage{Pods: map[string]behavior.PodCoverage{"web-1": {Start: true}}}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, f := range facts {
		p.Add(f, behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{"web-1": 1}})
	}
	set, err := learn.Rules([]behavior.Profile{p}, learn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func render(t testing.TB, set policy.Set) engine.Rendered {
	t.Helper()
	rendered, err := seccomp.Engine{}.Render(set)
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

// file is a profile as the tree of a workload in a stage holds it.
func file(container string, data []byte) engine.Object {
	return engine.Object{Workload: web.Workload.Slug(), File: seccomp.FileName(container), JSON: data}
}

func parse(t testing.TB, objects ...engine.Object) engine.Judge {
	t.Helper()
	j, err := seccomp.Engine{}.Parse(objects)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestRenderedProfilesAreAsWanted(t *testing.T) {
	for _, tt := range []struct {
		name  string
		facts []behavior.Fact
	}{
		{"amd64", call("amd64", "accept4", "write", "read", "mkdirat")},
		{"mixed-cluster", append(call("amd64", "open", "write"), call("arm64", "openat", "write")...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rendered := render(t, learnt(t, "web", tt.facts...))
			if len(rendered.Base) > 0 || len(rendered.Stage) != 2 {
				t.Fatalf("base %q, stages %v", rendered.Base, rendered.Stage)
			}
			for stage, files := range rendered.Stage {
				name := filepath.Join("testdata", tt.name, string(stage)+".json")
				got := files["seccomp-web.json"]
				if *update {
					if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
						t.Fatal(err)
					}
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
			}
		})
	}
}

func TestWhatCannotBeSaidIsNoted(t *testing.T) {
	facts := slices.Concat(call("amd64", "read", "sys_471", `odd\x0aname`), call("386", "read"), call("riscv64", "write"))
	rendered := render(t, learnt(t, "web", facts...))
	var text []string
	for _, n := range rendered.Notes {
		text = append(text, n.Text)
		if n.Engine != seccomp.Name || !behavior.IsEscaped(n.Text) {
			t.Errorf("unfit note %+v", n)
		}
	}
	for _, want := range []string{"sys_471", `odd\x0aname`, "386, amd64 share one list", "riscv64", "runc 1.2"} {
		if !strings.Contains(strings.Join(text, "\n"), want) {
			t.Errorf("no note says %q: %q", want, text)
		}
	}
	deny := string(rendered.Stage[policy.Deny]["seccomp-web.json"])
	for _, no := range []string{"sys_471", "odd"} {
		if strings.Contains(deny, no) {
			t.Errorf("%s is in the profile", no)
		}
	}
}

func TestNothingToRenderIsNoProfile(t *testing.T) {
	set := learnt(t, "web", behavior.Fact{Kind: behavior.File, Exe: "/a", Path: "/f", Access: behavior.Read})
	if rendered, err := (seccomp.Engine{}).Render(set); !errors.Is(err, engine.ErrNoEvidence) || rendered.Stage != nil {
		t.Errorf("got %v and %v, want ErrNoEvidence", rendered.Stage, err)
	}
	rendered := render(t, learnt(t, "web", call("amd64", "sys_999")...))
	if rendered.Stage != nil || len(rendered.Notes) != 1 {
		t.Errorf("only nameless calls: got %v and %v, want a note and no profile of the runtime's calls alone", rendered.Stage, rendered.Notes)
	}
}

func TestEveryCallIsAllowedOrNoted(t *testing.T) {
	pool := []string{"read", "write", "open", "openat", "clone3", "io_uring_enter", "socketcall", "sys_470", "sys_999"}
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		var facts []behavior.Fact
		for range 1 + rnd.IntN(20) {
			facts = append(facts, call([]string{"amd64", "386", "arm64", "arm", "riscv64"}[rnd.IntN(5)], pool[rnd.IntN(len(pool))])...)
		}
		rendered := render(t, learnt(t, "web", facts...))
		rnd.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
		again := render(t, learnt(t, "web", facts...))
		for stage, files := range rendered.Stage {
			if !bytes.Equal(files["seccomp-web.json"], again.Stage[stage]["seccomp-web.json"]) {
				t.Errorf("seed %d: shuffled facts gave other bytes", seed)
			}
			j := parse(t, file("web", files["seccomp-web.json"]))
			for _, f := range facts {
				noted := slices.ContainsFunc(rendered.Notes, func(n policy.Note) bool { return strings.HasPrefix(n.Text, "system call "+f.Name+" ") })
				if v := j.Judge(web, f); v.Decision != engine.Allowed && !noted {
					t.Errorf("seed %d, %s: %s: %s (%s)", seed, stage, f, v.Decision, v.Reason)
				}
			}
			v := j.Judge(web, call("amd64", "mount")[0])
			if want := map[policy.Stage]engine.Decision{policy.Audit: engine.Allowed, policy.Deny: engine.Denied}[stage]; v.Decision != want {
				t.Errorf("seed %d, %s: mount: got %s, want %s", seed, stage, v.Decision, want)
			}
		}
	}
}

func TestJudgeReadsProfilesOfAnyHand(t *testing.T) {
	for _, tt := range []struct {
		name    string
		profile string
		fact    behavior.Fact
		want    engine.Decision
	}{
		{"a listed call is allowed", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, call("amd64", "read")[0], engine.Allowed},
		{"a call that is not listed gets the default", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, call("amd64", "write")[0], engine.Denied},
		{"a default that logs allows", `{"defaultAction":"SCMP_ACT_LOG"}`, call("amd64", "write")[0], engine.Allowed},
		{"a listed call may be denied", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_KILL_PROCESS"}]}`, call("amd64", "mount")[0], engine.Denied},
		{"arguments are not known", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}`, call("amd64", "clone")[0], engine.Unknown},
		{"two rules that differ are not known", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["clone"],"action":"SCMP_ACT_ALLOW"},{"names":["clone"],"action":"SCMP_ACT_LOG"}]}`, call("amd64", "clone")[0], engine.Unknown},
		{"another program decides", `{"defaultAction":"SCMP_ACT_NOTIFY"}`, call("amd64", "clone")[0], engine.Unknown},
		{"32-bit calls of an architecture that is not listed are killed", `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"]}`, call("386", "read")[0], engine.Denied},
		{"the kernel's own architecture need not be listed", `{"defaultAction":"SCMP_ACT_ALLOW"}`, call("arm64", "read")[0], engine.Allowed},
		{"facts of other kinds are not governed", `{"defaultAction":"SCMP_ACT_ERRNO"}`, behavior.Fact{Kind: behavior.File, Path: "/f", Access: behavior.Read}, engine.NotMine},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := parse(t, file("web", []byte(tt.profile))).Judge(web, tt.fact)
			if v.Decision != tt.want || (v.Reason == "") != (tt.want == engine.NotMine) {
				t.Errorf("got %s (%s), want %s", v.Decision, v.Reason, tt.want)
			}
		})
	}
	other := web
	other.Container = "log"
	if v := parse(t, file("web", []byte(`{"defaultAction":"SCMP_ACT_ERRNO"}`))).Judge(other, call("amd64", "read")[0]); v.Decision != engine.NotMine {
		t.Errorf("another container: got %s", v.Decision)
	}
	if v := parse(t, engine.Object{Workload: "deployment-web", File: "other.json", JSON: []byte("{")}, engine.Object{Kind: "ConfigMap"}).Judge(web, call("amd64", "read")[0]); v.Decision != engine.NotMine {
		t.Errorf("another file: got %s", v.Decision)
	}
}

func TestParseRefusesWhatARuntimeWouldRefuse(t *testing.T) {
	for _, tt := range []struct{ name, profile string }{
		{"no profile", ``},
		{"no default", `{}`},
		{"an unknown default", `{"defaultAction":"DENY"}`},
		{"an unknown field", `{"defaultAction":"SCMP_ACT_LOG","syscall":[]}`},
		{"an unknown action", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["read"],"action":"allow"}]}`},
		{"a rule without a call", `{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":[],"action":"SCMP_ACT_ALLOW"}]}`},
		{"an unknown architecture", `{"defaultAction":"SCMP_ACT_LOG","architectures":["amd64"]}`},
		{"an unknown flag", `{"defaultAction":"SCMP_ACT_LOG","flags":["LOG"]}`},
		{"two values", `{"defaultAction":"SCMP_ACT_LOG"}{}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := seccomp.Engine{}.Parse([]engine.Object{file("web", []byte(tt.profile))})
			var invalid *engine.InvalidError
			if !errors.As(err, &invalid) || invalid.Object != "deployment-web/seccomp-web.json" || !behavior.IsEscaped(invalid.Reason) {
				t.Errorf("got %v, want an InvalidError that names the file", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := seccomp.Engine{}.Parse([]engine.Object{file("web", data)})
		if err != nil {
			var invalid *engine.InvalidError
			if !errors.As(err, &invalid) || !behavior.IsEscaped(invalid.Reason) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			return
		}
		if v := j.Judge(web, call("amd64", "read")[0]); v.Decision == engine.NotMine || !json.Valid(data) {
			t.Errorf("verdict %+v for %s", v, fmt.Sprintf("%q", data))
		}
	})
}

// A promotion was once held up by gettid and madvise, which Go's runtime makes
// now and then.
func TestEverydayCallsAreAllowedAndAttacksAreNot(t *testing.T) {
	deny := render(t, learnt(t, "web", call("amd64", "read", "accept4")...)).Stage[policy.Deny][seccomp.FileName("web")]
	judge := parse(t, file("web", deny))
	for _, f := range call("amd64", "gettid", "madvise", "munmap", "rt_sigreturn", "futex", "clock_nanosleep", "accept4") {
		if v := judge.Judge(web, f); v.Decision != engine.Allowed {
			t.Errorf("%s: %s (%s)", f, v.Decision, v.Reason)
		}
	}
	for _, f := range call("amd64", "socket", "connect", "bind", "listen", "ptrace", "process_vm_readv", "mount", "unshare", "setns",
		"clone", "clone3", "fork", "memfd_create", "bpf", "kill", "init_module", "pivot_root", "chroot", "keyctl", "io_uring_setup", "userfaultfd", "personality", "unlink", "rename", "chmod") {
		if v := judge.Judge(web, f); v.Decision != engine.Denied {
			t.Errorf("%s: %s", f, v.Decision)
		}
	}
}

func TestAContainerWhoseStartWasNotSeenGetsNoProfileThatDenies(t *testing.T) {
	set := learnt(t, "web", call("amd64", "read")...)
	set.Coverage = nil
	for _, e := range []seccomp.Engine{{}, {Operator: true}} {
		rendered, err := e.Render(set)
		if err != nil {
			t.Fatal(err)
		}
		if len(rendered.Stage[policy.Deny]) > 0 || len(rendered.Base) > 0 || (len(rendered.Stage[policy.Audit]) > 0) == e.Operator {
			t.Errorf("%+v: %+v", e, rendered)
		}
		if !slices.ContainsFunc(rendered.Notes, func(n policy.Note) bool { return strings.Contains(n.Text, "its start was not observed") }) {
			t.Errorf("no note says why: %v", rendered.Notes)
		}
	}
}

func TestAnObjectOfTheOperatorHoldsWhatAFileDoes(t *testing.T) {
	set := learnt(t, "web", call("amd64", "accept4")...)
	rendered, err := seccomp.Engine{Operator: true}.Render(set)
	if err != nil {
		t.Fatal(err)
	}
	data, err := yaml.YAMLToJSON(rendered.Base)
	if err != nil {
		t.Fatal(err)
	}
	name := "autopolicy-shop-deployment-web-web"
	object := engine.Object{APIVersion: "security-profiles-operator.x-k8s.io/v1", Kind: "SeccompProfile", Name: name, JSON: data}
	if !bytes.Contains(data, []byte(`"name":"`+name+`"`)) || len(rendered.Stage) > 0 {
		t.Errorf("%s", data)
	}
	audited := object
	audited.JSON = bytes.Replace(data, []byte("SCMP_ACT_ERRNO"), []byte("SCMP_ACT_LOG"), 1)
	for _, tt := range []struct {
		name   string
		object engine.Object
		call   string
		want   engine.Decision
	}{
		{"what was seen", object, "accept4", engine.Allowed},
		{"what the runtime calls", object, "openat2", engine.Allowed},
		{"what was not seen", object, "mount", engine.Denied},
		{"what was not seen, in audit", audited, "mount", engine.Allowed},
	} {
		if v := parse(t, tt.object).Judge(web, call("amd64", tt.call)[0]); v.Decision != tt.want {
			t.Errorf("%s: %s (%s)", tt.name, v.Decision, v.Reason)
		}
	}
	based := object
	based.JSON = bytes.Replace(data, []byte(`"spec":{`), []byte(`"spec":{"baseProfileName":"runc-v1.4",`), 1)
	var invalid *engine.InvalidError
	if _, err := (seccomp.Engine{}).Parse([]engine.Object{based}); !errors.As(err, &invalid) {
		t.Errorf("a profile whose base is elsewhere: %v", err)
	}
}
