package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// RolloutTimeout is how long Restart waits for all rollouts: a Deployment's own
// deadline for progress, by default.
const RolloutTimeout = 10 * time.Minute

// restartEvery is how often it is looked at how far the rollouts are.
const restartEvery = time.Second

// restartedAt and rolloutManager are kubectl's own for "kubectl rollout restart".
const (
	restartedAt    = "kubectl.kubernetes.io/restartedAt"
	rolloutManager = "kubectl-rollout"
)

// RolloutState is how far a restarted workload is.
type RolloutState struct {
	Rollout
	Done   bool
	Failed bool   // its own deadline for progress is over
	Waits  string // for what, in words; empty when it is done
	// NotReady are its pods that are not, with why, sorted.
	NotReady []string
}

// Restart begins a rollout of each workload that is not to be left, as "kubectl
// rollout restart" does, and waits until the new pods are ready. It tells how far
// they are whenever that changes. Rollouts that do not become ready until their
// own deadline, or RolloutTimeout, are no error: they are in the result with their
// pods, and go on.
func (s *Source) Restart(ctx context.Context, list []Rollout, show func([]RolloutState)) ([]RolloutState, error) {
	var begun []Rollout
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
		"annotations": map[string]any{restartedAt: s.options.Now().Format(time.RFC3339)}}}}})
	if err != nil {
		return nil, fmt.Errorf("restart: %w", err)
	}
	for _, r := range list {
		if r.Left != "" {
			continue
		}
		_, err := s.api.Resource(resourceOf(r.Workload.Kind)).Namespace(r.Workload.Namespace).
			Patch(ctx, r.Workload.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: rolloutManager})
		if err != nil {
			return nil, fmt.Errorf("restart %s: %w", r.Workload, err)
		}
		begun = append(begun, r)
	}
	return s.awaitRollouts(ctx, begun, show)
}

func (s *Source) awaitRollouts(ctx context.Context, begun []Rollout, show func([]RolloutState)) ([]RolloutState, error) {
	give := s.options.Now().Add(RolloutTimeout)
	ticker := time.NewTicker(restartEvery)
	defer ticker.Stop()
	var last string
	for {
		states, err := s.rolloutStates(ctx, begun)
		if err != nil {
			return nil, fmt.Errorf("wait for rollouts: %w", err)
		}
		if text := fmt.Sprint(states); text != last {
			show(states)
			last = text
		}
		open := slices.ContainsFunc(states, func(r RolloutState) bool { return !r.Done && !r.Failed })
		if !open || s.options.Now().After(give) {
			return states, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ticker.C:
		}
	}
}

func (s *Source) rolloutStates(ctx context.Context, begun []Rollout) ([]RolloutState, error) {
	now := map[string]controller{}
	for _, k := range restartable() {
		if !slices.ContainsFunc(begun, func(r Rollout) bool { return r.Workload.Kind == k.name }) {
			continue
		}
		found, err := s.controllers(ctx, k)
		if err != nil {
			return nil, err
		}
		for _, c := range found {
			now[k.name+"/"+c.Metadata.Name] = c
		}
	}
	pods, err := s.workloadPods(ctx)
	if err != nil {
		return nil, err
	}
	var states []RolloutState
	for _, r := range begun {
		state := RolloutState{Rollout: r}
		c, ok := now[r.Workload.Kind+"/"+r.Workload.Name]
		if !ok {
			state.Failed, state.Waits = true, "it was deleted"
		} else if state.Waits, state.Failed = c.waits(r.Workload.Kind); state.Waits == "" {
			state.Done = true
		} else {
			for _, p := range pods {
				if why := p.notReady(); why != "" && r.selector.Matches(labels.Set(p.Metadata.Labels)) {
					state.NotReady = append(state.NotReady, p.Metadata.Name+": "+why)
				}
			}
			slices.Sort(state.NotReady)
		}
		states = append(states, state)
	}
	return states, nil
}

