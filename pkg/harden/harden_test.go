package harden

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
)

func subject(t *testing.T, objects []engine.Object, facts ...behavior.Fact) Subject {
	t.Helper()
	s := engine.Subject{Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: "web"},
		Labels: map[string]string{"app": "web"}}
	j, err := kubearmor.Engine{}.Parse(objects)
	if err != nil {
		t.Fatal(err)
	}
	room, err := kubearmor.NewRoom(j, s)
	if err != nil {
		t.Fatal(err)
	}
	return Subject{Subject: s, Facts: facts, Room: room}
}

func builtIns(t *testing.T) []Template {
	t.Helper()
	all, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("%d built-in templates", len(all))
	}
	return all
}

func outcomes(t *testing.T, s Subject, templates []Template) map[string]Result {
	t.Helper()
	results, err := Match(s, templates)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]Result{}
	for _, r := range results {
		m[r.Template.Name] = r
	}
	if len(m) != len(templates) {
		t.Fatalf("%d results of %d templates", len(m), len(templates))
	}
	return m
}

func run(path, parent string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Process, Exe: path, Parent: parent, Path: path}
}

func open(exe, path string, a behavior.Access) behavior.Fact {
	return behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: a}
}

func TestEveryBuiltInTemplateSaysWhatAndWhy(t *testing.T) {
	for _, b := range builtIns(t) {
		if b.Summary == "" || b.Detail == "" || len(b.References) == 0 || len(b.Actions()) != 1 {
			t.Errorf("%s: %q, %d references, actions %v", b.Name, b.Summary, len(b.References), b.Actions())
		}
		if b.remark() != "" {
			t.Errorf("%s: %s", b.Name, b.remark())
		}
		// What it blocks of nothing observed must be possible to apply.
		r := outcomes(t, subject(t, nil, run("/usr/bin/web", ""), open("/usr/bin/web", "/etc/nginx/nginx.conf", behavior.Read)), []Template{b})[b.Name]
		if r.Outcome != Applies && r.Outcome != NotFor {
			t.Errorf("%s: %s, %s", b.Name, r.Outcome, r.Why)
		}
	}
}

func TestATemplateThatWouldDenyWhatWasObservedIsAConflict(t *testing.T) {
	for _, test := range []struct {
		name, template string
		fact           behavior.Fact
	}{
		{"a probe that runs curl", "download-tools", behavior.Fact{Kind: behavior.Process, Exe: "/usr/bin/curl", Path: "/usr/bin/curl", Origin: behavior.OriginProbe}},
		{"a service that uses its token", "service-account-token", open("/usr/bin/web", "/run/secrets/kubernetes.io/serviceaccount/token", behavior.Read)},
		{"a program in /tmp", "exec-from-temporary-folders", run("/tmp/plugins/render", "/usr/bin/web")},
		{"a service that installs itself", "programs-are-read-only", open("/usr/bin/web", "/usr/local/bin/helper", behavior.Write|behavior.Create)},
		{"a login service", "password-files", open("/usr/sbin/login", "/etc/shadow", behavior.Read)},
		{"a debugger", "escape-capabilities", behavior.Fact{Kind: behavior.Capability, Exe: "/usr/bin/web", Name: "SYS_PTRACE", Syscall: "ptrace"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := builtIns(t)
			without := outcomes(t, subject(t, nil, run("/usr/bin/web", "")), all)[test.template]
			if without.Outcome != Applies || len(without.Policies) == 0 {
				t.Fatalf("without it: %s %s", without.Outcome, without.Why)
			}
			with := outcomes(t, subject(t, nil, run("/usr/bin/web", ""), test.fact), all)[test.template]
			if with.Outcome != Conflicts || len(with.Policies) > 0 || len(with.Facts) != 1 || with.Facts[0] != test.fact || !strings.Contains(with.Why, test.fact.String()) {
				t.Errorf("with it: %s, %s, %v", with.Outcome, with.Why, with.Facts)
			}
			entered := test.fact
			entered.Origin = behavior.OriginExec
			if r := outcomes(t, subject(t, nil, run("/usr/bin/web", ""), entered), all)[test.template]; r.Outcome != Applies {
				t.Errorf("what a person did who entered is no conflict: %s", r.Why)
			}
		})
	}
}

