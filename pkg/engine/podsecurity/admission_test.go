package podsecurity_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	corev1 "k8s.io/api/core/v1"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
)

// randomSpec is a pod that says something about everything that is looked at.
func randomSpec(r *rand.Rand) behavior.PodSpec {
	some := func() *bool {
		if r.IntN(3) == 0 {
			return nil
		}
		b := r.IntN(2) == 0
		return &b
	}
	profile := func() *behavior.SecurityProfile {
		return []*behavior.SecurityProfile{nil, {Type: "Unconfined"}, {Type: "RuntimeDefault"}, {Type: "Localhost", Localhost: "x"}}[r.IntN(4)]
	}
	pick := func(list ...string) []string {
		var picked []string
		for _, s := range list {
			if r.IntN(3) == 0 {
				picked = append(picked, s)
			}
		}
		return picked
	}
	spec := behavior.PodSpec{HostNetwork: r.IntN(6) == 0, HostPID: r.IntN(6) == 0, HostIPC: r.IntN(6) == 0,
		Security: behavior.PodSecurity{RunAsNonRoot: some(), Seccomp: profile()}}
	for _, p := range pick("/var/log", "/etc") {
		spec.Volumes = append(spec.Volumes, behavior.Volume{Name: strings.Trim(strings.ReplaceAll(p, "/", "-"), "-"), Kind: "hostPath", HostPath: p})
	}
	spec.Volumes = append(spec.Volumes, behavior.Volume{Name: "data", Kind: "emptyDir"})
	container := func(name string) behavior.ContainerSpec {
		c := behavior.ContainerSpec{Name: name, Security: behavior.ContainerSecurity{AllowPrivilegeEscalation: some(), ReadOnlyRootFilesystem: some(), RunAsNonRoot: some(),
			Seccomp: profile(), Capabilities: behavior.Capabilities{Add: pick("NET_RAW", "SYS_ADMIN", "ALL"), Drop: pick("ALL", "CHOWN")}}}
		if r.IntN(6) == 0 {
			yes := true
			c.Security.Privileged = &yes
		}
		if r.IntN(6) == 0 {
			c.Ports = []behavior.HostPort{{Port: int32(80 + r.IntN(2))}}
		}
		return c
	}
	spec.Containers = []behavior.ContainerSpec{container("web")}
	if r.IntN(2) == 0 {
		spec.Containers = append(spec.Containers, container("side"))
	}
	if r.IntN(2) == 0 {
		spec.InitContainers = []behavior.ContainerSpec{container("first")}
	}
	return spec
}

