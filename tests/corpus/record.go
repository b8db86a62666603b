//go:build linux && amd64

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// namespace is the one in which every run of a program is the same workload. While
// it runs, each run has a namespace of its own.
const namespace = "corpus"

// Runs of a program.
const (
	trainings  = 3
	evaluation = "evaluate"
)

func training(n int) string { return fmt.Sprintf("train%d", n) }

// observe runs what is asked for of one program.
func (l *lab) observe(ctx context.Context, p program) error {
	if l.does("learn") {
		for n := range trainings {
			if err := l.record(ctx, p, training(n+1), p.train, nil); err != nil {
				return err
			}
		}
		if err := l.record(ctx, p, evaluation, p.evaluate, nil); err != nil {
			return err
		}
	}
	if l.does("attack") {
		for _, who := range assailants() {
			if err := l.attack(ctx, p, who, nil, assault(who)); err != nil {
				return err
			}
		}
	}
	if l.does("enforce") {
		return l.enforce(ctx, p)
	}
	return nil
}

// record observes one run and keeps its profile.
func (l *lab) record(ctx context.Context, p program, run string, steps []step, confine *confinement) error {
	l.say("%s: %s", p.name, run)
	s, err := l.begin(ctx, p, run, confine)
	if s == nil {
		return err
	}
	fmt.Sscanf(run, "train%d", &s.number)
	if err == nil {
		err = s.perform(ctx, steps)
	}
	view := s.view()
	if err := errors.Join(err, s.end()); err != nil {
		return fmt.Errorf("%s: %w", run, err)
	}
	profile, err := s.pull(ctx, view)
	if err != nil {
		return err
	}
	return l.options.keep(p, run, profile)
}

// settle is how long facts may be on their way from the kernel.
const settle = 1500 * time.Millisecond

// view is the cluster as the plugin would see it.
func (s *scene) view() *topology.Cluster {
	c := topology.New()
	now := time.Now()
	add := func(object corev1.Pod) {
		object.Namespace = namespace
		var pod topology.Pod
		// A pod is always JSON that a pod can be read from.
		if text, err := json.Marshal(object); err == nil && json.Unmarshal(text, &pod) == nil {
			c.AddPod(pod, now)
		}
	}
	for _, p := range s.pods {
		add(p.object(true))
	}
	add((&pod{program: program{name: "client"}, name: "client-0", uid: "client", address: s.address}).object(true))
	add((&pod{program: program{name: "upstream"}, name: "upstream-0", uid: "upstream", address: upstreamAddress}).object(true))
	c.Seal()
	return c
}

// pull takes what the collector knows of the scene's containers.
func (s *scene) pull(ctx context.Context, view *topology.Cluster) (behavior.Profile, error) {
	profile := behavior.Profile{
		Subject:  behavior.Subject{Workload: behavior.Workload{Namespace: namespace, Kind: "StatefulSet", Name: s.program.name}, Container: container},
		Labels:   behavior.FormatLabels(s.program.labels()),
		Coverage: behavior.Coverage{Replicas: len(s.pods), Pods: map[string]behavior.PodCoverage{}},
	}
	if err := pause(ctx, settle); err != nil {
		return profile, err
	}
	containers, status, err := s.lab.collector.Pull(ctx, s.namespace)
	if err != nil {
		return profile, err
	}
	profile.Coverage = behavior.MergeCoverage(profile.Coverage, behavior.MergeCoverage(status.Coverage(), behavior.Coverage{Hooks: status.Hooks}))
	for _, k := range containers {
		profile.Coverage = behavior.MergeCoverage(profile.Coverage, behavior.Coverage{Lost: k.Lost, LostAt: k.LostAt, Mounts: k.Mounts,
			Pods: map[string]behavior.PodCoverage{k.Pod: {Image: k.Image, From: k.From, To: k.To, Start: k.Start, Ready: k.Ready, Steady: k.Steady, Terminated: k.Terminated, Restarts: k.Restarts, Held: k.Held}}})
		for _, o := range k.Facts {
			for _, f := range view.Resolve(o.Fact, namespace, k.Pod, time.Time{}) {
				profile.Add(f, o.Evidence(k.Pod))
			}
		}
	}
	if profile.Facts.Len() == 0 {
		return profile, fmt.Errorf("%s: the collector has nothing of it", s.namespace)
	}
	return profile, nil
}

func (o options) file(p program, run string) string {
	return filepath.Join(o.runs, p.name, run+".yaml")
}

func (o options) keep(p program, run string, profile behavior.Profile) error {
	data, err := behavior.EncodeFile([]behavior.Profile{profile})
	if err != nil {
		return err
	}
	file := o.file(p, run)
	return errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644))
}

// recorded reads a run's profile; false if there is none.
func (o options) recorded(p program, run string) (behavior.Profile, bool, error) {
	data, err := os.ReadFile(o.file(p, run))
	if errors.Is(err, fs.ErrNotExist) {
		return behavior.Profile{}, false, nil
	}
	if err != nil {
		return behavior.Profile{}, false, err
	}
	profiles, err := behavior.DecodeFile(data)
	if err != nil || len(profiles) != 1 {
		return behavior.Profile{}, false, fmt.Errorf("read %s: %d profiles: %w", o.file(p, run), len(profiles), err)
	}
	// The API server tells of it in a cluster.
	profiles[0].Coverage.Spec = &behavior.SeenSpec{Pod: p.spec()}
	return profiles[0], true, nil
}

// trained are the profiles of the training; false if they are not all there.
func (o options) trained(p program) ([]behavior.Profile, bool, error) {
	var list []behavior.Profile
	for n := range trainings {
		profile, ok, err := o.recorded(p, training(n+1))
		if err != nil || !ok {
			return nil, false, err
		}
		list = append(list, profile)
	}
	return list, true, nil
}

// spec is the pods' specification as the plugin keeps it.
func (p program) spec() behavior.PodSpec {
	user := int64(p.uid)
	c := behavior.ContainerSpec{Name: container, User: &user}
	if p.uid != 0 {
		c.Security.RunAsUser = &user
	}
	var volumes []behavior.Volume
	for i, to := range p.volumes {
		name := fmt.Sprintf("volume-%d", i)
		c.Mounts = append(c.Mounts, behavior.VolumeMount{Name: name, Path: to})
		volumes = append(volumes, behavior.Volume{Name: name, Kind: "persistentVolumeClaim"})
	}
	return behavior.PodSpec{Containers: []behavior.ContainerSpec{c}, Volumes: volumes}
}
