package podsecurity_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

func workload() behavior.Workload {
	return behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}
}

// web is a profile of a web server as it should be known: all kinds watched, its
// start seen, a volume and what the runtime mounts.
func web(spec behavior.ContainerSpec, facts ...behavior.Fact) behavior.Profile {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	spec.Name = "web"
	p := behavior.Profile{
		Subject: behavior.Subject{Workload: workload(), Container: "web"}, Labels: "app=web",
		Coverage: behavior.Coverage{
			Pods:  map[string]behavior.PodCoverage{"web-1": {Start: true, From: at, To: at.Add(time.Hour)}},
			Hooks: map[behavior.Kind][]string{behavior.File: {"fentry"}, behavior.Capability: {"tracepoint"}, behavior.Syscall: {"tracepoint"}, behavior.Process: {"tracepoint"}},
			Mounts: map[string]behavior.Mount{"/data": {Volume: "data", Kind: "persistentVolumeClaim"}, "/dev": {Kind: "tmpfs"}, "/etc/hosts": {Kind: "ext4"},
				"/run/conf": {Volume: "conf", Kind: "hostPath"}},
			Spec: &behavior.SeenSpec{Made: at, Pod: behavior.PodSpec{
				Volumes:    []behavior.Volume{{Name: "data", Kind: "persistentVolumeClaim"}, {Name: "conf", Kind: "hostPath", HostPath: "/etc/conf"}},
				Containers: []behavior.ContainerSpec{spec},
			}},
		},
	}
	for _, f := range append(facts, behavior.Fact{Kind: behavior.Syscall, Name: "read", Arch: "amd64"}) {
		p.Add(f, behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{"web-1": 2}})
	}
	return p
}

func mounts() []behavior.VolumeMount {
	return []behavior.VolumeMount{{Name: "data", Path: "/data"}, {Name: "conf", Path: "/var/run/conf"}}
}

func file(access behavior.Access, op behavior.Operation, paths ...string) []behavior.Fact {
	var facts []behavior.Fact
	for _, p := range paths {
		facts = append(facts, behavior.Fact{Kind: behavior.File, Exe: "/usr/sbin/nginx", Path: p, Access: access, Operation: op})
	}
	return facts
}

func capability(name string) behavior.Fact {
	return behavior.Fact{Kind: behavior.Capability, Exe: "/usr/sbin/nginx", Name: name, Syscall: "bind", Arguments: "port 80"}
}

