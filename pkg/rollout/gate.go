package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// The gates before deny, in the order in which they are shown.
const (
	GateViolations = "violations" // nothing that was seen would be denied
	GateSuspicions = "suspicions" // nothing suspicious waits for a person
	GateAdmission  = "admission"  // no pod as those that were seen would be refused
	GateCoverage   = "coverage"   // every pod was observed, nothing was lost
	GateLife       = "life"       // the parts of a life that gate.seen asks for were seen
	GateImages     = "images"     // no image that was not learned from
	GateSynced     = "synced"     // the cluster runs what is committed
	GateSoak       = "soak"       // for long enough
)

// Check is one gate before a workload's next stage, and what it was decided by.
type Check struct {
	Gate     string
	Open     bool
	Evidence string   // in words; empty where nothing was found that speaks for it
	Reasons  []string // why it is closed
}

func (c Check) closed(reason string) Check {
	c.Open, c.Reasons = false, append(c.Reasons, reason)
	return c
}

// checked opens a gate that nothing speaks against.
func checked(gate, evidence string, reasons []string) Check {
	return Check{Gate: gate, Open: len(reasons) == 0, Evidence: evidence, Reasons: reasons}
}

// gate holds what people may set about promotions to deny.
type gate struct {
	// Coverage that is asked of the fresh profiles: complete, or any for
	// namespaces in which complete is never reached.
	Coverage string `json:"coverage"`
	// Seen are the parts of each container's life that must have been observed,
	// at any time: start, ready, steady, restart, end.
	Seen []string `json:"seen,omitempty"`
	// Soak is how long the cluster must have run a workload's policies in audit,
	// as they stand. A text such as 24h.
	Soak string `json:"soak,omitempty"`
	// Images: learned, or any where images without policies of their own may come.
	Images string `json:"images,omitempty"`
	// Synced: required, or any where the cluster cannot be asked.
	Synced string `json:"synced,omitempty"`
}

const (
	coverageComplete = "complete"
	gateAny          = "any"
	imagesLearned    = "learned"
	syncedRequired   = "required"
)

// managedSoak is the soak where Argo CD or Flux applies the tree and nobody set
// another: a day has a night and its jobs. Who applies by hand decides by hand.
const managedSoak = 24 * time.Hour

// managedSeen are the parts of a life that are asked for there.
func managedSeen() []string { return []string{"start", "steady", "restart"} }

func (g gate) validate() error {
	for _, x := range []struct {
		field, value string
		choice       []string
	}{
		{"coverage", g.Coverage, []string{coverageComplete, gateAny}},
		{"images", cmp.Or(g.Images, imagesLearned), []string{imagesLearned, gateAny}},
		{"synced", cmp.Or(g.Synced, syncedRequired), []string{syncedRequired, gateAny}},
	} {
		if !slices.Contains(x.choice, x.value) {
			return fmt.Errorf("gate.%s is %q, want %s", x.field, x.value, strings.Join(x.choice, " or "))
		}
	}
	for _, part := range g.Seen {
		if !slices.Contains(lives(), part) {
			return fmt.Errorf("gate.seen has %q, want some of %s", part, strings.Join(lives(), ", "))
		}
	}
	if d, err := time.ParseDuration(cmp.Or(g.Soak, "0s")); err != nil || d < 0 {
		return fmt.Errorf("gate.soak is %q, want a duration such as 24h", g.Soak)
	}
	return nil
}

// lives are the parts of a life, as behavior.Coverage.Milestones names them.
func lives() []string { return []string{"start", "ready", "steady", "restart", "end"} }

// soak is how long is asked for: what people set, and at least what the caller
// asks; where nobody set any, what the caller asks, or a day where Argo CD or
// Flux applies the tree.
func (g gate) soak(in Input, asked *time.Duration) time.Duration {
	set, _ := time.ParseDuration(cmp.Or(g.Soak, "0s")) // validate has read it
	switch {
	case asked != nil:
		return max(set, *asked)
	case g.Soak == "" && in.managed():
		return managedSoak
	}
	return set
}

func (g gate) seen(in Input) []string {
	switch {
	case len(g.Seen) > 0:
		return g.Seen
	case in.managed():
		return managedSeen()
	}
	return []string{"start"}
}

func (in Input) managed() bool { return in.Synced != nil && in.Synced.By != "" }

// gates judges everything but violations for one workload on its way to deny.
type gates struct {
	in    Input
	c     *candidate
	files overlay.Index // of the candidate's tree
	soak  *time.Duration
	slugs []string
}

func newGates(in Input, c *candidate, soak *time.Duration) gates {
	g := gates{in: in, c: c, files: c.tree.Index(), soak: soak}
	for _, s := range c.rec.Workloads {
		g.slugs = append(g.slugs, s.Slug)
	}
	return g
}

// of gives the gates in order. before is the workload's state as it is committed.
func (g gates) of(before state, profiles behavior.Profiles) []Check {
	w := before.workload(g.in.Namespace)
	checks := []Check{suspected(g.in, g.c.rec, before, w, profiles), checked(GateCoverage, covered(profiles), shortfallsOf(g.in, g.c, g.files, w, profiles))}
	if len(profiles) > 0 {
		checks = append(checks, g.life(w, profiles), g.images(w, profiles))
	}
	if g.in.Synced == nil || g.c.rec.Gate.Synced == gateAny {
		return checks
	}
	synced, since := g.in.Synced.check(g.in.Tree, before, g.slugs)
	return append(checks, synced, g.soaked(w, synced, since))
}

