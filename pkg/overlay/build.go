package overlay

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// root is where a tree lies in kustomize's file system, which is a map in
// memory.
const root = "/tree"

// Build gives the objects that the tree's kustomization.yaml applies, in
// kustomize's order, and after them, in order of workload and name, the files
// that lie beside a workload's current stage without being listed, such as
// seccomp profiles, and the patches that the Component lists. A tree without a
// kustomization.yaml applies nothing.
//
// It returns an InvalidError for a tree that reaches out of itself or does not
// build.
func Build(t Tree) ([]engine.Object, error) {
	if len(t) == 0 {
		return nil, nil
	}
	stages, err := Stages(t)
	if err != nil {
		return nil, err
	}
	if err := vet(t, "."); err != nil {
		return nil, err
	}
	if _, ok := t[path.Join(Component, Kustomization)]; ok {
		if err := vet(t, Component); err != nil {
			return nil, err
		}
	}
	objects, err := buildRoot(t)
	if err != nil {
		return nil, err
	}
	folders := byFolder(t)
	for _, slug := range Slugs(t) {
		if stage, ok := stages[slug]; ok {
			beside, err := filesBeside(t, slug, stage, folders[StageFolder(slug, stage)])
			if err != nil {
				return nil, err
			}
			objects = append(objects, beside...)
		}
	}
	patches, err := componentPatches(t)
	if err != nil {
		return nil, err
	}
	return append(objects, patches...), nil
}

// Check proves that the tree builds as it is applied, and that every workload
// builds in every stage that it has a folder for, so that a later promotion
// cannot fail on it.
func Check(t Tree) error {
	if len(t) == 0 {
		return nil
	}
	if _, err := Build(t); err != nil {
		return err
	}
	var folders []string
	files := byFolder(t)
	for _, slug := range Slugs(t) {
		for _, stage := range []policy.Stage{policy.Audit, policy.Deny} {
			if f := StageFolder(slug, stage); len(files[f]) > 0 {
				folders = append(folders, f)
			}
		}
	}
	if err := vet(t, folders...); err != nil {
		return err
	}
	if err := checkComponent(t); err != nil {
		return err
	}
	fsys, err := inMemory(t)
	if err != nil {
		return err
	}
	for _, f := range folders {
		if _, err := run(fsys, f); err != nil {
			return &InvalidError{File: path.Join(f, Kustomization), Reason: err.Error()}
		}
	}
	return nil
}

// buildRoot builds what the root kustomization lists. Kustomize compares every
// object with every other one, which for thousands of policies takes minutes; so
// where the entries cannot influence each other, each is built alone.
func buildRoot(t Tree) ([]engine.Object, error) {
	entries, err := listed(t)
	if err != nil {
		return nil, err
	}
	fsys, err := inMemory(t)
	if err != nil {
		return nil, err
	}
	apart, err := independent(t, entries)
	if err != nil {
		return nil, err
	}
	if !apart {
		built, err := run(fsys, ".")
		if err != nil {
			return nil, &InvalidError{File: Kustomization, Reason: err.Error()}
		}
		return objectsOf(built)
	}
	var objects []engine.Object
	seen := map[[4]string]bool{}
	for _, e := range entries {
		some, err := entryObjects(t, fsys, e)
		if err != nil {
			return nil, err
		}
		for _, o := range some {
			id := [4]string{o.APIVersion, o.Kind, o.Namespace, o.Name}
			if seen[id] {
				return nil, &InvalidError{File: Kustomization, Line: e.node.Line, Reason: printable(o.Kind+"/"+o.Name) + " is in the tree twice"}
			}
			seen[id] = true
		}
		objects = append(objects, some...)
	}
	return objects, nil
}

// entryObjects builds one entry of the root kustomization.
func entryObjects(t Tree, fsys filesys.FileSystem, e entry) ([]engine.Object, error) {
	if some, ok, err := plain(t, e); ok || err != nil {
		return some, err
	}
	built, err := runEntry(fsys, e)
	if err != nil {
		return nil, &InvalidError{File: Kustomization, Line: e.node.Line, Reason: err.Error()}
	}
	return objectsOf(built)
}