func set(t *testing.T, profiles ...behavior.Profile) policy.Set {
	t.Helper()
	s, err := learn.Rules(profiles, learn.Options{Decided: func(string, behavior.Fact) policy.Decision { return policy.Accepted }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func render(t *testing.T, profiles ...behavior.Profile) engine.Rendered {
	t.Helper()
	r, err := podsecurity.Engine{}.Render(set(t, profiles...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	create = behavior.Write | behavior.Create
	r, w   = behavior.Read, behavior.Write
)

func TestWhatAWebServerDoesNotNeedIsTakenFromIt(t *testing.T) {
	root := int64(0)
	facts := slices.Concat(
		file(create, "", "/run/nginx.pid", "/var/cache/nginx/client/1"),
		file(create, behavior.OpMkdir, "/var/cache/nginx/client"),
		file(w, behavior.OpChown, "/var/cache/nginx/client"),
		file(r, "", "/etc/nginx/nginx.conf", "/data/x", "/run/conf/y", "/var/cache/nginx/client/1"),
		file(w, "", "/dev/null", "/data/x"),
		file(w, behavior.OpConnect, "/var/lib/socket"),
		[]behavior.Fact{capability("NET_BIND_SERVICE"), {Kind: behavior.Capability, Exe: "/x", Name: "SYS_PTRACE", Refused: true}},
	)
	rendered := render(t, web(behavior.ContainerSpec{Mounts: mounts(), Security: behavior.ContainerSecurity{RunAsUser: &root}}, facts...))
	const want = `# What deployment/web does not need, taken from it in stage deny. Written by kubectl autopolicy.
# web: capability NET_BIND_SERVICE: by /usr/sbin/nginx in bind (port 80), 2 times in 1 pod
# web: volume conf at /var/run/conf: nothing was written to it
# web: /run: written were /run/nginx.pid
# web: /var/cache/nginx: written were /var/cache/nginx/client, /var/cache/nginx/client/1
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  template:
    spec:
      containers:
      - name: web
        securityContext:
          allowPrivilegeEscalation: false
          capabilities:
            add:
            - NET_BIND_SERVICE
            drop:
            - ALL
          readOnlyRootFilesystem: true
          seccompProfile:
            type: RuntimeDefault
        volumeMounts:
        - mountPath: /run
          name: autopolicy-web-run-94b0b6
        - mountPath: /var/cache/nginx
          name: autopolicy-web-var-cache-nginx-58e261
        - mountPath: /var/run/conf
          name: conf
          readOnly: true
      volumes:
      - emptyDir: {}
        name: autopolicy-web-run-94b0b6
      - emptyDir: {}
        name: autopolicy-web-var-cache-nginx-58e261
`
	if got := string(rendered.Component[policy.Deny]); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if len(rendered.Component[policy.Audit]) > 0 {
		t.Error("stage audit takes something away")
	}
	if !hasNote(rendered, "runs as root (uid 0)") || rendered.Level != "privileged" {
		t.Errorf("level %q, notes %v", rendered.Level, rendered.Notes)
	}
}

func hasNote(r engine.Rendered, text string) bool {
	return slices.ContainsFunc(r.Notes, func(n policy.Note) bool { return strings.Contains(n.Text, text) })
}

func TestNothingIsTakenThatMayBeNeeded(t *testing.T) {
	uid, yes := int64(1000), true
	for _, tt := range []struct {
		name   string
		change func(*behavior.Profile)
		facts  []behavior.Fact
		note   string
		not    string // what the patch must not hold
	}{
		{"a start that was not seen", func(p *behavior.Profile) { p.Coverage.Pods = map[string]behavior.PodCoverage{"web-1": {}} }, nil, "its start was not observed", "securityContext"},
		{"capabilities that nobody watched", func(p *behavior.Profile) { delete(p.Coverage.Hooks, behavior.Capability) }, nil, "the use of capabilities was not observed", "capabilities"},
		{"files of which only a snapshot is known", func(p *behavior.Profile) { p.Coverage.Hooks[behavior.File] = []string{"snapshot"} }, nil, "its files were not observed", "readOnly"},
		{"mounts that nobody saw", func(p *behavior.Profile) { p.Coverage.Mounts = nil }, nil, "what is mounted in it was not seen", "readOnly"},
		{"a privileged container", func(p *behavior.Profile) { p.Coverage.Spec.Pod.Containers[0].Security.Privileged = &yes }, nil, "is privileged", "securityContext"},
		{"a container that something injected", func(p *behavior.Profile) { p.Coverage.Spec.Pod.Containers[0].Injected = true }, nil, "was added to the pod by something else", "securityContext"},
		{"writes beside its programs", nil, file(create, "", "/usr/bin/x"), "writes to /usr/bin", "readOnlyRoot"},
		{"writes to the root folder", nil, file(create, "", "/x"), "writes to /, which is a folder of the system", "readOnlyRoot"},
		{"a change of a file of the image", nil, file(w, "", "/var/lib/web/db"), "changes /var/lib/web/db of its image", "readOnlyRoot"},
		{"the host names that its runtime mounts", nil, file(w, "", "/etc/hosts"), "changes /etc/hosts", "readOnlyRoot"},
		{"a folder of which it reads files of the image", nil, append(file(create, "", "/var/lib/web/db"), file(r, "", "/var/lib/web/seed")...), "reads /var/lib/web/seed of its image", "readOnlyRoot"},
		{"more folders than a few", nil, file(create, "", "/a/1", "/b/1", "/c/1", "/d/1", "/e/1", "/f/1", "/g/1", "/h/1", "/i/1"), "writes to 9 folders", "readOnlyRoot"},
		{"a path that the API reads otherwise", nil, file(create, "", "/var/lib/$(HOME)/x"), "a name that no manifest can hold", "readOnlyRoot"},
		{"a program that gains privileges", nil, []behavior.Fact{{Kind: behavior.Process, Parent: "/bin/sh", Path: "/usr/bin/sudo"}}, "runs /usr/bin/sudo", "allowPrivilegeEscalation"},
		{"a user that used what it was not given", func(p *behavior.Profile) { p.Coverage.Spec.Pod.Containers[0].User = &uid }, []behavior.Fact{capability("NET_RAW")}, "which it can only have gained", "allowPrivilegeEscalation"},
		{"SYS_ADMIN, which the API does not let go together", nil, []behavior.Fact{capability("SYS_ADMIN")}, "has SYS_ADMIN", "allowPrivilegeEscalation"},
		{"calls that the runtime's profile may refuse", nil, []behavior.Fact{{Kind: behavior.Syscall, Name: "mount", Arch: "amd64"}}, "calls mount", "seccompProfile"},
		{"a user that is not known", nil, nil, "which user it runs as was not seen", "runAsNonRoot"},
		{"a volume whose place is not known", func(p *behavior.Profile) { delete(p.Coverage.Mounts, "/run/conf") }, nil, "where its volume conf is mounted was not seen", "name: conf"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := web(behavior.ContainerSpec{Mounts: mounts()}, tt.facts...)
			if tt.change != nil {
				tt.change(&p)
			}
			rendered := render(t, p)
			if !hasNote(rendered, tt.note) {
				t.Errorf("no note says %q: %v", tt.note, rendered.Notes)
			}
			if patch := string(rendered.Component[policy.Deny]); strings.Contains(patch, tt.not) {
				t.Errorf("the patch holds %s:\n%s", tt.not, patch)
			}
		})
	}
}

func TestWithoutASpecificationThereIsNothing(t *testing.T) {
	p := web(behavior.ContainerSpec{}, capability("CHOWN"))
	p.Coverage.Spec = nil
	if _, err := (podsecurity.Engine{}).Render(set(t, p)); !errors.Is(err, engine.ErrNoEvidence) {
		t.Errorf("got %v", err)
	}
}

func TestAUserThatIsNotRootStaysThatWay(t *testing.T) {
	uid := int64(101)
	for name, spec := range map[string]behavior.ContainerSpec{
		"given in the manifest":     {Security: behavior.ContainerSecurity{RunAsUser: &uid}},
		"of the image, by its user": {User: &uid},
	} {
		patch := string(render(t, web(spec)).Component[policy.Deny])
		if !strings.Contains(patch, "runAsNonRoot: true") || strings.Contains(patch, "runAsUser: 101") != (spec.User != nil) {
			t.Errorf("%s:\n%s", name, patch)
		}
	}
}

func TestAProfileOfTheOperatorIsReferredToInBothStages(t *testing.T) {
	rendered, err := podsecurity.Engine{Localhost: true}.Render(set(t, web(behavior.ContainerSpec{})))
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range []policy.Stage{policy.Audit, policy.Deny} {
		if !strings.Contains(string(rendered.Component[stage]), "localhostProfile: operator/autopolicy-shop-deployment-web-web.json\n            type: Localhost") {
			t.Errorf("%s:\n%s", stage, rendered.Component[stage])
		}
	}
	if strings.Contains(string(rendered.Component[policy.Audit]), "capabilities") {
		t.Error("stage audit takes capabilities")
	}
}

// objectsOf are the objects of a file.
func objectsOf(t *testing.T, base []byte) []engine.Object {
	t.Helper()
	var objects []engine.Object
	for doc := range strings.SplitSeq(string(base), "---\n") {
		data, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			APIVersion, Kind string
			Metadata         struct{ Name string }
		}
		if err := json.Unmarshal(data, &o); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, engine.Object{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Metadata.Name, JSON: data})
	}
	return objects
}

// parsed is the judge of what was rendered, as the tree would hold it.
func parsed(t *testing.T, rendered engine.Rendered) engine.Judge {
	t.Helper()
	var objects []engine.Object
	if patch := rendered.Component[policy.Deny]; patch != nil {
		data, err := yaml.YAMLToJSON(patch)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, engine.Object{Workload: workload().Slug(), File: engine.HardeningFile, JSON: data})
	}
	objects = append(objects, objectsOf(t, rendered.Base)...)
	j, err := podsecurity.Engine{}.Parse(objects)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestJudgeDecidesAsTheKernelWould(t *testing.T) {
	p := web(behavior.ContainerSpec{Mounts: mounts()}, append(slices.Concat(file(create, "", "/tmp/a"), file(w, "", "/data/x")), capability("CHOWN"))...)
	j := parsed(t, render(t, p))
	subject := engine.Subject{Subject: p.Subject, Mounts: p.Coverage.Mounts}
	unseen := engine.Subject{Subject: p.Subject}
	other := engine.Subject{Subject: behavior.Subject{Workload: workload(), Container: "other"}, Mounts: p.Coverage.Mounts}
	for _, tt := range []struct {
		name    string
		subject engine.Subject
		fact    behavior.Fact
		want    engine.Decision
	}{
		{"a capability that was used is added", subject, capability("CHOWN"), engine.Allowed},
		{"every other one is dropped", subject, capability("NET_RAW"), engine.Denied},
		{"what the kernel refused is no matter of ours", subject, behavior.Fact{Kind: behavior.Capability, Name: "NET_RAW", Refused: true}, engine.NotMine},
		{"another container is not governed", other, capability("NET_RAW"), engine.NotMine},
		{"the root file system is read-only", subject, file(create, "", "/usr/bin/x")[0], engine.Denied},
		{"changing a mode is writing, too", subject, file(w, behavior.OpChmod, "/usr/bin/x")[0], engine.Denied},
		{"reading is not", subject, file(r, "", "/usr/bin/x")[0], engine.NotMine},
		{"connecting to a socket is not", subject, file(w, behavior.OpConnect, "/var/lib/s")[0], engine.NotMine},
		{"an emptyDir takes the place of a folder that was written", subject, file(create, "", "/tmp/deep/b")[0], engine.Allowed},
		{"a folder beside it with the same beginning is not it", subject, file(create, "", "/tmpfs/b")[0], engine.Denied},
		{"a volume that was written stays so", subject, file(w, "", "/data/y")[0], engine.NotMine},
		{"one that was not becomes read-only, by whatever path it is named", subject, file(create, "", "/run/conf/y")[0], engine.Denied},
		{"devices stay", subject, file(w, "", "/dev/null")[0], engine.NotMine},
		{"names that the runtime mounts become read-only with the root", subject, file(w, "", "/etc/hosts")[0], engine.Denied},
		{"without the mounts nobody can tell", unseen, file(create, "", "/srv/x")[0], engine.Unknown},
		{"a call of the default profile", subject, behavior.Fact{Kind: behavior.Syscall, Name: "openat"}, engine.Allowed},
		{"a call that it looks closer at", subject, behavior.Fact{Kind: behavior.Syscall, Name: "mount"}, engine.Denied},
		{"other kinds are not ours", subject, behavior.Fact{Kind: behavior.Network, Protocol: "tcp"}, engine.NotMine},
		{"what the runtime does comes before", subject, behavior.Fact{Kind: behavior.Capability, Name: "SYS_ADMIN", Runtime: true}, engine.NotMine},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := j.Judge(tt.subject, tt.fact); got.Decision != tt.want {
				t.Errorf("got %s (%s), want %s", got.Decision, got.Reason, tt.want)
			}
		})
	}
}