// The property that all rests on: together, what applies denies nothing that was
// seen, and what was not applied is told.
func TestWhatAppliesDeniesNothingObserved(t *testing.T) {
	facts := []behavior.Fact{run("/usr/sbin/nginx", ""), run("/usr/bin/wget", "/usr/sbin/nginx"), open("/usr/sbin/nginx", "/etc/nginx/nginx.conf", behavior.Read),
		open("/usr/sbin/nginx", "/etc/shadow", behavior.Read), open("/usr/sbin/nginx", "/var/www/upload", behavior.Write|behavior.Create),
		open("/usr/sbin/nginx", "/etc/ssl/certs/ca.pem", behavior.Read), {Kind: behavior.Capability, Exe: "/usr/sbin/nginx", Name: "SETUID", Syscall: "setuid"}}
	s := subject(t, nil, facts...)
	results, err := Match(s, builtIns(t))
	if err != nil {
		t.Fatal(err)
	}
	var objects []engine.Object
	applied := 0
	for _, r := range results {
		objects = append(objects, r.objects...)
		if r.Outcome == Applies {
			applied++
		}
	}
	j, err := kubearmor.Engine{}.Parse(objects)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range facts {
		if v := j.Judge(s.Subject, f); v.Decision == engine.Denied || v.Decision == engine.Unknown {
			t.Errorf("%s: %s by %s", f, v.Decision, v.Object)
		}
	}
	if applied < 15 {
		t.Errorf("%d templates applied", applied)
	}
	if v := j.Judge(s.Subject, run("/usr/bin/apt-get", "/usr/sbin/nginx")); v.Decision != engine.Denied {
		t.Errorf("apt-get: %s", v.Decision)
	}
}

func TestTemplatesTakeNoMoreKeysThanAreLeft(t *testing.T) {
	var rules strings.Builder
	for i := range 240 {
		rules.WriteString(`{"path":"/opt/app/` + strings.Repeat("x", i%7+1) + string(rune('a'+i%26)) + strings.Repeat("y", i/7+1) + `"},`)
	}
	learned := engine.Object{APIVersion: "security.kubearmor.com/v1", Kind: "KubeArmorPolicy", Namespace: "shop", Name: "web", JSON: []byte(
		`{"apiVersion":"security.kubearmor.com/v1","kind":"KubeArmorPolicy","metadata":{"name":"web","namespace":"shop"},"spec":{"selector":{"matchLabels":{"app":"web"}},"file":{"matchPaths":[` +
			strings.TrimSuffix(rules.String(), ",") + `]},"action":"Allow"}}`)}
	all := outcomes(t, subject(t, []engine.Object{learned}, run("/usr/bin/web", "")), builtIns(t))
	count := map[Outcome]int{}
	for _, r := range all {
		count[r.Outcome]++
	}
	if count[NoRoom] == 0 || count[Applies] == 0 {
		t.Errorf("%v", count)
	}
	if r := all["kernel-modules"]; r.Outcome != Applies {
		t.Errorf("the most severe goes first: %s %s", r.Outcome, r.Why)
	}
}

