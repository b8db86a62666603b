package behavior

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Workload is what people deploy and write policies for: the controller that
// stands above a pod, or the pod itself where there is none.
type Workload struct {
	Namespace string `json:"namespace"`
	Kind      string `json:"kind"` // as in the API: Deployment, StatefulSet, CronJob, Pod, ...
	Name      string `json:"name"`
}

// Slug names the workload in folders and object names: deployment-web.
func (w Workload) Slug() string { return strings.ToLower(w.Kind) + "-" + w.Name }

// String is the form that kubectl takes: deployment/web.
func (w Workload) String() string { return strings.ToLower(w.Kind) + "/" + w.Name }

// Subject is one container of a workload: what a Profile is about.
type Subject struct {
	Workload  Workload `json:"workload"`
	Container string   `json:"container"`
}

// CompareSubjects orders subjects by namespace, workload and container.
func CompareSubjects(a, b Subject) int {
	return cmp.Or(
		cmp.Compare(a.Workload.Namespace, b.Workload.Namespace),
		cmp.Compare(a.Workload.Slug(), b.Workload.Slug()),
		cmp.Compare(a.Container, b.Container),
	)
}

// FormatLabels gives labels one comparable form: sorted k=v, joined by commas.
// Neither a label's key nor its value can hold a comma or an equals sign.
func FormatLabels(labels map[string]string) string {
	var b strings.Builder
	for i, k := range slices.Sorted(maps.Keys(labels)) {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(k + "=" + labels[k])
	}
	return b.String()
}

// ParseLabels is the inverse of FormatLabels.
func ParseLabels(s string) (map[string]string, error) {
	labels := map[string]string{}
	if s == "" {
		return labels, nil
	}
	for pair := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("labels %q: want key=value pairs joined by commas", s)
		}
		labels[k] = v
	}
	return labels, nil
}