// What was learned from is never refused by what was made of it.
func TestEveryFactThatItCameFromIsAllowed(t *testing.T) {
	paths := []string{"/tmp/a", "/tmp/b/c", "/var/cache/x/1", "/data/1", "/run/conf/2", "/etc/hosts", "/usr/bin/x", "/srv/a", "/dev/shm/x", "/", "/var/lib/app"}
	operations := append(behavior.Operations(), "")
	names := []string{"CHOWN", "NET_RAW", "SYS_ADMIN", "SETUID"}
	calls := []string{"read", "mount", "clone", "ptrace"}
	for seed := range 400 {
		n := func(of int) int { seed = (seed*1103515245 + 12345) & 0x7fffffff; return (seed >> 8) % of }
		var facts []behavior.Fact
		for range n(6) {
			facts = append(facts, file([]behavior.Access{r, w, create, r | w}[n(4)], operations[n(len(operations))], paths[n(len(paths))])...)
		}
		for range n(3) {
			facts = append(facts, capability(names[n(len(names))]), behavior.Fact{Kind: behavior.Syscall, Name: calls[n(len(calls))], Arch: "amd64"})
		}
		p := web(behavior.ContainerSpec{Mounts: mounts()}, facts...)
		j := parsed(t, render(t, p))
		for f := range p.Facts.Keys() {
			if v := j.Judge(engine.Subject{Subject: p.Subject, Mounts: p.Coverage.Mounts}, f); v.Decision == engine.Denied || v.Decision == engine.Unknown {
				t.Fatalf("%s is %s: %s\nall facts: %v", f, v.Decision, v.Reason, facts)
			}
		}
	}
}

