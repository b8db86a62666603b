package podsecurity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// templates tells, for the kinds that Kustomize can merge a patch into, the API
// version and where the pod's specification is. In other kinds it would replace
// the list of containers instead of merging into it.
func templates(kind string) (apiVersion string, at []string) {
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
		return "apps/v1", []string{"spec", "template", "spec"}
	case "Job":
		return "batch/v1", []string{"spec", "template", "spec"}
	case "CronJob":
		return "batch/v1", []string{"spec", "jobTemplate", "spec", "template", "spec"}
	case "Pod":
		return "v1", []string{"spec"}
	}
	return "", nil
}

// patches gives the patch of each stage. Only stage deny takes anything from a
// container. In audit a profile of the Security Profiles Operator already reports.
func (h *hardening) patches() (map[policy.Stage][]byte, error) {
	if len(h.changes) == 0 {
		return nil, nil
	}
	w := h.set.Workload
	if _, at := templates(w.Kind); at == nil {
		h.note("", "a %s cannot be patched by Kustomize without knowing its type: harden its template by hand", w.Kind)
		return nil, nil
	}
	deny, err := h.patch(policy.Deny, h.changes)
	if err != nil {
		return nil, err
	}
	patches := map[policy.Stage][]byte{policy.Deny: deny}
	var reporting []change
	for _, c := range h.changes {
		if c.seccomp != nil && c.seccomp.Type == "Localhost" {
			reporting = append(reporting, change{spec: c.spec, init: c.init, seccomp: c.seccomp})
		}
	}
	if len(reporting) > 0 {
		if patches[policy.Audit], err = h.patch(policy.Audit, reporting); err != nil {
			return nil, err
		}
	}
	return patches, nil
}

func (h *hardening) patch(stage policy.Stage, changes []change) ([]byte, error) {
	spec := map[string]any{}
	var volumes, containers, inits []any
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What %s does not need, taken from it in stage %s. Written by kubectl autopolicy.\n", h.set.Workload, stage)
	for _, c := range changes {
		for _, line := range c.why {
			fmt.Fprintf(&b, "# %s: %s\n", c.spec.Name, line)
		}
		for _, f := range c.folders {
			volumes = append(volumes, map[string]any{"name": c.volumeOf(f.path), "emptyDir": map[string]any{}})
		}
		if c.init {
			inits = append(inits, c.container())
		} else {
			containers = append(containers, c.container())
		}
	}
	for name, list := range map[string][]any{"volumes": volumes, "containers": containers, "initContainers": inits} {
		if len(list) > 0 {
			spec[name] = list
		}
	}
	apiVersion, at := templates(h.set.Workload.Kind)
	object := any(spec)
	for _, key := range slices.Backward(at) {
		object = map[string]any{key: object}
	}
	object.(map[string]any)["apiVersion"] = apiVersion
	object.(map[string]any)["kind"] = h.set.Workload.Kind
	object.(map[string]any)["metadata"] = map[string]any{"name": h.set.Workload.Name}
	data, err := yaml.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("write hardening of %s: %w", h.set.Workload, err)
	}
	b.Write(data)
	return b.Bytes(), nil
}

// container is the change of one container as a part of a pod's specification.
func (c change) container() map[string]any {
	security := map[string]any{}
	if c.caps != nil {
		capabilities := map[string]any{"drop": c.caps.Drop}
		switch {
		case len(c.caps.Add) > 0:
			capabilities["add"] = c.caps.Add
		case c.noAdd:
			capabilities["add"] = nil // which takes away what is there
		}
		security["capabilities"] = capabilities
	}
	if c.contain {
		security["allowPrivilegeEscalation"] = false
	}
	if c.root {
		security["readOnlyRootFilesystem"] = true
	}
	if c.nonRoot {
		security["runAsNonRoot"] = true
	}
	if c.user != nil {
		security["runAsUser"] = *c.user
	}
	if c.seccomp != nil {
		security["seccompProfile"] = c.seccomp
	}
	part := map[string]any{"name": c.spec.Name}
	if len(security) > 0 {
		part["securityContext"] = security
	}
	var mounts []any
	for _, f := range c.folders {
		mounts = append(mounts, map[string]any{"name": c.volumeOf(f.path), "mountPath": f.path})
	}
	for _, m := range c.mounts {
		mounts = append(mounts, map[string]any{"name": m.Name, "mountPath": m.Path, "readOnly": true})
	}
	if len(mounts) > 0 {
		part["volumeMounts"] = mounts
	}
	return part
}

// volumeOf names the volume at a folder of the container, in at most 63 letters.
func (c change) volumeOf(folder string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(c.spec.Name+strings.TrimRight(folder, "/")))
	sum := sha256.Sum256([]byte(c.spec.Name + folder))
	return "autopolicy-" + strings.Trim(name[:min(len(name), 40)], "-") + "-" + hex.EncodeToString(sum[:3])
}

// specIn reads the pod's specification out of a patch.
func specIn(object map[string]any) (behavior.PodSpec, error) {
	kind, _ := object["kind"].(string)
	_, at := templates(kind)
	if at == nil {
		return behavior.PodSpec{}, fmt.Errorf("a patch of kind %q", kind)
	}
	part := object
	for _, key := range at {
		next, ok := part[key].(map[string]any)
		if !ok {
			return behavior.PodSpec{}, fmt.Errorf("no %s", strings.Join(at, "."))
		}
		part = next
	}
	trimmed := map[string]any{}
	for key, v := range part {
		if key != "volumes" { // their names are in the mounts
			trimmed[key] = v
		}
	}
	data, err := yaml.Marshal(trimmed)
	if err != nil {
		return behavior.PodSpec{}, err
	}
	var spec behavior.PodSpec
	err = yaml.Unmarshal(data, &spec)
	return spec, err
}
