package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/cluster"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/file"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/hubble"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// Names of the sources that --source takes.
const (
	bySelf      = "collector"
	byHubble    = "hubble"
	byKubeArmor = "kubearmor"
)

// sourceFlags say where profiles come from.
type sourceFlags struct {
	name    string
	from    []string
	servers map[string]*string // addresses, by source
	tls     source.TLS
}

func (f *sourceFlags) add(flags *pflag.FlagSet) {
	f.servers = map[string]*string{byHubble: new(string), byKubeArmor: new(string)}
	flags.StringVar(&f.name, "source", bySelf, "who observes: collector, or a hubble or kubearmor that the cluster has")
	flags.StringArrayVar(&f.from, "from", nil, "file of what others observed, or - for standard input, in place of a cluster; repeat it for more: Hubble's flows, KubeArmor's logs, profiles, and the cluster's objects")
	flags.StringVar(f.servers[byHubble], "hubble-server", "", "address of a Hubble relay or server, host:port or unix:///path (default the relay of the cluster, by port-forward)")
	flags.StringVar(f.servers[byKubeArmor], "kubearmor-server", "", "address of a KubeArmor relay, host:port (default the relay of the cluster, by port-forward)")
	flags.BoolVar(&f.tls.On, "tls", false, "speak TLS with the relay; the flags below imply it")
	flags.StringSliceVar(&f.tls.CAs, "tls-ca-cert-files", nil, "authorities to trust the relay by (default the system's)")
	flags.StringVar(&f.tls.Cert, "tls-client-cert-file", "", "client certificate for the relay")
	flags.StringVar(&f.tls.Key, "tls-client-key-file", "", "key of the client certificate")
	flags.StringVar(&f.tls.ServerName, "tls-relay-name", "", "name to expect in the relay's certificate, such as instance.hubble-relay.cilium.io")
}

// validate refuses what a source cannot do. Flags may have any others that observe.
func (f *sourceFlags) validate(flags *pflag.FlagSet) error {
	if !slices.Contains([]string{bySelf, byHubble, byKubeArmor}, f.name) {
		return fmt.Errorf("--source %s: want %s, %s or %s", f.name, bySelf, byHubble, byKubeArmor)
	}
	given := func(name string) bool { flag := flags.Lookup(name); return flag != nil && flag.Changed }
	refuse := func(format string, names ...string) error {
		for _, name := range names {
			if given(name) {
				return fmt.Errorf(format, name)
			}
		}
		return nil
	}
	relay := []string{"tls", "tls-ca-cert-files", "tls-client-cert-file", "tls-client-key-file", "tls-relay-name"}
	collector := []string{"restart", "print-only", "collector-image", "collector-wait", "collector-grace"}
	switch {
	case len(f.from) > 0:
		return refuse("--from reads files, and --%s is about a cluster: give one of them",
			slices.Concat([]string{"source", "duration", "until-stable", "hubble-server", "kubearmor-server"}, relay, collector)...)
	case f.name == bySelf:
		return refuse("--%s is about a relay: give --source hubble or --source kubearmor with it", slices.Concat([]string{"hubble-server", "kubearmor-server"}, relay)...)
	case f.name == byHubble:
		return refuse("--%s is not about --source hubble", append(collector, "kubearmor-server")...)
	}
	return refuse("--%s is not about --source kubearmor", append(collector, "hubble-server")...)
}

// fromFiles takes what others observed and wrote down.
func (a *app) fromFiles(ctx context.Context, s *setup) (behavior.Profiles, error) {
	s.progress.say("reading %s", number(len(s.observer.source.from), "file"))
	result, err := file.New(file.Options{Namespace: s.namespace, Files: s.observer.source.from, Stdin: a.In, Now: a.now}).Pull(ctx)
	var line *file.LineError
	switch {
	case errors.Is(err, file.ErrNoObjects):
		return nil, hinted(err, "add what 'kubectl get pods,services,endpointslices,nodes,replicasets,deployments,statefulsets,daemonsets,jobs,cronjobs -A -o json' prints as one more --from")
	case errors.As(err, &line):
		return nil, hinted(err, "what is read: 'hubble observe -o jsonpb', 'karmor logs --json', evidence.yaml of a repository, 'kubectl get -o json' or '-o yaml'")
	case err != nil:
		return nil, err
	}
	s.tell(result)
	s.topology = result.Topology
	return result.Profiles, nil
}

// relayOf says where a relay usually runs, as their own installers have it.
func relayOf(name string) cluster.Relay {
	if name == byHubble {
		return cluster.Relay{Namespaces: []string{"kube-system", "cilium", "cilium-system"}, Selector: "k8s-app=hubble-relay", Port: 4245}
	}
	return cluster.Relay{Namespaces: []string{"kubearmor", "kube-system"}, Selector: "kubearmor-app=kubearmor-relay", Port: 32767}
}

