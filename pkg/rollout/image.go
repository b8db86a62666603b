package rollout

import (
	"fmt"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// imageChanges says of each container whose image none of the pods had that its
// facts come from: what it did before may be no more, and what it does now may be
// other.
func imageChanges(w behavior.Workload, old, fresh behavior.Profiles, now policy.Set) []string {
	var list []string
	for _, s := range fresh.Subjects() {
		before, after := old[s].Coverage.CurrentImage(), fresh[s].Coverage.CurrentImage()
		if before == "" || after == "" || slices.Contains(images(old[s].Coverage), after) {
			continue
		}
		outdated, all := 0, 0
		for _, r := range now.Rules {
			if r.Container != s.Container {
				continue
			}
			if all++; onlyIn(r, old[s].Coverage, after) {
				outdated++
			}
		}
		list = append(list, fmt.Sprintf("%s, container %s: the image changed since its facts were learned, from %s to %s; %d of its %d rules were seen with older images only",
			w, behavior.Escape(s.Container), shortImage(before), shortImage(after), outdated, all))
	}
	return list
}

func images(c behavior.Coverage) []string {
	var list []string
	for _, p := range c.Pods {
		list = append(list, p.Image)
	}
	return list
}

// onlyIn tells whether all pods that a rule was seen in were observed before and
// had another image than the one of now.
func onlyIn(r policy.Rule, before behavior.Coverage, now string) bool {
	pods := r.Evidence().Pods
	for pod := range pods {
		if image := before.Pods[pod].Image; image == "" || image == now {
			return false
		}
	}
	return len(pods) > 0
}

// shortImage cuts an image's digest to what people compare.
func shortImage(image string) string {
	name, digest, ok := strings.Cut(image, "@sha256:")
	if !ok {
		return behavior.Escape(image)
	}
	return behavior.Escape(name + "@sha256:" + digest[:min(len(digest), 12)])
}