// asObject is the pod as the API server gives it to an expression.
func asObject(t *testing.T, spec behavior.PodSpec) map[string]any {
	t.Helper()
	plain := spec
	plain.Volumes = nil
	data, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.PodSpec
	if err := json.Unmarshal(data, &pod); err != nil {
		t.Fatal(err)
	}
	for _, v := range spec.Volumes {
		volume := corev1.Volume{Name: v.Name}
		if v.HostPath != "" {
			volume.HostPath = &corev1.HostPathVolumeSource{Path: v.HostPath}
		}
		pod.Volumes = append(pod.Volumes, volume)
	}
	if data, err = json.Marshal(map[string]any{"spec": pod}); err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

// evaluator runs a policy's expressions as the API server does.
type evaluator struct {
	variables   map[string]cel.Program
	order       []string
	validations []cel.Program
}

func newEvaluator(t *testing.T, base []byte) evaluator {
	t.Helper()
	env, err := cel.NewEnv(cel.OptionalTypes(), cel.Variable("object", cel.DynType), cel.Variable("variables", cel.MapType(cel.StringType, cel.DynType)))
	if err != nil {
		t.Fatal(err)
	}
	program := func(expression string) cel.Program {
		ast, issues := env.Compile(expression)
		if issues.Err() != nil {
			t.Fatalf("%s: %v", expression, issues.Err())
		}
		p, err := env.Program(ast)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var policy struct {
		Spec struct {
			Variables   []struct{ Name, Expression string }
			Validations []struct{ Expression string }
		}
	}
	objects := objectsOf(t, base)
	if err := json.Unmarshal(objects[0].JSON, &policy); err != nil {
		t.Fatal(err)
	}
	e := evaluator{variables: map[string]cel.Program{}}
	for _, v := range policy.Spec.Variables {
		e.variables[v.Name] = program(v.Expression)
		e.order = append(e.order, v.Name)
	}
	for _, v := range policy.Spec.Validations {
		e.validations = append(e.validations, program(v.Expression))
	}
	return e
}

func (e evaluator) admits(t *testing.T, object map[string]any) bool {
	t.Helper()
	variables := map[string]any{}
	input := map[string]any{"object": object, "variables": variables}
	for _, name := range e.order {
		v, _, err := e.variables[name].Eval(input)
		if err != nil {
			t.Fatalf("variable %s: %v", name, err)
		}
		variables[name] = v
	}
	for _, p := range e.validations {
		v, _, err := p.Eval(input)
		if err != nil {
			t.Fatal(err)
		}
		if v.Value() != true {
			return false
		}
	}
	return true
}

// The gate reads a policy back and decides in Go what the API server decides by
// its expressions: both have to come to the same, whatever the pod.
func TestAdmitDecidesAsTheExpressionsDo(t *testing.T) {
	admitted, refused := 0, 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		spec := randomSpec(r)
		p := web(behavior.ContainerSpec{})
		p.Coverage.Spec.Pod = spec
		rendered := render(t, p)
		judge := parsed(t, rendered).(engine.Admitter)
		e := newEvaluator(t, rendered.Base)
		if v := judge.Admit(workload(), spec); v.Decision != engine.Allowed || !e.admits(t, asObject(t, spec)) {
			t.Fatalf("a pod as the workload's is %s: %s\n%s", v.Decision, v.Reason, rendered.Base)
		}
		for range 20 {
			other := randomSpec(r)
			if r.IntN(2) == 0 { // nearly the same
				other = spec
				other.HostPID = !other.HostPID && r.IntN(2) == 0
				other.Containers = append([]behavior.ContainerSpec{}, spec.Containers...)
				other.Containers[0].Security.ReadOnlyRootFilesystem = nil
			}
			v := judge.Admit(workload(), other)
			if got := e.admits(t, asObject(t, other)); got != (v.Decision == engine.Allowed) {
				t.Fatalf("seed %d: the expressions say %t, we say %s: %s\n%s\n%+v", seed, got, v.Decision, v.Reason, rendered.Base, other)
			} else if got {
				admitted++
			} else {
				refused++
			}
		}
	}
	if admitted < 100 || refused < 100 {
		t.Errorf("only %d pods admitted and %d refused: the pods are too much alike", admitted, refused)
	}
}

// The Component's patch must not make pods that the admission policy, learned from
// pods without it, refuses.
func TestAHardenedPodIsAdmitted(t *testing.T) {
	for _, drop := range [][]string{nil, {"NET_RAW"}, {"ALL"}} {
		spec := behavior.ContainerSpec{Security: behavior.ContainerSecurity{Capabilities: behavior.Capabilities{Add: []string{"SYS_TIME", "CHOWN"}, Drop: drop}}}
		p := web(spec, capability("CHOWN"), capability("SYS_TIME"))
		judge := parsed(t, render(t, p)).(engine.Admitter)
		hardened := p.Coverage.Spec.Pod
		hardened.Containers = append([]behavior.ContainerSpec{}, hardened.Containers...)
		hardened.Containers[0].Security.Capabilities = behavior.Capabilities{Drop: []string{"ALL"}, Add: []string{"CHOWN", "SYS_TIME"}}
		if v := judge.Admit(workload(), hardened); v.Decision != engine.Allowed {
			t.Errorf("dropping %q: %s (%s)", drop, v.Decision, v.Reason)
		}
		hardened.Containers[0].Security.Capabilities.Add = []string{"SYS_ADMIN"}
		if v := judge.Admit(workload(), hardened); v.Decision != engine.Denied {
			t.Errorf("dropping %q, a capability that it did not have: %s", drop, v.Decision)
		}
	}
	p := web(behavior.ContainerSpec{}, capability("CHOWN"))
	judge := parsed(t, render(t, p)).(engine.Admitter)
	hardened := p.Coverage.Spec.Pod
	hardened.Containers = []behavior.ContainerSpec{{Name: "web", Security: behavior.ContainerSecurity{Capabilities: behavior.Capabilities{Drop: []string{"ALL"}, Add: []string{"CHOWN"}}}}}
	if v := judge.Admit(workload(), hardened); v.Decision != engine.Allowed {
		t.Errorf("a default capability by its name: %s (%s)", v.Decision, v.Reason)
	}
}

func TestAnEditedAdmissionPolicyIsReadAsItStands(t *testing.T) {
	p := web(behavior.ContainerSpec{})
	rendered := render(t, p)
	spec := p.Coverage.Spec.Pod
	wider := spec
	wider.HostPID = true
	for _, tt := range []struct {
		name, old, new string
		spec           behavior.PodSpec
		want           engine.Decision
	}{
		{"as it was written it refuses what is new", "", "", wider, engine.Denied},
		{"with another limit it allows it", "'[]'\n    name: host\n", "'[\"hostPID\"]'\n    name: host\n", wider, engine.Allowed},
		{"with an expression for a limit nobody can tell", "'[]'\n    name: host\n", "object.spec.x\n    name: host\n", wider, engine.Unknown},
		{"with another validation nobody can tell", "\"hostPID\" in variables.host", "true", wider, engine.Unknown},
		{"with a binding that only warns it refuses nothing", "- Deny\n", "- Warn\n", wider, engine.NotMine},
	} {
		t.Run(tt.name, func(t *testing.T) {
			edited := rendered
			edited.Base = []byte(strings.Replace(string(rendered.Base), tt.old, tt.new, 1))
			if tt.old != "" && string(edited.Base) == string(rendered.Base) {
				t.Fatalf("nothing was edited:\n%s", rendered.Base)
			}
			if v := parsed(t, edited).(engine.Admitter).Admit(workload(), tt.spec); v.Decision != tt.want {
				t.Errorf("got %s (%s), want %s", v.Decision, v.Reason, tt.want)
			}
		})
	}
}

// The list of what runtimes allow by default is checked against the profile that
// it was taken from.
func TestDefaultCallsAreThoseOfTheDefaultProfile(t *testing.T) {
	conditional := map[string]bool{}
	p := web(behavior.ContainerSpec{})
	j := parsed(t, render(t, p))
	decides := func(name string) engine.Decision {
		return j.Judge(engine.Subject{Subject: p.Subject}, behavior.Fact{Kind: behavior.Syscall, Name: name}).Decision
	}
	free := 0
	for _, s := range seccomp.DefaultProfile().Syscalls {
		unconditional := s.Action == specs.ActAllow && s.Includes == nil && s.Excludes == nil && len(s.Args) == 0
		for _, name := range s.Names {
			if !unconditional {
				conditional[name] = true
			} else if free++; decides(name) != engine.Allowed {
				t.Errorf("%s is allowed by the profile and not by us", name)
			}
		}
	}
	if free < 300 {
		t.Fatalf("the profile allows only %d calls", free)
	}
	for _, name := range []string{"clone", "clone3", "socket", "arch_prctl"} {
		delete(conditional, name)
	}
	for name := range conditional {
		if decides(name) != engine.Denied {
			t.Errorf("%s is looked closer at by the profile and not by us", name)
		}
	}
	if decides("io_uring_setup") != engine.Denied {
		t.Error("a call that the profile does not have is allowed by us")
	}
}

func TestNamesOfObjectsFit(t *testing.T) {
	w := behavior.Workload{Namespace: strings.Repeat("n", 63), Kind: "Deployment", Name: strings.Repeat("w", 240)}
	other := w
	other.Name += "x"
	if a, b := podsecurity.ObjectName(w), podsecurity.ObjectName(other); len(a) > 253 || a == b {
		t.Errorf("%d letters, equal %t", len(a), a == b)
	}
	if a, b := engine.SeccompObject(w, "web"), engine.SeccompObject(w, "api"); len(a) > 253 || a == b {
		t.Errorf("%d letters, equal %t", len(a), a == b)
	}
}