func TestLevels(t *testing.T) {
	yes, no, uid := true, false, int64(1000)
	restricted := behavior.ContainerSpec{Name: "web", Security: behavior.ContainerSecurity{AllowPrivilegeEscalation: &no, RunAsNonRoot: &yes,
		Capabilities: behavior.Capabilities{Drop: []string{"ALL"}}, Seccomp: &behavior.SecurityProfile{Type: "RuntimeDefault"}}}
	for _, tt := range []struct {
		name string
		spec behavior.PodSpec
		want podsecurity.Level
		says string
	}{
		{"a plain pod is baseline", behavior.PodSpec{Containers: []behavior.ContainerSpec{{Name: "web"}}}, podsecurity.Baseline, "allowPrivilegeEscalation != false"},
		{"a hardened one is restricted", behavior.PodSpec{Containers: []behavior.ContainerSpec{restricted}}, podsecurity.Restricted, ""},
		{"an init container counts", behavior.PodSpec{InitContainers: []behavior.ContainerSpec{{Name: "first"}}, Containers: []behavior.ContainerSpec{restricted}}, podsecurity.Baseline, "first"},
		{"the node's network is privileged", behavior.PodSpec{HostNetwork: true}, podsecurity.Privileged, "host namespaces"},
		{"the node's files are privileged", behavior.PodSpec{Volumes: []behavior.Volume{{Name: "x", Kind: "hostPath", HostPath: "/"}}}, podsecurity.Privileged, "hostPath volumes"},
		{"a volume that is not of the cluster is not restricted", behavior.PodSpec{Volumes: []behavior.Volume{{Name: "x", Kind: "nfs"}}, Containers: []behavior.ContainerSpec{restricted}}, podsecurity.Baseline, "restricted volume types"},
		{"a port of the node is privileged", behavior.PodSpec{Containers: []behavior.ContainerSpec{{Name: "web", Ports: []behavior.HostPort{{Port: 80}}}}}, podsecurity.Privileged, "hostPort"},
		{"a probe of another host is privileged", behavior.PodSpec{Containers: []behavior.ContainerSpec{{Name: "web", Probed: []string{"192.0.2.1"}}}}, podsecurity.Privileged, "probe"},
		{"a user for all is not enough without its word", behavior.PodSpec{Security: behavior.PodSecurity{RunAsUser: &uid}, Containers: []behavior.ContainerSpec{{Name: "web"}}}, podsecurity.Baseline, "runAsNonRoot != true"},
		{"a kernel parameter of the node", behavior.PodSpec{Security: behavior.PodSecurity{Sysctls: []behavior.Sysctl{{Name: "kernel.core_pattern"}}}}, podsecurity.Privileged, "sysctls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			level, obstacles := podsecurity.LevelOf(tt.spec)
			if level != tt.want || (tt.says == "") != (len(obstacles) == 0) || !strings.Contains(fmt.Sprint(obstacles), tt.says) {
				t.Errorf("got %s, %q, want %s and %q", level, obstacles, tt.want, tt.says)
			}
		})
	}
	if l := podsecurity.Lowest(podsecurity.Restricted, podsecurity.Privileged, podsecurity.Baseline); l != podsecurity.Privileged {
		t.Errorf("the lowest is %s", l)
	}
}
