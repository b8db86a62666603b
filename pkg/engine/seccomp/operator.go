package seccomp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// The Security Profiles Operator's object, of which the operator makes a file on
// every node.
const (
	operatorVersion = "security-profiles-operator.x-k8s.io/v1"
	operatorKind    = "SeccompProfile"
)

// operated is a SeccompProfile of the operator. Its specification has the fields of
// a runtime's profile, but for the error of denied calls, which is EPERM.
type operated struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   objectMeta      `json:"metadata"`
	Spec       operatedProfile `json:"spec"`
}

type objectMeta struct {
	Name string `json:"name"`
}

type operatedProfile struct {
	State           string    `json:"state,omitempty"`
	BaseProfileName string    `json:"baseProfileName,omitempty"`
	DefaultAction   string    `json:"defaultAction"`
	Architectures   []string  `json:"architectures,omitempty"`
	Flags           []string  `json:"flags,omitempty"`
	Syscalls        []syscall `json:"syscalls,omitempty"`
}

// object appends a container's profile, as it is in stage deny: in audit the tree
// patches its default action.
func (e Engine) object(rendered *engine.Rendered, w behavior.Workload, container string, p profile) error {
	o := operated{APIVersion: operatorVersion, Kind: operatorKind, Metadata: objectMeta{engine.SeccompObject(w, container)},
		Spec: operatedProfile{DefaultAction: actErrno, Architectures: p.Architectures, Syscalls: p.Syscalls}}
	if !e.WithoutLog {
		o.Spec.Flags = []string{flagLog}
	}
	data, err := yaml.Marshal(o)
	if err != nil {
		return fmt.Errorf("write seccomp profile of %s: %w", behavior.Escape(container), err)
	}
	if len(rendered.Base) > 0 {
		rendered.Base = append(rendered.Base, "---\n"...)
	}
	rendered.Base = append(rendered.Base, data...)
	return nil
}

// readObject gives the rules of an operator's object.
func readObject(o engine.Object) (rules, error) {
	var found operated
	d := json.NewDecoder(bytes.NewReader(o.JSON))
	if err := d.Decode(&found); err != nil {
		return rules{}, err
	}
	if found.Spec.BaseProfileName != "" {
		return rules{}, fmt.Errorf("it is based on profile %s, which is not in the tree", found.Spec.BaseProfileName)
	}
	data, err := json.Marshal(profile{DefaultAction: found.Spec.DefaultAction, Architectures: found.Spec.Architectures,
		Flags: found.Spec.Flags, Syscalls: found.Spec.Syscalls})
	if err != nil {
		return rules{}, err
	}
	return decode(data)
}

// unseenStart notes that a container gets no profile that denies.
func unseenStart(container string) policy.Note {
	return policy.Note{Engine: Name, Container: container,
		Text: "its start was not observed: a profile that denies could keep it from starting, and is not written"}
}

// byName are the profiles of the operator's objects, by the objects' names.
func byName(objects []engine.Object) (map[string]rules, error) {
	found := map[string]rules{}
	for _, o := range objects {
		if o.Workload != "" || o.APIVersion != operatorVersion || o.Kind != operatorKind {
			continue
		}
		r, err := readObject(o)
		name := operatorKind + "/" + behavior.Escape(o.Name)
		if err != nil {
			return nil, &engine.InvalidError{Object: name, Reason: behavior.Escape(err.Error())}
		}
		r.object = name
		found[o.Name] = r
	}
	return found, nil
}

// sortedCalls are names of calls with what every profile holds.
func sortedCalls(names []string) []string {
	names = slices.Concat(names, base(), everyday())
	slices.Sort(names)
	return slices.Compact(names)
}
