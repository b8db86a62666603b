package overlay

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"
)

// vetter walks what a build would read, before kustomize does.
type vetter struct {
	tree   Tree
	open   map[string]bool // kustomization folders on the way from the root
	parsed map[string]bool // files found to be sound
	visits int             // kustomization folders entered so far
}

// vet refuses a folder whose build would reach out of the tree, run something,
// or take unreasonably long.
func vet(t Tree, folders ...string) error {
	if err := checkPaths(t); err != nil {
		return err
	}
	v := vetter{tree: t, open: map[string]bool{}, parsed: map[string]bool{}}
	for _, f := range folders {
		if err := v.folder(f); err != nil {
			return err
		}
	}
	return nil
}

// allowed are the fields of a kustomization that stay inside the tree. Whatever
// fetches, runs a program or a plugin, or changes how others are read is not
// among them; neither are the deprecated ones, about which kustomize writes to
// the terminal.
func allowed(name string) bool {
	switch name {
	case "apiVersion", "kind", "metadata", "resources", "components", "patches", "replacements",
		"namespace", "namePrefix", "nameSuffix", "labels", "commonAnnotations", "images", "replicas",
		"sortOptions", "configMapGenerator", "secretGenerator", "generatorOptions":
		return true
	}
	return false
}

func refusal(name string) string {
	switch name {
	case "helmCharts", "helmGlobals", "helmChartInflationGenerator":
		return "helm charts are not rendered from a policy repository"
	case "generators", "transformers", "validators":
		return name + " may run programs: not accepted in a policy repository"
	case "bases":
		return "write bases as resources"
	case "patchesStrategicMerge", "patchesJson6902":
		return "write " + name + " as patches"
	case "commonLabels":
		return "write commonLabels as labels"
	case "imageTags":
		return "write imageTags as images"
	case "vars":
		return "write vars as replacements"
	}
	return "field " + printable(name) + " is not accepted in a policy repository"
}

func (v *vetter) folder(folder string) error {
	name, k, err := kustomizationOf(v.tree, folder)
	if err != nil {
		return err
	}
	if name == "" {
		return &InvalidError{File: folder, Reason: "the folder has no kustomization.yaml"}
	}
	if v.open[folder] {
		return &InvalidError{File: name, Reason: "the kustomization includes itself"}
	}
	// A kustomization may be used twice, but folders that use each other twice
	// at every level would take for ever.
	if v.visits++; v.visits > 4*len(v.tree)+16 {
		return &InvalidError{File: name, Reason: "kustomizations include each other too often"}
	}
	v.open[folder] = true
	defer delete(v.open, folder)
	for i := 0; i+1 < len(k.Content); i += 2 {
		key, val := k.Content[i], k.Content[i+1]
		if !allowed(key.Value) {
			return &InvalidError{File: name, Line: key.Line, Reason: refusal(key.Value)}
		}
		if err := v.field(name, folder, key.Value, val); err != nil {
			return err
		}
	}
	return nil
}

// field vets what one field of the kustomization refers to.
func (v *vetter) field(file, folder, name string, val *yaml.Node) error {
	switch name {
	case "resources", "components":
		return each(file, val, func(n *yaml.Node) error { return v.resource(file, folder, n) })
	case "patches", "replacements":
		return each(file, val, func(n *yaml.Node) error {
			if p := value(n, "path"); p != nil {
				return v.yamlFile(file, folder, p)
			}
			if p := value(n, "patch"); p != nil {
				_, err := parse(file, []byte(p.Value), p.Line)
				return err
			}
			return nil
		})
	case "configMapGenerator", "secretGenerator":
		return each(file, val, func(n *yaml.Node) error { return v.generator(file, folder, n) })
	}
	return nil
}

func each(file string, list *yaml.Node, do func(*yaml.Node) error) error {
	if list.Kind != yaml.SequenceNode {
		if list.Tag == "!!null" {
			return nil
		}
		return &InvalidError{File: file, Line: list.Line, Reason: "want a list"}
	}
	for _, n := range list.Content {
		if err := do(n); err != nil {
			return err
		}
	}
	return nil
}

func (v *vetter) resource(file, folder string, n *yaml.Node) error {
	p, err := v.local(file, folder, n)
	if err != nil {
		return err
	}
	if _, ok := v.tree[p]; ok {
		return v.yamlFile(file, folder, n)
	}
	for _, k := range kustomizationNames() {
		if _, ok := v.tree[path.Join(p, k)]; ok {
			return v.folder(p)
		}
	}
	if len(v.tree.Index().Below(p)) > 0 {
		return &InvalidError{File: file, Line: n.Line, Reason: "folder " + printable(p) + " has no kustomization.yaml"}
	}
	return &InvalidError{File: file, Line: n.Line, Reason: "there is no file or folder " + printable(n.Value)}
}

func (v *vetter) generator(file, folder string, n *yaml.Node) error {
	for _, name := range []string{"files", "envs"} {
		list := value(n, name)
		if list == nil {
			continue
		}
		err := each(file, list, func(n *yaml.Node) error {
			entry := *n
			if _, p, ok := strings.Cut(n.Value, "="); ok && name == "files" {
				entry.Value = p
			}
			_, err := v.file(file, folder, &entry)
			return err
		})
		if err != nil {
			return err
		}
	}
	if env := value(n, "env"); env != nil {
		_, err := v.file(file, folder, env)
		return err
	}
	return nil
}

// local resolves a reference to a path of the tree. Whatever kustomize could
// take for an address of a repository or a web server is refused by its form,
// also when a file of that name exists.
func (v *vetter) local(file, folder string, n *yaml.Node) (string, error) {
	refuse := func(reason string) (string, error) {
		return "", &InvalidError{File: file, Line: n.Line, Reason: reason}
	}
	ref := n.Value
	if n.Kind != yaml.ScalarNode || ref == "" {
		return refuse("want a path")
	}
	first, _, _ := strings.Cut(ref, "/")
	switch {
	case strings.ContainsAny(ref, ":?#") || strings.Contains(first, "@") || strings.HasPrefix(strings.ToLower(ref), "github.com"):
		return refuse("remote resource " + printable(ref) + ": only files of this folder are built")
	case path.IsAbs(ref) || strings.ContainsAny(ref, "\\\x00\r\n\t"):
		return refuse("path " + printable(ref) + ": want a plain relative path")
	}
	p := path.Join(folder, ref)
	if !fs.ValidPath(p) || p == "." {
		return refuse("path " + printable(ref) + " leaves the namespace's folder")
	}
	return p, nil
}

// file resolves a reference to a file, which has to lie beside or below the
// kustomization that names it.
func (v *vetter) file(file, folder string, n *yaml.Node) (string, error) {
	p, err := v.local(file, folder, n)
	if err != nil {
		return "", err
	}
	if _, ok := v.tree[p]; !ok {
		return "", &InvalidError{File: file, Line: n.Line, Reason: "there is no file " + printable(n.Value)}
	}
	if folder != "." && !strings.HasPrefix(p, folder+"/") {
		return "", &InvalidError{File: file, Line: n.Line, Reason: fmt.Sprintf("file %s lies outside of %s", printable(n.Value), printable(folder))}
	}
	return p, nil
}

func (v *vetter) yamlFile(file, folder string, n *yaml.Node) error {
	p, err := v.file(file, folder, n)
	if err != nil || v.parsed[p] {
		return err
	}
	v.parsed[p] = true
	_, err = parse(p, v.tree[p], 0)
	return err
}
