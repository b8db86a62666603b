package overlay

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// plain gives the objects of a workload's stage without kustomize, which takes
// milliseconds a workload, where there is nothing for it to do: the stage is just
// its base, the base is just a list of files, both as Render writes them, and the
// files hold objects that kustomize passes on as they are. False for any other.
func plain(t Tree, e entry) ([]engine.Object, bool, error) {
	if e.slug == "" || string(t[path.Join(StageFolder(e.slug, e.stage), Kustomization)]) != stageHeader {
		return nil, false, nil
	}
	rest, ok := bytes.CutPrefix(t[path.Join(BaseFolder(e.slug), Kustomization)], []byte(baseHeader))
	if !ok || len(rest) == 0 {
		return nil, false, nil
	}
	var objects []engine.Object
	seen := map[[4]string]bool{}
	for line := range strings.Lines(string(rest)) {
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "- ")
		data, exists := t[path.Join(BaseFolder(e.slug), name)]
		if !ok || !exists || path.Ext(name) != ".yaml" || strings.ContainsAny(name, `/ "'#`) {
			return nil, false, nil
		}
		docs, err := parse(path.Join(BaseFolder(e.slug), name), data, 0)
		if err != nil {
			return nil, false, err
		}
		for _, d := range docs {
			o, ok, err := passedOn(d)
			id := [4]string{o.APIVersion, o.Kind, o.Namespace, o.Name}
			if !ok || err != nil || seen[id] {
				return nil, false, err
			}
			seen[id] = true
			objects = append(objects, o)
		}
	}
	return objects, true, nil
}

// passedOn is the object of a document, false for one that kustomize might treat
// in a way of its own: a list, an object with annotations, some of which are
// instructions, or one that it would refuse.
func passedOn(doc *yaml.Node) (engine.Object, bool, error) {
	text := func(keys ...string) string {
		if n := value(doc, keys...); n != nil && n.Kind == yaml.ScalarNode && (n.Tag == "!!str" || n.Tag == "") {
			return n.Value
		}
		return ""
	}
	o := engine.Object{APIVersion: text("apiVersion"), Kind: text("kind"), Namespace: text("metadata", "namespace"), Name: text("metadata", "name")}
	if o.APIVersion == "" || o.Kind == "" || o.Name == "" || strings.HasSuffix(o.Kind, "List") || value(doc, "metadata", "annotations") != nil {
		return o, false, nil
	}
	var fields map[string]any
	err := doc.Decode(&fields)
	if err == nil {
		o.JSON, err = json.Marshal(fields)
	}
	if err != nil {
		return o, false, fmt.Errorf("encode %s: %w", printable(o.Kind+"/"+o.Name), err)
	}
	return o, true, nil
}