func TestAFolderOfTemplatesIsReadOrRefused(t *testing.T) {
	const head = "version: v1\npolicyRules:\n- name: one\n  precondition: [OPTSCAN]\n  description: {tldr: Short}\n"
	const good = "kind: KubeArmorPolicy\nspec:\n  process:\n    matchPaths:\n    - path: /bin/x\n  action: Block\n"
	for _, test := range []struct {
		name, metadata, file string
		want                 string // of the error
		skipped              string // or of the reason
	}{
		{name: "a policy beside it", metadata: head + "  yaml: one.yaml\n", file: good},
		{name: "a policy in it", metadata: head + "  spec: {process: {matchPaths: [{path: /bin/x}]}, action: Audit}\n"},
		{name: "a path out of the folder", metadata: head + "  yaml: ../one.yaml\n", want: "not the name of a file beside it"},
		{name: "an absolute path", metadata: head + "  yaml: /etc/passwd\n", want: "not the name of a file beside it"},
		{name: "a key twice", metadata: "version: v1\nversion: v2\n", want: `key "version" already set`},
		{name: "a key twice in the policy", metadata: head + "  yaml: one.yaml\n", file: good + "kind: Secret\n", want: `t/one.yaml: `},
		{name: "aliases that grow", metadata: "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", want: "excessive aliasing"},
		{name: "a precondition that is no expression", metadata: strings.Replace(head, "OPTSCAN", `"("`, 1) + "  yaml: one.yaml\n", file: good, want: "no regular expression"},
		{name: "a file that is not there", metadata: head + "  yaml: two.yaml\n", skipped: "is not there"},
		{name: "a policy that allows", metadata: head + "  yaml: one.yaml\n", file: strings.Replace(good, "Block", "Allow", 1), skipped: "Allow rules"},
		{name: "another kind", metadata: head + "  yaml: one.yaml\n", file: strings.Replace(good, "KubeArmorPolicy", "CiliumNetworkPolicy", 1), skipped: "it is a CiliumNetworkPolicy"},
		{name: "a field that the API server would prune", metadata: head + "  yaml: one.yaml\n", file: good + "  bogus: 1\n", skipped: `unknown field "bogus"`},
		{name: "no rule", metadata: head + "  spec: {severity: 3, action: Block}\n", skipped: "no rule"},
		{name: "a name that is a terminal's", metadata: strings.Replace(head, "name: one", `name: "\e[31mone"`, 1) + "  spec: {process: {matchPaths: [{path: /bin/x}]}, action: Block}\n"},
		{name: "a policy that is empty", metadata: "", want: ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			files := map[string][]byte{"t/metadata.yaml": []byte(test.metadata), "t/one.yaml": []byte(test.file)}
			all, skipped, err := Read(files, "fleet")
			switch {
			case test.want != "":
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("got %v", err)
				}
			case err != nil:
				t.Error(err)
			case test.skipped != "":
				if len(all) != 0 || len(skipped) != 1 || !strings.Contains(skipped[0].Reason, test.skipped) {
					t.Errorf("got %v %v", all, skipped)
				}
			case test.metadata != "":
				if len(all) != 1 || len(skipped) != 0 || strings.ContainsAny(all[0].Name+all[0].Summary, "\x1b") {
					t.Errorf("got %v %v", all, skipped)
				}
			}
		})
	}
}

// A clone of kubearmor/policy-templates is held against the reader where one is
// given; the built-in ones have the same layout and are read in every run.
func TestPublishedTemplatesAreReadWhereTheyAre(t *testing.T) {
	dir := os.Getenv("AUTOPOLICY_TEMPLATES")
	if dir == "" {
		dir = "templates"
	}
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files[filepath.ToSlash(p)], err = os.ReadFile(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	all, skipped, err := Read(files, dir)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d templates, %v", len(all), err)
	}
	for _, s := range skipped {
		t.Logf("skipped %s: %s", s.Name, s.Reason)
	}
	t.Logf("%d templates, %d skipped", len(all), len(skipped))
	if _, err := Match(subject(t, nil, run("/usr/sbin/nginx", "")), all); err != nil {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("policyRules:\n- name: one\n  yaml: one.yaml\n"), []byte("kind: KubeArmorPolicy\nspec: {process: {matchPaths: [{path: /bin/x}]}}\n"))
	f.Fuzz(func(t *testing.T, metadata, policy []byte) {
		all, _, err := Read(map[string][]byte{"metadata.yaml": metadata, "one.yaml": policy}, "here")
		if err != nil {
			return
		}
		for _, x := range all {
			if !behavior.IsEscaped(x.Name) || !behavior.IsEscaped(x.Summary) {
				t.Errorf("%q", x.Name)
			}
		}
		if _, err := Match(subject(t, nil, run("/bin/a", "")), all); err != nil {
			t.Error(err)
		}
	})
}
