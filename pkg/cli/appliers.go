package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

// applierObject is what of an object says which folder is applied: Argo CD's
// Application and ApplicationSet, Flux's Kustomization, and kustomize's own.
type applierObject struct {
	APIVersion string      `yaml:"apiVersion"`
	Kind       string      `yaml:"kind"`
	Metadata   applierName `yaml:"metadata"`
	Resources  []string    `yaml:"resources"`
	Spec       struct {
		Path       string          `yaml:"path"`
		Source     applierSource   `yaml:"source"`
		Sources    []applierSource `yaml:"sources"`
		Generators []struct {
			Git struct {
				Directories []struct {
					Path    string `yaml:"path"`
					Exclude bool   `yaml:"exclude"`
				} `yaml:"directories"`
			} `yaml:"git"`
		} `yaml:"generators"`
	} `yaml:"spec"`
}

type applierName struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

type applierSource struct {
	Path string `yaml:"path"`
}

// appliers names what in a repository applies the folder: sorted, each with its
// file. What is no YAML, or not such an object, is passed over.
func appliers(tree gitops.Tree, folder string) []string {
	roots := listers(tree, folder)
	found := map[string]bool{}
	for _, file := range slices.Sorted(maps.Keys(tree)) {
		for _, o := range objectsIn(file, tree[file]) {
			for _, root := range slices.Sorted(maps.Keys(roots)) {
				if !o.applies(root) {
					continue
				}
				name := strings.Trim(o.Metadata.Namespace+"/"+o.Metadata.Name, "/")
				found[fmt.Sprintf("%s %s in %s%s", o.Kind, name, file, roots[root])] = true
			}
		}
	}
	if len(found) == 0 {
		delete(roots, folder)
		for _, root := range slices.Sorted(maps.Keys(roots)) {
			found[strings.TrimPrefix(roots[root], ", through ")] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// listers are the folder and those whose kustomization.yaml lists it, directly or
// through others, with the words for how.
func listers(tree gitops.Tree, folder string) map[string]string {
	roots := map[string]string{folder: ""}
	for grown := true; grown; {
		grown = false
		for _, file := range slices.Sorted(maps.Keys(tree)) {
			dir, name := path.Split(file)
			dir = path.Clean(dir)
			if _, known := roots[dir]; known || name != "kustomization.yaml" && name != "kustomization.yml" && name != "Kustomization" {
				continue
			}
			for _, o := range objectsIn("x.yaml", tree[file]) {
				for _, r := range o.Resources {
					if _, listed := roots[path.Join(dir, r)]; listed && !strings.Contains(r, "://") {
						roots[dir], grown = ", through "+file, true
					}
				}
			}
		}
	}
	return roots
}

func (o applierObject) applies(folder string) bool {
	same := func(p string) bool { return p != "" && path.Clean(strings.TrimPrefix(p, "/")) == folder }
	group, _, _ := strings.Cut(o.APIVersion, "/")
	switch {
	case group == "kustomize.toolkit.fluxcd.io" && o.Kind == "Kustomization":
		return same(o.Spec.Path)
	case group == "argoproj.io" && o.Kind == "Application":
		return same(o.Spec.Source.Path) || slices.ContainsFunc(o.Spec.Sources, func(s applierSource) bool { return same(s.Path) })
	case group == "argoproj.io" && o.Kind == "ApplicationSet":
		matched := false
		for _, g := range o.Spec.Generators {
			for _, d := range g.Git.Directories {
				ok, err := path.Match(path.Clean(d.Path), folder)
				if err == nil && ok && d.Exclude {
					return false
				}
				matched = matched || err == nil && ok
			}
		}
		return matched
	}
	return false
}

// objectsIn reads the documents of a YAML file up to the first that is none.
func objectsIn(file string, data []byte) []applierObject {
	if ext := path.Ext(file); ext != ".yaml" && ext != ".yml" || len(data) > gitops.MaxFileSize {
		return nil
	}
	var out []applierObject
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var o applierObject
		err := decoder.Decode(&o)
		var other *yaml.TypeError
		switch {
		case errors.Is(err, io.EOF):
			return out
		case errors.As(err, &other):
			continue // another kind's field of that name
		case err != nil:
			return out
		}
		out = append(out, o)
	}
}
