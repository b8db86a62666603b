package overlay

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/yaml"
	jsonyaml "sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Component is the folder of the Kustomize Component that the workloads' own
// kustomization includes: their manifests are not ours, and are in another folder.
const Component = "components/hardening"

// ComponentFile is where the patch of a workload at a stage lies.
func ComponentFile(slug string, stage policy.Stage) string {
	return path.Join(Component, slug, string(stage)+".yaml")
}

// ComponentState is what the Component is made from beside the patches.
type ComponentState struct {
	Namespace string
	Stages    map[string]policy.Stage // by slug
	// Level is the Pod Security level that the namespace could take; empty where
	// that is not known.
	Level string
}

// RenderComponent gives the files of the Component that are not a workload's own:
// its kustomization, which lists the patch of each workload's stage, and what a
// person needs to include it. There are none where no workload has a patch and no
// level is known.
func RenderComponent(t Tree, s ComponentState) (map[string][]byte, error) {
	var patches []string
	there := false
	for _, slug := range slices.Sorted(maps.Keys(s.Stages)) {
		_, hasDeny := t[ComponentFile(slug, policy.Deny)]
		there = there || hasDeny
		file := ComponentFile(slug, s.Stages[slug])
		data, ok := t[file]
		if !ok {
			continue
		}
		kind, name, err := patched(file, data)
		if err != nil {
			return nil, err
		}
		patches = append(patches, fmt.Sprintf("- path: %s\n  target:\n    kind: %s\n    name: %s\n",
			strings.TrimPrefix(file, Component+"/"), kind, quoted(regexp.QuoteMeta(name))))
	}
	if !there && s.Level == "" {
		return nil, nil
	}
	if s.Level != "" {
		patches = append(patches, namespaceLabels(s))
	}
	body := "patches: []\n"
	if len(patches) > 0 {
		body = "patches:\n" + strings.Join(patches, "")
	}
	return map[string][]byte{
		path.Join(Component, Kustomization): []byte(componentHeader + body),
		path.Join(Component, "README.md"):   []byte(fmt.Sprintf(componentReadme, s.Namespace)),
	}, nil
}

const componentHeader = `# Written anew by kubectl autopolicy with every stage. How to include it: README.md
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
`

const componentReadme = `# Hardening of namespace %[1]s

What was learned of the workloads' needs, as patches for their own manifests. It
takes effect when the kustomization that holds those manifests includes it, such as:

    components:
    - ../autopolicy/%[1]s/components/hardening

(the path is the one from that kustomization's folder to this one).

- A workload's patch is listed in kustomization.yaml from its stage deny on: until
  then the Component takes nothing from it. A patch for a workload that is not in
  your kustomization does nothing.
- Each patch says, in comments, which capability was used by what, and which folders
  were written.
- The patch for the Namespace sets the labels of Pod Security to the level that all
  learned workloads can take as they are: audit and warn at once, enforce when all of
  them are in deny. It works only where your kustomization has the Namespace; where
  not, its owner can set the same labels. Pods that nobody observed may need more.
- Change a patch by a patch of your own beside the line above. Files here are written
  by kubectl autopolicy; those that you edit are kept.
`

// quoted is a string as YAML has it in one line.
func quoted(s string) string { return fmt.Sprintf("%q", s) }

// namespaceLabels is the patch for the namespace, wherever its owner keeps it.
func namespaceLabels(s ComponentState) string {
	enforce := len(s.Stages) > 0
	for _, stage := range s.Stages {
		enforce = enforce && stage == policy.Deny
	}
	labels := ""
	for _, mode := range []string{"audit", "enforce", "warn"} {
		if mode != "enforce" || enforce {
			labels += fmt.Sprintf("        pod-security.kubernetes.io/%s: %s\n", mode, s.Level)
		}
	}
	return fmt.Sprintf(`- target:
    kind: Namespace
    name: %[1]s
  patch: |-
    apiVersion: v1
    kind: Namespace
    metadata:
      name: %[1]s
      labels:
%[2]s`, quoted(s.Namespace), labels)
}

// patched tells which object a patch is for.
func patched(file string, data []byte) (kind, name string, err error) {
	docs, err := parse(file, data, 0)
	if err != nil {
		return "", "", err
	}
	if len(docs) == 1 {
		if k, n := value(docs[0], "kind"), value(docs[0], "metadata", "name"); k != nil && n != nil && plainKind(k.Value) && n.Value != "" {
			return k.Value, n.Value, nil
		}
	}
	return "", "", &InvalidError{File: file, Reason: "want the patch of one object, with its kind and name"}
}

