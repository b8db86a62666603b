package cluster

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
)

// repository is where releases put the collector's image.
const repository = "ghcr.io/autopolicy/collector"

// byAnnotation names who deployed the collector.
const byAnnotation = "autopolicy.github.io/started-by"

// Objects lists what Deploy would create, in order. It calls nobody. The
// collectors' deadline is a duration there, and a point in time when deployed.
func Objects(o Options) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	for _, name := range manifests.Names() {
		data, err := manifests.Files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		for _, document := range bytes.Split(data, []byte("\n---\n")) {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(document, &u.Object); err != nil {
				return nil, fmt.Errorf("read manifest %s: %w", name, err)
			}
			if err := adapt(u, o); err != nil {
				return nil, fmt.Errorf("adapt manifest %s: %w", name, err)
			}
			objects = append(objects, u)
		}
	}
	return objects, nil
}

// YAML prints objects as a stream that kubectl apply takes.
func YAML(objects []*unstructured.Unstructured) ([]byte, error) {
	var b bytes.Buffer
	for i, u := range objects {
		if i > 0 {
			b.WriteString("---\n")
		}
		text, err := yaml.Marshal(u.Object)
		if err != nil {
			return nil, fmt.Errorf("print %s: %w", u.GetName(), err)
		}
		b.Write(text)
	}
	return b.Bytes(), nil
}

func adapt(u *unstructured.Unstructured, o Options) error {
	switch u.GetKind() {
	case "Namespace":
		if o.By != "" {
			u.SetAnnotations(map[string]string{byAnnotation: o.By})
		}
	case "DaemonSet":
		image := o.Image
		if image == "" {
			image = repository + ":" + o.Version
		}
		return changeContainer(u, func(c map[string]any) {
			c["image"] = image
			setDeadline(c, o.Deadline.String())
		})
	}
	return nil
}

// changeContainer changes the collector's container of a DaemonSet.
func changeContainer(u *unstructured.Unstructured, change func(map[string]any)) error {
	path := []string{"spec", "template", "spec", "containers"}
	list, _, err := unstructured.NestedSlice(u.Object, path...)
	if err != nil {
		return err
	}
	for _, item := range list {
		if c, ok := item.(map[string]any); ok && c["name"] == manifests.Container {
			change(c)
			return unstructured.SetNestedSlice(u.Object, list, path...)
		}
	}
	return fmt.Errorf("no container %s", manifests.Container)
}

func setDeadline(c map[string]any, deadline string) {
	args, _ := c["args"].([]any)
	args = slices.DeleteFunc(slices.Clone(args), func(a any) bool {
		text, ok := a.(string)
		return ok && strings.HasPrefix(text, "--deadline=")
	})
	c["args"] = append(args, "--deadline="+deadline)
}

// own makes a cluster-wide object go when the namespace goes, and gives the
// collectors a deadline by the server's clock.
func own(u *unstructured.Unstructured, namespace *unstructured.Unstructured, deadline time.Duration) error {
	switch u.GetKind() {
	case "ClusterRole", "ClusterRoleBinding":
		u.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: namespace.GetName(), UID: namespace.GetUID()}})
	case "DaemonSet":
		at := namespace.GetCreationTimestamp().Add(deadline).UTC().Format(time.RFC3339)
		return changeContainer(u, func(c map[string]any) { setDeadline(c, at) })
	}
	return nil
}
