package rollout_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// listEngine allows the facts that its object lists, word for word. It stands
// for an engine where a test is about the rollout and not about engines.
type listEngine struct {
	name, apiVersion, kind string
	kinds                  []behavior.Kind
}

type listObject struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       listSpec `json:"spec"`
}

type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type listSpec struct {
	Selector          map[string]string `json:"endpointSelector,omitempty"`
	EnableDefaultDeny map[string]bool   `json:"enableDefaultDeny,omitempty"`
	Allow             []string          `json:"allow"`
}

func listEngines() []engine.Engine {
	return []engine.Engine{
		listEngine{"kubearmor", "security.kubearmor.com/v1", "KubeArmorPolicy", []behavior.Kind{behavior.Process, behavior.File}},
		listEngine{"cilium", "cilium.io/v2", "CiliumNetworkPolicy", []behavior.Kind{behavior.Network}},
		listEngine{"networkpolicy", "networking.k8s.io/v1", "NetworkPolicy", []behavior.Kind{behavior.Network}},
		seccompEngine{},
	}
}

func (e listEngine) Name() string { return e.name }

func (e listEngine) Render(s policy.Set) (engine.Rendered, error) {
	o := listObject{APIVersion: e.apiVersion, Kind: e.kind,
		Metadata: metadata{Name: "autopolicy-" + s.Workload.Slug(), Namespace: s.Workload.Namespace}, Spec: listSpec{Selector: s.Labels}}
	for _, r := range s.Rules {
		if slices.Contains(e.kinds, r.Kind) {
			for f := range r.Facts.All() {
				o.Spec.Allow = append(o.Spec.Allow, r.Container+": "+f.Fact.String())
			}
		}
	}
	if len(o.Spec.Allow) == 0 {
		return engine.Rendered{}, engine.ErrNoEvidence
	}
	data, err := yaml.Marshal(o)
	return engine.Rendered{Base: data}, err
}

func (e listEngine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := listJudge{engine: e, objects: map[string]listObject{}}
	for _, o := range objects {
		var l listObject
		if o.Kind != e.kind && o.Kind != "Namespace" {
			continue
		}
		if err := json.Unmarshal(o.JSON, &l); err != nil {
			return nil, fmt.Errorf("read %s: %w", o.Name, err)
		}
		if o.Kind == "Namespace" {
			j.block = l.Metadata.Annotations["kubearmor-file-posture"] == "block"
			continue
		}
		if slices.Contains(l.Spec.Allow, "invalid") {
			return nil, &engine.InvalidError{Object: o.Kind + "/" + o.Name, Reason: "it says so"}
		}
		j.objects[o.Name] = l
	}
	return j, nil
}

type listJudge struct {
	engine  listEngine
	objects map[string]listObject
	block   bool
}

func (j listJudge) Judge(s engine.Subject, f behavior.Fact) engine.Verdict {
	o, ok := j.objects["autopolicy-"+s.Workload.Slug()]
	if !ok || !slices.Contains(j.engine.kinds, f.Kind) || o.Spec.EnableDefaultDeny != nil || o.Kind == "KubeArmorPolicy" && !j.block {
		return engine.Verdict{}
	}
	v := engine.Verdict{Decision: engine.Denied, Object: o.Kind + "/" + o.Metadata.Name, Reason: "it is not in the list"}
	if slices.Contains(o.Spec.Allow, "unknown") {
		v.Decision, v.Reason = engine.Unknown, "nobody knows"
	}
	if slices.Contains(o.Spec.Allow, s.Container+": "+f.String()) {
		v.Decision, v.Reason = engine.Allowed, "it is in the list"
	}
	return v
}

// seccompEngine writes a file beside each stage.
type seccompEngine struct{}

func (seccompEngine) Name() string { return "seccomp" }

func (seccompEngine) Render(s policy.Set) (engine.Rendered, error) {
	stage := map[policy.Stage]map[string][]byte{policy.Audit: {}, policy.Deny: {}}
	for _, c := range s.Containers {
		var calls []string
		for _, r := range s.Of(c, behavior.Syscall) {
			calls = append(calls, fmt.Sprintf("  %q", r.Name))
		}
		if len(calls) == 0 {
			continue
		}
		text := strings.Join(calls, ",\n")
		stage[policy.Audit]["seccomp-"+c+".json"] = []byte("{\"log\": [\n" + text + "\n]}\n")
		stage[policy.Deny]["seccomp-"+c+".json"] = []byte("{\"deny\": [\n" + text + "\n]}\n")
	}
	if len(stage[policy.Audit]) == 0 {
		return engine.Rendered{}, engine.ErrNoEvidence
	}
	return engine.Rendered{Stage: stage}, nil
}

func (seccompEngine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := seccompJudge{}
	for _, o := range objects {
		if strings.HasPrefix(o.File, "seccomp-") {
			j[o.Workload+"/"+o.File] = string(o.JSON)
		}
	}
	return j, nil
}

type seccompJudge map[string]string

func (j seccompJudge) Judge(s engine.Subject, f behavior.Fact) engine.Verdict {
	text, ok := j[s.Workload.Slug()+"/seccomp-"+s.Container+".json"]
	switch {
	case !ok || f.Kind != behavior.Syscall || strings.Contains(text, `"log"`):
		return engine.Verdict{}
	case strings.Contains(text, `"`+f.Name+`"`):
		return engine.Verdict{Decision: engine.Allowed, Object: "seccomp-" + s.Container}
	}
	return engine.Verdict{Decision: engine.Denied, Object: "seccomp-" + s.Container, Reason: "it is not in the list"}
}