// covered says what the fresh profiles stand on.
func covered(profiles behavior.Profiles) string {
	pods, replicas, longest := 0, 0, time.Duration(0)
	for _, p := range profiles {
		pods, replicas = max(pods, len(p.Coverage.Pods)), max(replicas, p.Coverage.Replicas, len(p.Coverage.Pods))
		for _, pod := range p.Coverage.Pods {
			longest = max(longest, pod.To.Sub(pod.From))
		}
	}
	if pods == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s observed, for up to %s", pods, count(replicas, "pod"), longest)
}

// life asks for the parts of a life: what is not seen of it, the policies may
// deny when it comes.
func (g gates) life(w behavior.Workload, fresh behavior.Profiles) Check {
	if g.c.rec.Gate.Coverage == gateAny {
		return checked(GateLife, "not asked for: gate.coverage is any", nil)
	}
	all, err := g.merged(w, fresh)
	if err != nil {
		return Check{Gate: GateLife}.closed(err.Error())
	}
	asked := g.c.rec.Gate.seen(g.in)
	var reasons []string
	for _, p := range sorted(all) {
		seen := p.Coverage.Milestones()
		if replaced(p.Coverage) {
			seen = append(seen, "restart")
		}
		for _, part := range asked {
			if slices.Contains(seen, part) || onlyTraffic(p.Coverage) || transient(w) && (part == "steady" || part == "restart" || part == "ready") {
				continue
			}
			reasons = append(reasons, fmt.Sprintf("%s/%s: %s", w, p.Subject.Container, unseen(part)))
		}
		if transient(w) && !slices.Contains(seen, "end") {
			reasons = append(reasons, fmt.Sprintf("%s/%s: no run of it was observed to its end", w, p.Subject.Container))
		}
	}
	return checked(GateLife, "seen in every container: "+strings.Join(asked, ", "), reasons)
}

// merged is the coverage that was ever seen of a workload.
func (g gates) merged(w behavior.Workload, fresh behavior.Profiles) (behavior.Profiles, error) {
	all, err := evidence(g.in.Tree, w, behavior.DecodeCoverage)
	if err != nil {
		return nil, err
	}
	for s, p := range fresh {
		all.Add(behavior.Profile{Subject: s, Labels: p.Labels, Coverage: p.Coverage})
	}
	return all, nil
}

// unseen says what was never observed, and how it will be.
func unseen(part string) string {
	switch part {
	case "start":
		return "its start was never observed: restart it while discover or promote observes"
	case "steady":
		return "its steady state was never observed: discover --until-stable observes until nothing new comes"
	case "restart":
		return "no restart of it was ever observed: discover --restart makes one"
	case "ready":
		return "its becoming ready was never observed: restart it while discover or promote observes"
	}
	return "its end was never observed: restart it while discover or promote observes"
}

// replaced tells whether a pod of the workload was seen starting after another
// had been observed, which is how a rollout restarts.
func replaced(c behavior.Coverage) bool {
	for name, p := range c.Pods {
		for other, before := range c.Pods {
			if p.Start && name != other && before.From.Before(p.From) {
				return true
			}
		}
	}
	return false
}

// transient workloads run and end; a promotion need not meet a run.
func transient(w behavior.Workload) bool { return w.Kind == "CronJob" || w.Kind == "Job" }

// images asks that nothing runs that the policies were not learned from. An image
// of which no digest is known is told by its name.
func (g gates) images(w behavior.Workload, fresh behavior.Profiles) Check {
	learned, err := evidence(g.in.Tree, w, behavior.DecodeCoverage)
	if err != nil {
		return Check{Gate: GateImages}.closed(err.Error())
	}
	var reasons, same []string
	for _, p := range sorted(fresh) {
		known := imagesOf(learned[p.Subject].Coverage)
		for _, image := range imagesOf(p.Coverage) {
			switch {
			case learnedFrom(image, known):
				same = append(same, image)
			case len(known) > 0 && g.c.rec.Gate.Images != gateAny:
				reasons = append(reasons, fmt.Sprintf("%s/%s: runs image %s, which was not learned from: run discover", w, p.Subject.Container, behavior.Escape(image)))
			}
		}
	}
	slices.Sort(same)
	return checked(GateImages, list(slices.Compact(same), 3), reasons)
}

// learnedFrom tells whether an image is a known one. One whose digest nobody told
// is known by its name.
func learnedFrom(image string, known []string) bool {
	return slices.ContainsFunc(known, func(k string) bool { return k == image || strings.HasPrefix(k, image+"@") })
}

func imagesOf(c behavior.Coverage) []string {
	var images []string
	for _, p := range c.Pods {
		if p.Image != "" {
			images = append(images, p.Image)
		}
	}
	slices.Sort(images)
	return slices.Compact(images)
}

// soaked asks for time in audit, on the cluster's clock.
func (g gates) soaked(w behavior.Workload, synced Check, since time.Time) Check {
	want := g.c.rec.Gate.soak(g.in, g.soak)
	c := Check{Gate: GateSoak}
	now := g.in.Synced.Now
	if now.IsZero() {
		now = g.in.Now
	}
	switch passed := now.Sub(since).Truncate(time.Second); {
	case want == 0:
		return checked(GateSoak, "no time in audit is asked for", nil)
	case !synced.Open || since.IsZero():
		return c.closed(fmt.Sprintf("%s: its %s in %s have not begun, since the cluster does not run it", w, want, policy.Audit))
	case passed < want:
		return c.closed(fmt.Sprintf("%s: in %s for %s of %s, until %s", w, policy.Audit, max(passed, 0), want, moment(since.Add(want))))
	default:
		return checked(GateSoak, fmt.Sprintf("in %s for %s, %s are asked for", policy.Audit, passed, want), nil)
	}
}

// reasons of all gates that are closed.
func reasonsOf(checks []Check) []string {
	var all []string
	for _, c := range checks {
		all = append(all, c.Reasons...)
	}
	return all
}
