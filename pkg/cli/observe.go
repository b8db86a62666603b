package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
)

const (
	defaultDuration = time.Minute
	// What --until-stable means without a value, and how long it is waited at most
	// where no --duration says so.
	defaultStable = 10 * time.Minute
	leastStable   = time.Hour
	stableTimes   = 6
	// removeTimeout is how long the removal of the collector may take. Deleting a
	// namespace with a handful of pods takes seconds.
	removeTimeout = 90 * time.Second
)

// observeFlags are the flags of every command that observes.
type observeFlags struct {
	duration time.Duration
	image    string
	wait     time.Duration
	grace    time.Duration
	stable   time.Duration
	source   sourceFlags
	flags    *pflag.FlagSet
}

func (f *observeFlags) add(flags *pflag.FlagSet) {
	f.flags = flags
	flags.DurationVar(&f.duration, "duration", defaultDuration, "how long to observe; with --until-stable at most (default then 6 times as long, at least 1h)")
	flags.DurationVar(&f.stable, "until-stable", 0, "end when no workload did anything new for so long")
	flags.Lookup("until-stable").NoOptDefVal = defaultStable.String()
	flags.StringVar(&f.image, "collector-image", "", "image of the collector (default the release's own)")
	flags.DurationVar(&f.wait, "collector-wait", 2*time.Minute, "how long the collector may take to start on a node")
	flags.DurationVar(&f.grace, "collector-grace", 10*time.Minute, "how long after the end of the observation the collector removes itself, if nobody else does")
	f.source.add(flags)
}

// complete fills what no flag gave from the configuration, and validates.
func (f *observeFlags) complete(c config) error {
	if f.image == "" {
		f.image = c.Collector.Image
	}
	if f.stable > 0 && !f.flags.Changed("duration") {
		f.duration = max(leastStable, stableTimes*f.stable)
	}
	switch {
	case f.stable < 0 || f.stable == 0 && f.flags.Changed("until-stable"):
		return fmt.Errorf("--until-stable %s: want more than nothing, such as 10m", f.stable)
	case f.stable > f.duration:
		return fmt.Errorf("--until-stable %s: --duration %s is over before", f.stable, f.duration)
	case f.duration <= 0:
		return fmt.Errorf("--duration %s: want more than nothing, such as 10m", f.duration)
	case f.wait <= 0:
		return fmt.Errorf("--collector-wait %s: want more than nothing", f.wait)
	case f.grace <= 0:
		return fmt.Errorf("--collector-grace %s: want more than nothing", f.grace)
	}
	return f.source.validate(f.flags)
}

// options says what to observe, and with what.
func (s *setup) options() (cluster.Options, error) {
	config, err := s.app.restConfig()
	if err != nil {
		return cluster.Options{}, err
	}
	config.UserAgent = "kubectl-autopolicy/" + s.app.version
	o := cluster.Options{
		Config: config, Namespace: s.namespace, Version: s.app.version, Image: s.observer.image, By: deployer(),
		Deadline: s.observer.wait + s.observer.duration + s.observer.grace, NodeTimeout: s.observer.wait, Now: s.app.now,
		Restart: s.restart != nil,
	}
	if o.Restart {
		o.Deadline += cluster.RolloutTimeout
	}
	return o, nil
}

// restConfig says how to reach the cluster. Where nothing names one, client-go
// would try a port of this machine; that is an error here.
func (a *app) restConfig() (*rest.Config, error) {
	const hint = "name a cluster with --kubeconfig and --context, as for kubectl"
	loader := a.kube.ToRawKubeConfigLoader()
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, hinted(fmt.Errorf("read kubeconfig: %w", err), hint)
	}
	_, outside := rest.InClusterConfig()
	if len(raw.Clusters) == 0 && *a.kube.APIServer == "" && outside != nil {
		return nil, hinted(errNoCluster, hint)
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, hinted(fmt.Errorf("read kubeconfig: %w", err), hint)
	}
	return config, nil
}

