package learn

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// scale weighs rules by how much of a container's life stands behind them.
type scale struct {
	coverage behavior.Coverage
	pods     int    // that were observed
	span     string // how much was observed, in words
	current  string // the newest pod's image; empty where none is known
}

func newScale(c behavior.Coverage, seen behavior.Evidence) scale {
	s := scale{coverage: c, pods: max(len(c.Pods), len(seen.Pods)), current: c.CurrentImage()}
	restarts := 0
	var hours time.Duration
	for _, p := range c.Pods {
		restarts += p.Restarts
		hours += p.To.Sub(p.From)
	}
	if restarts > 0 {
		s.span = ", " + counted(restarts, "restart")
	}
	if hours > 0 {
		s.span += fmt.Sprintf(", %.1f hours", math.Round(hours.Hours()*10)/10)
	}
	return s
}

// weak says in words why the evidence of a rule is thin; empty where it is not.
func (s scale) weak(r policy.Rule) string {
	e := r.Evidence()
	var why []string
	count := e.Count()
	if n := len(e.Pods); n == 1 && (s.pods > 1 || count <= 1) {
		times := fmt.Sprintf("%d times", count)
		if count <= 1 {
			times = "once"
		}
		pods := fmt.Sprintf("in one of %d pods", s.pods)
		if s.pods == 1 {
			pods = "in the only pod"
		}
		why = append(why, fmt.Sprintf("seen %s %s%s", times, pods, s.span))
	}
	if s.current != "" && len(e.Pods) > 0 {
		old := true
		for pod := range e.Pods {
			image := s.coverage.Pods[pod].Image
			old = old && image != "" && image != s.current
		}
		if old {
			why = append(why, "seen only in an image before the current one")
		}
	}
	return strings.Join(why, "; ")
}
