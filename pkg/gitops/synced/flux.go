package synced

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// kustomization is what matters of Flux's Kustomization, v1.
type kustomization struct {
	Metadata object `json:"metadata"`
	Spec     struct {
		Suspend   bool   `json:"suspend"`
		Path      string `json:"path"`
		SourceRef struct {
			Kind      string `json:"kind"`
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"sourceRef"`
	} `json:"spec"`
	Status struct {
		Observed   int64       `json:"observedGeneration"`
		Applied    string      `json:"lastAppliedRevision"`
		Attempted  string      `json:"lastAttemptedRevision"`
		Conditions []condition `json:"conditions"`
		History    []struct {
			First    time.Time         `json:"firstReconciled"`
			Metadata map[string]string `json:"metadata"`
		} `json:"history"`
	} `json:"status"`
}

// gitRepository is what matters of Flux's GitRepository, v1.
type gitRepository struct {
	Metadata object `json:"metadata"`
	Spec     struct {
		URL     string `json:"url"`
		Suspend bool   `json:"suspend"`
		Ref     struct {
			Branch string `json:"branch"`
			Tag    string `json:"tag"`
			SemVer string `json:"semver"`
			Name   string `json:"name"`
			Commit string `json:"commit"`
		} `json:"ref"`
	} `json:"spec"`
	Status struct {
		Conditions []condition `json:"conditions"`
	} `json:"status"`
}

type object struct {
	Name       string `json:"name"`
	Namespace  string `json:"namespace"`
	Generation int64  `json:"generation"`
}

type condition struct {
	Type     string    `json:"type"`
	Status   string    `json:"status"`
	Reason   string    `json:"reason"`
	Message  string    `json:"message"`
	Observed int64     `json:"observedGeneration"`
	Since    time.Time `json:"lastTransitionTime"`
}

// flux lists the Kustomizations that apply the folder.
func (r *Reader) flux(ctx context.Context, t Target) ([]candidate, error) {
	list, err := r.list(ctx, resource("kustomize.toolkit.fluxcd.io", "v1", "kustomizations"), "flux", t.Named)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var found []candidate
	sources := map[[2]string]*gitRepository{}
	for _, o := range list {
		k, err := decode[kustomization](o)
		if err != nil {
			return nil, err
		}
		c := candidate{name: "flux/" + k.Metadata.Namespace + "/" + k.Metadata.Name, path: clean(k.Spec.Path)}
		c.report.By = fmt.Sprintf("Flux's Kustomization %s/%s", k.Metadata.Namespace, k.Metadata.Name)
		if k.Spec.SourceRef.Kind != "GitRepository" {
			if t.Named != "" {
				c.report.Obstacles = []string{fmt.Sprintf("its source is a %s, which is no commit", k.Spec.SourceRef.Kind)}
				found = append(found, c)
			}
			continue
		}
		if !holds(c.path, clean(t.Folder)) && t.Named == "" {
			continue
		}
		at := [2]string{k.Spec.SourceRef.Namespace, k.Spec.SourceRef.Name}
		if at[0] == "" {
			at[0] = k.Metadata.Namespace
		}
		if _, known := sources[at]; !known {
			if sources[at], err = r.gitRepository(ctx, at[0], at[1]); err != nil {
				return nil, err
			}
		}
		source := sources[at]
		if source == nil || place(source.Spec.URL) != place(t.Repository) {
			if t.Named == "" {
				continue
			}
			c.report.Obstacles = append(c.report.Obstacles, "its source is another repository")
		}
		k.tell(&c.report, source, t)
		found = append(found, c)
	}
	return found, nil
}

func (r *Reader) gitRepository(ctx context.Context, namespace, name string) (*gitRepository, error) {
	list, err := r.list(ctx, resource("source.toolkit.fluxcd.io", "v1", "gitrepositories"), "flux", "flux/"+namespace+"/"+name)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	g, err := decode[gitRepository](list[0])
	return &g, err
}

// tell fills the report: what is applied, since when, and what is in the way.
func (k kustomization) tell(r *Report, source *gitRepository, t Target) {
	r.Revision = commitOf(k.Status.Applied)
	for _, h := range k.Status.History {
		// The digest of what is applied stays the same through commits that
		// change nothing of it, so this is since when the objects are as they are.
		if commitOf(h.Metadata["revision"]) == r.Revision && r.Revision != "" {
			r.Since = h.First
			break
		}
	}
	obstacle := func(format string, args ...any) { r.Obstacles = append(r.Obstacles, fmt.Sprintf(format, args...)) }
	if k.Spec.Suspend {
		obstacle("it is suspended")
	}
	if source != nil {
		ref := source.Spec.Ref
		switch {
		case source.Spec.Suspend:
			obstacle("its GitRepository %s is suspended", source.Metadata.Name)
		case ref.Commit != "" || ref.Tag != "" || ref.SemVer != "":
			obstacle("its GitRepository %s follows no branch", source.Metadata.Name)
		case t.Branch != "" && followed(*source) != t.Branch:
			obstacle("its GitRepository %s follows branch %s, not %s", source.Metadata.Name, followed(*source), t.Branch)
		}
		if c := find(source.Status.Conditions, "Ready"); c != nil && c.Status == "False" {
			obstacle("its GitRepository %s is not ready: %s: %s", source.Metadata.Name, c.Reason, c.Message)
		}
	}
	switch c := find(k.Status.Conditions, "Ready"); {
	case c == nil || c.Observed != 0 && c.Observed != k.Metadata.Generation || k.Status.Observed != k.Metadata.Generation:
		obstacle("it has not been reconciled as it stands")
	case c.Status != "True":
		obstacle("it is not ready: %s: %s", c.Reason, c.Message)
	case r.Since.IsZero():
		r.Since = c.Since
	}
}

// followed is the branch of a GitRepository; Flux's default is master.
func followed(g gitRepository) string {
	for _, ref := range []string{g.Spec.Ref.Name, g.Spec.Ref.Branch} {
		if ref != "" {
			return branchOf(ref)
		}
	}
	return "master"
}

func find(list []condition, kind string) *condition {
	for i := range list {
		if list[i].Type == kind {
			return &list[i]
		}
	}
	return nil
}

func decode[T any](o unstructured.Unstructured) (T, error) {
	var v T
	data, err := o.MarshalJSON()
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		return v, fmt.Errorf("read %s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
	}
	return v, nil
}