func plainKind(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

// componentPatches gives the patches that the Component lists, each as a file of
// its workload.
func componentPatches(t Tree) ([]engine.Object, error) {
	name, k, err := kustomizationOf(t, Component)
	if err != nil || name == "" {
		return nil, err
	}
	list := value(k, "patches")
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil, nil
	}
	var objects []engine.Object
	for _, n := range list.Content {
		p := value(n, "path")
		if p == nil {
			continue
		}
		file := path.Join(Component, p.Value)
		slug := path.Base(path.Dir(file))
		if _, _, err := patched(file, t[file]); err != nil {
			return nil, err
		}
		data, err := jsonyaml.YAMLToJSON(t[file])
		if err != nil {
			return nil, &InvalidError{File: file, Reason: err.Error()}
		}
		objects = append(objects, engine.Object{JSON: data, Workload: slug, File: engine.HardeningFile})
	}
	return objects, nil
}

// checkComponent proves that a kustomization that holds the patched workloads
// builds with the Component, and that each patch reaches its workload, also those
// of stages that have not begun.
func checkComponent(t Tree) error {
	if name, _, err := kustomizationOf(t, Component); err != nil || name == "" {
		return err
	}
	if err := vet(t, Component); err != nil {
		return err
	}
	for _, file := range t.Index().Below(Component) {
		if path.Ext(file) != ".yaml" || path.Dir(file) == Component {
			continue
		}
		if err := reaches(t, file); err != nil {
			return err
		}
	}
	return builds(t, Component, Kustomization, nil)
}

// reaches builds one patch over a manifest of its workload that has nothing but the
// names and images of the containers.
func reaches(t Tree, file string) error {
	kind, name, err := patched(file, t[file])
	if err != nil {
		return err
	}
	var object map[string]any
	if err := jsonyaml.Unmarshal(t[file], &object); err != nil {
		return &InvalidError{File: file, Reason: err.Error()}
	}
	sample, err := jsonyaml.Marshal(bare(object))
	if err != nil {
		return &InvalidError{File: file, Reason: err.Error()}
	}
	only := Tree{
		path.Join(Component, Kustomization): fmt.Appendf(nil, "%spatches:\n- path: patch.yaml\n  target:\n    kind: %s\n    name: %s\n", componentHeader, kind, quoted(regexp.QuoteMeta(name))),
		path.Join(Component, "patch.yaml"):  t[file],
	}
	return builds(only, Component, file, sample)
}

// builds includes a Component into a kustomization with one manifest, and compares
// what comes out with what went in.
func builds(t Tree, component, file string, manifest []byte) error {
	fsys, err := inMemory(t)
	if err != nil {
		return err
	}
	if manifest == nil {
		manifest = []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: other\n")
	}
	err = write(fsys, map[string][]byte{
		"/application/" + Kustomization: []byte(header + "resources:\n- manifest.yaml\ncomponents:\n- .." + path.Join(root, component) + "\n"),
		"/application/manifest.yaml":    manifest,
	})
	if err != nil {
		return err
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fsys, "/application")
	if err != nil {
		return &InvalidError{File: file, Reason: "does not build: " + strings.Trim(printable(strings.ReplaceAll(err.Error(), root+"/", "")), `"`)}
	}
	if built.Size() != 1 {
		return &InvalidError{File: file, Reason: "is no patch of one object"}
	}
	return nil
}

func write(fsys filesys.FileSystem, files map[string][]byte) error {
	for p, data := range files {
		if err := fsys.WriteFile(p, data); err != nil {
			return fmt.Errorf("prepare build: %w", err)
		}
	}
	return nil
}

// bare is an object with the names of a patch's lists and nothing else that the
// patch sets.
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		kept := map[string]any{}
		for key, field := range v {
			switch key {
			case "apiVersion", "kind", "name":
				kept[key] = field
			case "securityContext", "volumeMounts", "volumes":
			default:
				kept[key] = bare(field)
			}
		}
		return kept
	case []any:
		var kept []any
		for _, item := range v {
			if m, ok := bare(item).(map[string]any); ok {
				m["image"] = "sample"
				kept = append(kept, m)
			}
		}
		return kept
	}
	return v
}