// deployer names the person for whoever meets the collector in the cluster.
func deployer() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// observe takes profiles from where the user said.
func (a *app) observe(ctx context.Context, s *setup) (behavior.Profiles, error) {
	if len(s.observer.source.from) > 0 {
		return a.fromFiles(ctx, s)
	}
	if s.observer.source.name != bySelf {
		return a.relayed(ctx, s)
	}
	return a.collect(ctx, s)
}

// collect deploys the collectors, watches, pulls and removes them again, also when
// it fails and when the context ends.
func (a *app) collect(ctx context.Context, s *setup) (profiles behavior.Profiles, err error) {
	options, err := s.options()
	if err != nil {
		return nil, err
	}
	source, err := cluster.New(options)
	if err != nil {
		return nil, err
	}
	if err := source.Check(ctx); err != nil {
		return nil, advised(err)
	}
	watch := cluster.Watch{Most: s.observer.duration, Quiet: s.observer.stable, Entered: s.entered}
	if s.restart != nil {
		if watch.First, err = s.restart.plan(ctx, s, source); err != nil {
			return nil, err
		}
	}
	s.progress.say("deploying the collector for namespace %s", s.namespace)
	err = source.Deploy(ctx)
	var exists *cluster.ExistsError
	if errors.As(err, &exists) {
		return nil, err // it is somebody else's: not ours to remove
	}
	defer func() {
		err = errors.Join(err, s.remove(ctx, source))
		if err == nil {
			err = ctx.Err() // interrupted after the last pull: nobody wants the commit
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := source.WaitReady(ctx, func(nodes []cluster.NodeState) { s.progress.update("%s", readyLine(nodes)) }); err != nil {
		return nil, err
	}
	begin := func() {
		if watch.Quiet > 0 {
			s.progress.say("observing until nothing new was seen for %s, for %s at most", watch.Quiet, watch.Most)
		} else {
			s.progress.say("observing for %s", watch.Most)
		}
	}
	if first := watch.First; first == nil {
		begin()
	} else {
		watch.First = func(ctx context.Context) error {
			err := first(ctx)
			if err == nil {
				begin()
			}
			return err
		}
	}
	ended, err := source.Observe(ctx, watch, func(p cluster.Progress) { s.progress.update("%s", progressLine(p, watch.Quiet)) })
	if err != nil {
		return nil, advised(err)
	}
	if watch.Quiet > 0 {
		s.progress.say("%s", endLine(ended, watch))
	}
	s.observed = observed(ended, s.restarted)
	s.progress.say("pulling what was observed")
	result, err := source.Pull(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range result.Nodes {
		s.progress.say("warning: %s", n.Error())
	}
	s.topology = result.Topology
	return result.Profiles, nil
}

// advised adds to an error of the cluster what the user can do.
func advised(err error) error {
	switch {
	case errors.Is(err, cluster.ErrNoNamespace):
		return hinted(err, "name one with -n; 'kubectl get namespaces' lists them")
	case errors.Is(err, cluster.ErrNoPods):
		return hinted(err, "policies are learned from pods that run: start the workloads, or name another namespace with -n")
	case errors.Is(err, cluster.ErrRemoved):
		return hinted(err, "nothing was committed; run it again when nobody else observes")
	}
	return err
}

// remove takes the collector away, with time of its own where the command was
// interrupted.
func (s *setup) remove(ctx context.Context, source *cluster.Source) error {
	if ctx.Err() != nil {
		s.progress.say("interrupted: removing the collector")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	if _, err := source.Remove(ctx); err != nil {
		return hinted(fmt.Errorf("remove the collector: %w", err), "run 'kubectl autopolicy uninstall'")
	}
	s.progress.say("collector removed")
	return nil
}

// readyLine says on how many nodes the collector works, and what holds up the
// others.
func readyLine(nodes []cluster.NodeState) string {
	ready, all := 0, 0
	var waiting []string
	for _, n := range nodes {
		switch {
		case n.Node == "":
			waiting = append(waiting, n.Reason)
			continue
		case n.Ready:
			ready++
		default:
			waiting = append(waiting, n.Node+": "+n.Reason)
		}
		all++
	}
	text := "waiting for the collector"
	if all > 0 {
		text += fmt.Sprintf(": ready on %d of %s", ready, number(all, "node"))
	}
	if len(waiting) > 0 {
		text += " (" + strings.Join(waiting, "; ") + ")"
	}
	return text
}

// progressLine says how an observation is going; quiet is what it waits for, if it
// does.
func progressLine(p cluster.Progress, quiet time.Duration) string {
	text := fmt.Sprintf("%s left, %s on %s, %s, ", p.Left.Round(time.Second), number(p.Pods, "pod"), number(p.Nodes, "node"), number(p.Facts, "fact"))
	if quiet > 0 {
		text += fmt.Sprintf("%d new a minute, nothing new for %s of %s", p.PerMinute, p.Silence.Truncate(time.Second), quiet)
		if n := len(p.Unseen); n > 0 {
			text += ", not observed yet: " + strings.Join(p.Unseen[:min(n, 3)], ", ")
			if n > 3 {
				text += fmt.Sprintf(" and %d more", n-3)
			}
		}
	} else {
		text += fmt.Sprintf("%d new in the last 10 s", p.NewFacts)
	}
	var silent []string
	for _, f := range p.Failing {
		silent = append(silent, f.Node)
	}
	if len(silent) > 0 {
		text += ", no answer from " + strings.Join(silent, ", ")
	}
	return text + fmt.Sprintf(", %d lost", p.Lost)
}

// observation is how an observation went, in the form that programs read.
type observation struct {
	Seconds int    `json:"seconds"` // without a restart before it
	Ended   string `json:"ended"`   // by what: time, or quiet when nothing new came for as long as was asked
	// QuietSeconds passed between the last new fact and the end, Last did it.
	QuietSeconds int             `json:"quietSeconds"`
	Last         string          `json:"lastNew,omitempty"` // workload and container
	Restarted    []restartReport `json:"restarted,omitempty"`
}

// restartReport is what became of a workload that was restarted.
type restartReport struct {
	Workload string   `json:"workload"`
	Done     bool     `json:"done"`
	Waits    string   `json:"waitsFor,omitempty"`
	NotReady []string `json:"notReady,omitempty"` // pods, with why
}

func observed(e cluster.Ended, restarted []cluster.RolloutState) *observation {
	o := &observation{Seconds: int(e.Took.Round(time.Second) / time.Second), Ended: "time", QuietSeconds: int(e.Silence / time.Second)}
	if e.Quiet {
		o.Ended = "quiet"
	}
	if e.Last.Workload.Name != "" {
		o.Last = e.Last.Workload.String() + "/" + e.Last.Container
	}
	for _, r := range restarted {
		o.Restarted = append(o.Restarted, restartReport{r.Workload.String(), r.Done, r.Waits, r.NotReady})
	}
	return o
}

// endLine says what ended an observation that was to last until nothing new came.
func endLine(e cluster.Ended, w cluster.Watch) string {
	took := e.Took.Round(time.Second)
	if e.Quiet {
		return fmt.Sprintf("observed for %s: nothing new for %s", took, w.Quiet)
	}
	text := fmt.Sprintf("observed for %s, which is the longest, without %s of nothing new", took, w.Quiet)
	if e.Last.Workload.Name != "" {
		text += fmt.Sprintf(": the last new fact came %s before the end, from %s/%s", e.Silence.Round(time.Second), e.Last.Workload, e.Last.Container)
	}
	return text
}

// printObjects prints what would be deployed, as YAML.
func (a *app) printObjects(s *setup) error {
	options, err := s.options()
	if err != nil {
		return err
	}
	objects, err := cluster.Objects(options)
	if err != nil {
		return err
	}
	text, err := cluster.YAML(objects)
	if err == nil {
		_, err = a.Out.Write(text)
	}
	return err
}
