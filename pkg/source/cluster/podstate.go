package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/autopolicy/kubectl-autopolicy/manifests"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// What a reason begins with.
const (
	imageReason   = "image: "
	refusedReason = "refused: "
)

// daemonSet is what matters of a DaemonSet.
type daemonSet struct {
	Metadata struct {
		Generation int64 `json:"generation"`
	} `json:"metadata"`
	Status struct {
		Observed int64 `json:"observedGeneration"`
		Desired  int   `json:"desiredNumberScheduled"`
	} `json:"status"`
}

// seen tells whether the controller knows of it.
func (d daemonSet) seen() bool { return d.Status.Observed >= d.Metadata.Generation }

// collectorPod is what matters of a pod.
type collectorPod struct {
	Metadata struct {
		Name    string     `json:"name"`
		Deleted *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		Node     string `json:"nodeName"`
		Affinity struct {
			Node struct {
				Required struct {
					Terms []struct {
						Fields []struct {
							Values []string `json:"values"`
						} `json:"matchFields"`
					} `json:"nodeSelectorTerms"`
				} `json:"requiredDuringSchedulingIgnoredDuringExecution"`
			} `json:"nodeAffinity"`
		} `json:"affinity"`
	} `json:"spec"`
	Status struct {
		Phase      string `json:"phase"`
		Message    string `json:"message"`
		Conditions []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Message string `json:"message"`
		} `json:"conditions"`
		Containers []struct {
			State    containerState `json:"state"`
			Last     containerState `json:"lastState"`
			Restarts int            `json:"restartCount"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

type containerState struct {
	Waiting *struct {
		Reason  string `json:"reason"`
		Message string `json:"message"`
	} `json:"waiting"`
	Running    *struct{}   `json:"running"`
	Terminated *terminated `json:"terminated"`
}

type terminated struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Code    int    `json:"exitCode"`
}

func (t *terminated) words() string {
	lines := strings.Split(strings.TrimSpace(t.Message), "\n")
	text := lines[0]
	if len(lines) > 4 {
		lines = lines[len(lines)-4:]
	}
	if len(lines) > 1 {
		text = strings.Join(lines, "; ")
	}
	if text == "" {
		return fmt.Sprintf("collector ended with exit code %d (%s)", t.Code, escapeText(t.Reason))
	}
	return "collector ended: " + escapeText(text)
}

// node is the name of the node that the pod is on, or is meant for.
func (p collectorPod) node() string {
	if p.Spec.Node != "" {
		return p.Spec.Node
	}
	for _, term := range p.Spec.Affinity.Node.Required.Terms {
		for _, field := range term.Fields {
			if len(field.Values) == 1 {
				return field.Values[0]
			}
		}
	}
	return p.Metadata.Name
}

// state says how far the pod is. Ready means no more than that its program runs.
func (p collectorPod) state() NodeState {
	state := NodeState{Node: p.node()}
	for _, c := range p.Status.Conditions {
		if c.Type == "PodScheduled" && c.Status == "False" {
			state.Reason = "cannot be scheduled: " + escapeText(c.Message)
			return state
		}
	}
	if len(p.Status.Containers) == 0 {
		state.Reason = "starting"
		if p.Status.Message != "" {
			state.Reason = escapeText(p.Status.Message)
		}
		return state
	}
	c := p.Status.Containers[0]
	switch {
	case c.State.Running != nil:
		state.Ready = true
	case c.State.Terminated != nil:
		state.Reason, state.Hopeless = c.State.Terminated.words(), c.Restarts > 0
	case c.Last.Terminated != nil:
		state.Reason, state.Hopeless = c.Last.Terminated.words(), c.Restarts > 0
	case c.State.Waiting == nil:
		state.Reason = "starting"
	case strings.Contains(c.State.Waiting.Reason, "Image"):
		state.Reason = imageReason + escapeText(c.State.Waiting.Reason+": "+c.State.Waiting.Message)
		state.Hopeless = true
	case c.State.Waiting.Reason == "ContainerCreating", c.State.Waiting.Reason == "PodInitializing":
		state.Reason = "starting"
	default:
		state.Reason = escapeText(c.State.Waiting.Reason + ": " + c.State.Waiting.Message)
		state.Hopeless = strings.HasPrefix(c.State.Waiting.Reason, "Create")
	}
	return state
}

func (s *Source) daemonSet(ctx context.Context) (daemonSet, error) {
	var d daemonSet
	u, err := s.api.Resource(resource("apps", "v1", "daemonsets")).Namespace(manifests.Namespace).Get(ctx, manifests.DaemonSet, metav1.GetOptions{})
	if err != nil {
		return d, err
	}
	return d, decode(u, &d)
}

// collectorPods lists the pods of the DaemonSet that stay.
func (s *Source) collectorPods(ctx context.Context) ([]collectorPod, error) {
	list, err := s.api.Resource(resource("", "v1", "pods")).Namespace(manifests.Namespace).List(ctx, metav1.ListOptions{LabelSelector: manifests.Selector})
	if err != nil {
		return nil, err
	}
	var pods []collectorPod
	for i := range list.Items {
		var p collectorPod
		if err := decode(&list.Items[i], &p); err != nil {
			return nil, err
		}
		if p.Metadata.Deleted == nil {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

func decode(u *unstructured.Unstructured, into any) error {
	data, err := u.MarshalJSON()
	if err != nil {
		return fmt.Errorf("read %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return nil
}

func escape(err error) string { return escapeText(err.Error()) }

// escapeText makes a text of the cluster's printable on one line. What is printable
// already stays, since an error may quote what was escaped before.
func escapeText(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if behavior.IsEscaped(text) {
		return text
	}
	return behavior.Escape(text)
}