// independent tells whether no entry of the root kustomization can change what
// another one builds to: nothing is transformed at the root, and every entry is
// a plain file or a workload whose kustomizations only list and patch.
func independent(t Tree, entries []entry) (bool, error) {
	_, k, err := kustomizationOf(t, ".")
	if err != nil || !only(k, "apiVersion", "kind", "metadata", "resources") {
		return false, err
	}
	for _, e := range entries {
		if e.slug == "" {
			if _, isFile := t[path.Clean(e.node.Value)]; !isFile {
				return false, nil
			}
			continue
		}
		for _, folder := range []string{StageFolder(e.slug, e.stage), BaseFolder(e.slug)} {
			_, k, err := kustomizationOf(t, folder)
			if err != nil || !only(k, "apiVersion", "kind", "metadata", "resources", "patches") {
				return false, err
			}
		}
		if _, k, err := kustomizationOf(t, StageFolder(e.slug, e.stage)); err != nil || !lists(k, "../"+base) {
			return false, err
		}
		if _, k, err := kustomizationOf(t, BaseFolder(e.slug)); err != nil || !listsFiles(t, BaseFolder(e.slug), k) {
			return false, err
		}
	}
	return true, nil
}

// runEntry builds one entry of the root kustomization as if it were the only
// one.
func runEntry(fsys filesys.FileSystem, e entry) (resmap.ResMap, error) {
	if e.slug != "" {
		return run(fsys, StageFolder(e.slug, e.stage))
	}
	k, err := yaml.Marshal(map[string][]string{"resources": {e.node.Value}})
	if err == nil {
		err = fsys.WriteFile(path.Join(root, Kustomization), k)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare build: %w", err)
	}
	return run(fsys, ".")
}

// only tells whether a kustomization has no other fields.
func only(k *yaml.Node, fields ...string) bool {
	if k == nil {
		return false
	}
	for i := 0; i+1 < len(k.Content); i += 2 {
		if !slices.Contains(fields, k.Content[i].Value) {
			return false
		}
	}
	return true
}

// lists tells whether the resources of a kustomization are just the one entry.
func lists(k *yaml.Node, entry string) bool {
	r := value(k, "resources")
	return r != nil && len(r.Content) == 1 && path.Clean(r.Content[0].Value) == entry
}

// listsFiles tells whether the resources of a folder's kustomization are files.
func listsFiles(t Tree, folder string, k *yaml.Node) bool {
	r := value(k, "resources")
	if r == nil {
		return true
	}
	for _, n := range r.Content {
		if _, ok := t[path.Join(folder, n.Value)]; !ok {
			return false
		}
	}
	return true
}

// inMemory is the tree as kustomize reads it.
func inMemory(t Tree) (filesys.FileSystem, error) {
	fsys := filesys.MakeFsInMemory()
	for p, data := range t {
		if err := fsys.WriteFile(path.Join(root, p), data); err != nil {
			return nil, &InvalidError{File: p, Reason: err.Error()}
		}
	}
	return fsys, nil
}

// run builds one folder that vet has passed.
func run(fsys filesys.FileSystem, folder string) (resmap.ResMap, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fsys, path.Join(root, folder))
	if err != nil {
		text := strings.ReplaceAll(err.Error(), root+"/", "")
		return nil, errors.New("does not build: " + strings.Trim(printable(text), `"`))
	}
	return built, nil
}

func objectsOf(built resmap.ResMap) ([]engine.Object, error) {
	objects := make([]engine.Object, 0, built.Size())
	for _, r := range built.Resources() {
		data, err := r.MarshalJSON()
		if err != nil {
			return nil, &InvalidError{File: Kustomization, Reason: fmt.Sprintf("encode %s: %v", r.CurId(), err)}
		}
		objects = append(objects, engine.Object{
			APIVersion: r.GetApiVersion(), Kind: r.GetKind(), Namespace: r.GetNamespace(), Name: r.GetName(), JSON: data,
		})
	}
	return objects, nil
}

// byFolder lists the files of each folder, in order, with their whole paths.
func byFolder(t Tree) map[string][]string {
	folders := map[string][]string{}
	for _, p := range t.Paths() {
		folders[path.Dir(p)] = append(folders[path.Dir(p)], p)
	}
	return folders
}

// filesBeside gives the JSON files, of those in a workload's stage folder, that
// its kustomization does not list.
func filesBeside(t Tree, slug string, stage policy.Stage, files []string) ([]engine.Object, error) {
	folder := StageFolder(slug, stage)
	_, k, err := kustomizationOf(t, folder)
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	if list := value(k, "resources"); list != nil && list.Kind == yaml.SequenceNode {
		for _, n := range list.Content {
			listed[path.Join(folder, n.Value)] = true
		}
	}
	var objects []engine.Object
	for _, p := range files {
		if path.Ext(p) == ".json" && !listed[p] {
			objects = append(objects, engine.Object{JSON: t[p], Workload: slug, File: path.Base(p)})
		}
	}
	return objects, nil
}
