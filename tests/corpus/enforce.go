//go:build linux && amd64

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Runs under what is really enforced here.
const enforced = "enforced"

// enforcement is how a service and its attackers fared under what was learned.
type enforcement struct {
	Service      string   `json:"service,omitempty"` // why it did not pass its evaluation; empty: it passed
	Capabilities []string `json:"capabilities"`
	ReadOnlyRoot bool     `json:"readOnlyRoot"`
	EmptyDirs    []string `json:"emptyDirs,omitempty"`
	Syscalls     int      `json:"syscalls"`
}

// enforce starts the service as the hardening Component and the seccomp profile of
// stage deny say, gives it the load of the evaluation, and attacks it.
func (l *lab) enforce(ctx context.Context, p program) error {
	trained, ok, err := l.options.trained(p)
	if err != nil || !ok {
		return errors.Join(err, errors.New("enforce: it was not trained"))
	}
	c, err := convene(learner, trained...)
	if err != nil {
		return err
	}
	confine, err := c.confinement(p)
	if err != nil {
		return err
	}
	result := enforcement{Capabilities: confine.capabilities, ReadOnlyRoot: confine.readOnlyRoot, EmptyDirs: confine.emptyDirs, Syscalls: confine.calls}
	if err := l.record(ctx, p, enforced, p.evaluate, confine); err != nil {
		if ctx.Err() != nil {
			return err
		}
		l.say("%s: %s: %v", p.name, enforced, err)
		result.Service, _, _ = strings.Cut(err.Error(), "\n")
	}
	data, err := json.MarshalIndent(result, "", " ")
	if err == nil {
		err = os.WriteFile(filepath.Join(l.runs, p.name, enforced+".json"), data, 0o644)
	}
	for _, who := range assailants() {
		err = errors.Join(err, l.attack(ctx, p, who, confine, enforced+"-"+who))
	}
	return err
}

// confinement reads from the tree what a container runtime would be told.
func (c court) confinement(p program) (*confinement, error) {
	slug := c.set.Workload.Slug()
	patch, ok := c.input.Tree[overlay.ComponentFile(slug, policy.Deny)]
	if !ok {
		return nil, errors.New("enforce: nothing is hardened")
	}
	var workload struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []behavior.ContainerSpec `json:"containers"`
				} `json:"spec"`
			} `json:"template"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(patch, &workload); err != nil {
		return nil, fmt.Errorf("read hardening: %w", err)
	}
	k := &confinement{capabilities: kubernetesCapabilities()}
	for _, spec := range workload.Spec.Template.Spec.Containers {
		security := spec.Security
		if slices.Contains(security.Capabilities.Drop, "ALL") {
			k.capabilities = security.Capabilities.Add
		}
		k.readOnlyRoot = security.ReadOnlyRootFilesystem != nil && *security.ReadOnlyRootFilesystem
		k.noNewPrivileges = security.AllowPrivilegeEscalation != nil && !*security.AllowPrivilegeEscalation
		for _, m := range spec.Mounts {
			if slices.Contains(p.volumes, m.Path) {
				k.readOnlyMounts = append(k.readOnlyMounts, m.Path)
			} else {
				k.emptyDirs = append(k.emptyDirs, m.Path)
			}
		}
	}
	slices.Sort(k.emptyDirs)
	profile, ok := c.input.Tree[path.Join(overlay.StageFolder(slug, policy.Deny), seccomp.FileName(container))]
	if !ok {
		return nil, errors.New("enforce: there is no seccomp profile")
	}
	if err := json.Unmarshal(profile, &k.seccomp); err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	delete(k.seccomp, "flags") // Debian 12's runc cannot log
	if lists, ok := k.seccomp["syscalls"].([]any); ok && len(lists) > 0 {
		if list, ok := lists[0].(object); ok {
			names, _ := list["names"].([]any)
			k.calls = len(names)
		}
	}
	return k, nil
}

// enforcement reads how it went; false if it was not tried.
func (o options) enforcement(p program) (enforcement, bool, error) {
	var e enforcement
	data, err := os.ReadFile(filepath.Join(o.runs, p.name, enforced+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	return e, err == nil, err
}