// history is how far back a discover asks Hubble for what it still has. A promotion
// judges what happens, not what happened before the last correction.
const history = time.Hour

// relayed takes what a relay of the cluster tells.
func (a *app) relayed(ctx context.Context, s *setup) (behavior.Profiles, error) {
	flags := s.observer.source
	config, err := a.restConfig()
	if err != nil {
		return nil, err
	}
	security, err := flags.tls.Config()
	if err != nil {
		return nil, err
	}
	view, err := cluster.NewView(config, a.now)
	if err != nil {
		return nil, err
	}
	address := *flags.servers[flags.name]
	var dial func(context.Context) (net.Conn, error)
	if address == "" {
		dial = func(ctx context.Context) (net.Conn, error) { return view.Dial(ctx, relayOf(flags.name)) }
		if _, err := view.Probe(ctx, relayOf(flags.name)); err != nil {
			return nil, hinted(err, "name its address with --"+flags.name+"-server, or observe with --source "+bySelf)
		}
		if security != nil && security.ServerName == "" && flags.name == byHubble {
			security.ServerName = "instance.hubble-relay.cilium.io" // which its certificate is for
		}
	}
	connect := source.Connector(address, dial, security)
	var stream interface {
		source.Stream
		Result(*topology.Cluster) source.Result
	}
	if flags.name == byHubble {
		since := time.Duration(0)
		if s.history {
			since = history
		}
		h := hubble.New(hubble.Options{Connect: connect, Namespace: s.namespace, History: since, Now: a.now})
		version, nodes, err := h.Check(ctx)
		if err != nil {
			return nil, hinted(err, "a relay with TLS needs --tls, and usually --tls-ca-cert-files; one that asks for a client certificate --tls-client-cert-file and --tls-client-key-file")
		}
		s.progress.say("Hubble %s speaks for %s", version, number(nodes, "node"))
		stream = h
	} else {
		k := kubearmor.New(kubearmor.Options{Connect: connect, Namespace: s.namespace, Now: a.now})
		if err := k.Check(ctx); err != nil {
			return nil, hinted(err, "a relay with TLS needs --tls-ca-cert-files, --tls-client-cert-file and --tls-client-key-file")
		}
		stream = k
	}
	if err := view.Begin(ctx); err != nil {
		return nil, err
	}
	watch := source.Watch{Most: s.observer.duration, Quiet: s.observer.stable}
	s.progress.say("observing by %s for %s", flags.name, watch.Most)
	ended, err := source.Follow(ctx, watch, a.now, stream, func(p source.Progress) { s.progress.update("%s", streamLine(p)) })
	known, listed := view.End(context.WithoutCancel(ctx))
	if err := errors.Join(err, listed); err != nil {
		return nil, err
	}
	s.observed = &observation{Seconds: int(ended.Took.Seconds()), Ended: "time", QuietSeconds: int(ended.Silence.Seconds())}
	if ended.Quiet {
		s.observed.Ended = "quiet"
	}
	result := stream.Result(known)
	s.tell(result)
	return result.Profiles, nil
}

// streamLine says how an observation by a relay is going.
func streamLine(p source.Progress) string {
	text := fmt.Sprintf("%s left, %d events, %s, nothing new for %s, %d lost", p.Left.Round(time.Second), p.Events, number(p.Facts, "fact"), p.Silence.Truncate(time.Second), p.Lost)
	if p.Broken != nil {
		text += ", not connected: " + printable(p.Broken.Error())
	}
	return text
}

// tell says what a source has to say besides its profiles.
func (s *setup) tell(r source.Result) {
	for _, n := range r.Nodes {
		s.progress.say("warning: %s", n.Error())
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Passed)) {
		s.progress.say("passed over: %d %s", r.Passed[reason], reason)
	}
	var denied, audited []string
	for _, d := range r.Denials {
		text := fmt.Sprintf("%s/%s: %s", d.Subject.Workload, d.Subject.Container, d.Fact)
		if d.Policy != "" {
			text += " (by policy " + d.Policy + ")"
		}
		if d.Audited {
			audited = append(audited, text)
		} else {
			denied = append(denied, text)
		}
	}
	for _, list := range []struct {
		what  string
		texts []string
	}{{"denied by policies, and not learned", denied}, {"let through by policies that only audit", audited}} {
		const most = 5
		if len(list.texts) == 0 {
			continue
		}
		text := strings.Join(list.texts[:min(most, len(list.texts))], "; ")
		if more := len(list.texts) - most; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		s.progress.say("%s: %s", list.what, text)
	}
}