// waits says for what a rollout waits, as "kubectl rollout status" does; nothing
// when it is over. It has failed when its own deadline is.
func (c controller) waits(kind string) (text string, failed bool) {
	want := c.wants(kind)
	switch {
	case c.Status.Observed < c.Metadata.Generation:
		return "its controller to see the change", false
	case kind == "Deployment":
		return c.deploymentWaits(want)
	case kind == "DaemonSet":
		switch {
		case c.Status.UpdatedScheduled < want:
			return fmt.Sprintf("%d of %d pods to be replaced", want-c.Status.UpdatedScheduled, want), false
		case c.Status.AvailableNodes < want:
			return fmt.Sprintf("%d of %d pods to be ready", want-c.Status.AvailableNodes, want), false
		}
		return "", false
	}
	replaced := want - c.Spec.Update.Rolling.Partition
	switch {
	case c.Status.Updated < replaced:
		return fmt.Sprintf("%d of %d pods to be replaced", replaced-c.Status.Updated, replaced), false
	case c.Status.ReadyReplicas < want:
		return fmt.Sprintf("%d of %d pods to be ready", want-c.Status.ReadyReplicas, want), false
	case c.Spec.Update.Rolling.Partition == 0 && c.Status.UpdateRevision != c.Status.CurrentRevision:
		return "its controller to see that all pods are replaced", false
	}
	return "", false
}

func (c controller) deploymentWaits(want int) (text string, failed bool) {
	for _, condition := range c.Status.Conditions {
		failed = failed || condition.Type == "Progressing" && condition.Reason == "ProgressDeadlineExceeded"
	}
	switch {
	case c.Status.Updated < want:
		return fmt.Sprintf("%d of %d new pods to be made", want-c.Status.Updated, want), failed
	case c.Status.Replicas > c.Status.Updated:
		return fmt.Sprintf("%d old pods to end", c.Status.Replicas-c.Status.Updated), failed
	case c.Status.Available < c.Status.Updated:
		return fmt.Sprintf("%d of %d new pods to be ready", c.Status.Updated-c.Status.Available, c.Status.Updated), failed
	}
	return "", false
}

// workloadPod is what matters of a pod while it is waited for.
type workloadPod struct {
	Metadata struct {
		Name    string            `json:"name"`
		Labels  map[string]string `json:"labels"`
		Deleted *time.Time        `json:"deletionTimestamp"`
	} `json:"metadata"`
	Status struct {
		Phase      string `json:"phase"`
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
		Init       []containerStatus `json:"initContainerStatuses"`
		Containers []containerStatus `json:"containerStatuses"`
	} `json:"status"`
}

type containerStatus struct {
	Name  string         `json:"name"`
	State containerState `json:"state"`
	Last  containerState `json:"lastState"`
	Ready bool           `json:"ready"`
}

func (s *Source) workloadPods(ctx context.Context) ([]workloadPod, error) {
	list, err := s.api.Resource(resource("", "v1", "pods")).Namespace(s.options.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var pods []workloadPod
	for i := range list.Items {
		var p workloadPod
		if err := decode(&list.Items[i], &p); err != nil {
			return nil, err
		}
		pods = append(pods, p)
	}
	return pods, nil
}

// notReady says in words, escaped, why the pod is not; nothing when it is, or when
// it is leaving.
func (p workloadPod) notReady() string {
	if p.Metadata.Deleted != nil || p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" {
		return ""
	}
	var general string
	for _, c := range p.Status.Conditions {
		switch {
		case c.Type == "Ready" && c.Status == "True":
			return ""
		case c.Type == "PodScheduled" && c.Status == "False":
			return "cannot be scheduled: " + escapeText(c.Message)
		case c.Type == "Ready":
			general = escapeText(c.Message)
		}
	}
	for _, c := range slices.Concat(p.Status.Init, p.Status.Containers) {
		if w := c.State.Waiting; w != nil && w.Reason != "PodInitializing" && w.Reason != "ContainerCreating" {
			text := escapeText(strings.TrimSuffix(w.Reason+": "+w.Message, ": "))
			if c.Last.Terminated != nil {
				text += fmt.Sprintf(" (it ended with exit code %d)", c.Last.Terminated.Code)
			}
			return text
		}
	}
	if general == "" {
		return "starting"
	}
	return general
}
