package overlay

import (
	"errors"
	"fmt"
	"path"
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

// probeFolder holds a kustomization that exists in memory only. No file of a
// tree can lie there: its name is not a valid slug.
const probeFolder = "workloads/.all"

// Build gives the objects that the tree's kustomization.yaml applies, in
// kustomize's order, and after them, in order of workload and name, the files
// that lie beside a workload's current stage without being listed, such as
// seccomp profiles. A tree without a kustomization.yaml applies nothing.
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
	built, err := run(files(t), ".")
	if err != nil {
		return nil, &InvalidError{File: Kustomization, Reason: err.Error()}
	}
	objects, err := objectsOf(built)
	if err != nil {
		return nil, err
	}
	for _, slug := range Slugs(t) {
		if stage, ok := stages[slug]; ok {
			beside, err := filesBeside(t, slug, stage)
			if err != nil {
				return nil, err
			}
			objects = append(objects, beside...)
		}
	}
	return objects, nil
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
	for _, stage := range []policy.Stage{policy.Audit, policy.Deny} {
		var folders []string
		for _, slug := range Slugs(t) {
			if f := StageFolder(slug, stage); len(t.Below(f)) > 0 {
				folders = append(folders, f)
			}
		}
		if err := checkTogether(t, folders); err != nil {
			return err
		}
	}
	return nil
}

// checkTogether builds folders in one run, which is what makes it affordable,
// and one by one only to find the one that is at fault.
func checkTogether(t Tree, folders []string) error {
	if len(folders) == 0 {
		return nil
	}
	if err := vet(t, folders...); err != nil {
		return err
	}
	var k strings.Builder
	k.WriteString("resources:\n")
	for _, f := range folders {
		k.WriteString("- ../../" + f + "\n")
	}
	fsys := files(t)
	if err := fsys.WriteFile(path.Join(root, probeFolder, Kustomization), []byte(k.String())); err != nil {
		return fmt.Errorf("prepare build: %w", err)
	}
	_, together := run(fsys, probeFolder)
	if together == nil {
		return nil
	}
	for _, f := range folders {
		if _, err := run(fsys, f); err != nil {
			return &InvalidError{File: path.Join(f, Kustomization), Reason: err.Error()}
		}
	}
	return &InvalidError{File: workloads, Reason: together.Error()}
}

// files is the tree as kustomize reads it.
func files(t Tree) filesys.FileSystem {
	fsys := filesys.MakeFsInMemory()
	for p, data := range t {
		// Writing to this map of maps fails only for names that checkPaths
		// refuses; a file that went missing makes the build fail.
		if err := fsys.WriteFile(path.Join(root, p), data); err != nil {
			continue
		}
	}
	return fsys
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

// filesBeside gives the JSON files of a workload's stage folder that its
// kustomization does not list.
func filesBeside(t Tree, slug string, stage policy.Stage) ([]engine.Object, error) {
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
	for _, p := range t.Below(folder) {
		if path.Dir(p) == folder && path.Ext(p) == ".json" && !listed[p] {
			objects = append(objects, engine.Object{JSON: t[p], Workload: slug, File: path.Base(p)})
		}
	}
	return objects, nil
}
