package podsecurity

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	standards "k8s.io/pod-security-admission/policy"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Level is one of the Pod Security Standards.
type Level string

// Levels, from the one that allows everything on.
const (
	Privileged Level = "privileged"
	Baseline   Level = "baseline"
	Restricted Level = "restricted"
)

// Levels lists the levels in order.
func Levels() []Level { return []Level{Privileged, Baseline, Restricted} }

// Lowest gives the level that pods of all the given levels could take; Restricted
// for none, since nothing is in its way.
func Lowest(levels ...Level) Level {
	lowest := Restricted
	for _, l := range levels {
		if slices.Index(Levels(), l) < slices.Index(Levels(), lowest) {
			lowest = l
		}
	}
	return lowest
}

// LevelOf tells the strictest level that a pod of that specification could take,
// and in words what stands in the way of the next one, as the API server's own
// checks say it in their latest version.
func LevelOf(spec behavior.PodSpec) (Level, []string) {
	pod, err := asPod(spec)
	if err != nil {
		return Privileged, []string{"its specification cannot be read: " + behavior.Escape(err.Error())}
	}
	checks, err := standards.NewEvaluator(standards.DefaultChecks(), nil)
	if err != nil {
		return Privileged, []string{"the standards cannot be read: " + behavior.Escape(err.Error())}
	}
	level := Privileged
	for _, next := range Levels()[1:] {
		version := api.LevelVersion{Level: api.Level(next), Version: api.LatestVersion()}
		var obstacles []string
		for _, r := range checks.EvaluatePod(version, &metav1.ObjectMeta{}, pod) {
			if !r.Allowed {
				obstacles = append(obstacles, behavior.Escape(fmt.Sprintf("%s (%s)", r.ForbiddenReason, r.ForbiddenDetail)))
			}
		}
		if len(obstacles) > 0 {
			slices.Sort(obstacles)
			return level, obstacles
		}
		level = next
	}
	return level, nil
}

// asPod is the specification in the API's own types, as far as it goes.
func asPod(spec behavior.PodSpec) (*corev1.PodSpec, error) {
	plain := spec
	plain.Volumes = nil // they have their kind as a field of its own
	data, err := json.Marshal(plain)
	if err != nil {
		return nil, err
	}
	var pod corev1.PodSpec
	if err := json.Unmarshal(data, &pod); err != nil {
		return nil, err
	}
	for _, v := range spec.Volumes {
		source, err := json.Marshal(map[string]any{"name": v.Name, v.Kind: map[string]string{}})
		if err != nil {
			return nil, err
		}
		var volume corev1.Volume
		if err := json.Unmarshal(source, &volume); err != nil {
			return nil, err
		}
		if v.HostPath != "" && volume.HostPath != nil {
			volume.HostPath.Path = v.HostPath
		}
		pod.Volumes = append(pod.Volumes, volume)
	}
	for _, list := range []struct {
		from []behavior.ContainerSpec
		to   []corev1.Container
	}{{spec.InitContainers, pod.InitContainers}, {spec.Containers, pod.Containers}} {
		for i, c := range list.from {
			if len(c.Probed) > 0 {
				list.to[i].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Host: c.Probed[0], Port: intstr.FromInt32(0)}}}
			}
		}
	}
	return &pod, nil
}
