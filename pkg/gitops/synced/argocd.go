package synced

import (
	"context"
	"fmt"
	"time"
)

// application is what matters of Argo CD's Application, v1alpha1.
type application struct {
	Metadata object `json:"metadata"`
	Spec     struct {
		Source  *applicationSource  `json:"source"`
		Sources []applicationSource `json:"sources"`
		Policy  struct {
			Automated *struct {
				Enabled *bool `json:"enabled"`
			} `json:"automated"`
		} `json:"syncPolicy"`
	} `json:"spec"`
	Status struct {
		Sync struct {
			Status    string   `json:"status"`
			Revision  string   `json:"revision"`
			Revisions []string `json:"revisions"`
		} `json:"sync"`
		Health struct {
			Status string `json:"status"`
		} `json:"health"`
		Operation *struct {
			Phase    string    `json:"phase"`
			Message  string    `json:"message"`
			Finished time.Time `json:"finishedAt"`
			Result   *struct {
				Revision  string   `json:"revision"`
				Revisions []string `json:"revisions"`
			} `json:"syncResult"`
		} `json:"operationState"`
		Conditions []condition `json:"conditions"`
	} `json:"status"`
}

type applicationSource struct {
	URL      string `json:"repoURL"`
	Path     string `json:"path"`
	Revision string `json:"targetRevision"`
}

// argocd lists the Applications that apply the folder.
func (r *Reader) argocd(ctx context.Context, t Target) ([]candidate, error) {
	list, err := r.list(ctx, resource("argoproj.io", "v1alpha1", "applications"), "argocd", t.Named)
	if err != nil {
		return nil, err
	}
	var found []candidate
	for _, o := range list {
		a, err := decode[application](o)
		if err != nil {
			return nil, err
		}
		sources := a.Spec.Sources
		if a.Spec.Source != nil {
			sources = []applicationSource{*a.Spec.Source}
		}
		c := candidate{name: "argocd/" + a.Metadata.Namespace + "/" + a.Metadata.Name}
		c.report.By = fmt.Sprintf("Argo CD's Application %s/%s", a.Metadata.Namespace, a.Metadata.Name)
		ours := -1
		for i, s := range sources {
			at := clean(s.Path)
			if place(s.URL) == place(t.Repository) && holds(at, clean(t.Folder)) && (ours < 0 || len(at) > len(c.path)) {
				ours, c.path = i, at
			}
		}
		if ours < 0 {
			if t.Named != "" {
				c.report.Obstacles = []string{"none of its sources is this folder"}
				found = append(found, c)
			}
			continue
		}
		a.tell(&c.report, sources[ours], ours, t)
		found = append(found, c)
	}
	return found, nil
}

// tell fills the report. What status.sync names is what the cluster was compared
// with, which is not yet what was applied: it counts only as Synced, and while
// no operation is at work.
func (a application) tell(r *Report, source applicationSource, i int, t Target) {
	obstacle := func(format string, args ...any) { r.Obstacles = append(r.Obstacles, fmt.Sprintf(format, args...)) }
	compared := a.Status.Sync.Revision
	if len(a.Status.Sync.Revisions) > i {
		compared = a.Status.Sync.Revisions[i]
	}
	op := a.Status.Operation
	var applied string
	if op != nil && op.Phase == "Succeeded" && op.Result != nil {
		if applied = op.Result.Revision; len(op.Result.Revisions) > i {
			applied = op.Result.Revisions[i]
		}
	}
	idle := op == nil || op.Phase != "Running"
	switch r.Revision = applied; {
	case a.Status.Sync.Status == "Synced" && idle:
		// The same revision, or one that changes nothing that is applied.
		if r.Revision = compared; op != nil {
			r.Since = op.Finished
		}
	case applied != "":
		r.Since = op.Finished
	}
	automated := a.Spec.Policy.Automated
	if automated == nil || automated.Enabled != nil && !*automated.Enabled {
		obstacle("its auto-sync is off")
	}
	if branch := branchOf(source.Revision); branch != "" && branch != "HEAD" && t.Branch != "" && branch != t.Branch {
		obstacle("it follows %s, not branch %s", source.Revision, t.Branch)
	}
	if s := a.Status.Sync.Status; s != "Synced" {
		obstacle("it is %s", orUnknown(s))
	}
	if op != nil && (op.Phase == "Failed" || op.Phase == "Error") {
		obstacle("its last sync failed: %s", op.Message)
	}
	if h := a.Status.Health.Status; h != "Healthy" {
		obstacle("its health is %s", orUnknown(h))
	}
	for _, c := range a.Status.Conditions {
		if c.Status == "" && len(c.Type) > 5 && c.Type[len(c.Type)-5:] == "Error" {
			obstacle("%s: %s", c.Type, c.Message)
		}
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "of unknown state"
	}
	return s
}
