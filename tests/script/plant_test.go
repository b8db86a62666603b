package script

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

const namespace = "shop"

// plant commits to a repository what a run on a cluster would have: "discover"
// learns the shop, "attack" learns it while it is attacked, "hostile" learns a workload whose names attack whoever shows
// them, and "deny" promotes the shop.
func plant(ctx context.Context, dir, step string) (err error) {
	repository, err := gitops.Open(ctx, gitops.Options{URL: dir, Author: gitops.Signature{Name: "Jane Doe", Email: "jane@example.com"}})
	if err != nil {
		return err
	}
	defer repository.Close()
	folder := path.Join("autopolicy", namespace)
	tree, base, err := repository.Read(ctx, folder)
	if err != nil {
		return err
	}
	now := noon.Add(time.Hour)
	in := rollout.Input{
		Namespace: namespace, Tree: overlay.Tree(tree), Fresh: shop(), Now: now, By: "Jane Doe",
		Engines: []engine.Engine{kubearmor.Engine{}, cilium.New(cilium.Options{}), netpol.New(), seccomp.Engine{}},
		Learn: func(p []behavior.Profile, d policy.Decided) (policy.Set, error) {
			return learn.Rules(p, learn.Options{Entered: true, Decided: d})
		},
	}
	var plan rollout.Plan
	switch step {
	case "discover":
		plan, err = rollout.Discover(in, rollout.DiscoverOptions{})
	case "attack":
		in.Fresh.Add(profile("web", shelled()...))
		plan, err = rollout.Discover(in, rollout.DiscoverOptions{})
	case "hostile":
		in.Fresh = behavior.Profiles{}
		in.Fresh.Add(hostile())
		plan, err = rollout.Discover(in, rollout.DiscoverOptions{})
	case "observed":
		in.Fresh = behavior.Profiles{}
		in.Fresh.Add(observed())
		plan, err = rollout.Discover(in, rollout.DiscoverOptions{})
	case "kafka":
		in.Fresh = behavior.Profiles{}
		in.Fresh.Add(producer())
		plan, err = rollout.Discover(in, rollout.DiscoverOptions{})
	case "deny":
		plan, _, err = rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-api", "deployment-web"}})
	default:
		err = fmt.Errorf("no such step")
	}
	if err != nil {
		return err
	}
	_, err = repository.Commit(ctx, gitops.Change{Dir: folder, Base: base, Files: plan.Files, Message: plan.Message, When: now}, nil)
	return err
}

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

// shop is a web service that calls an API.
func shop() behavior.Profiles {
	network := func(exe string, d behavior.Direction, peer string) behavior.Fact {
		return behavior.Fact{Kind: behavior.Network, Exe: exe, Direction: d, Protocol: "tcp", Port: 8080,
			Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: namespace, Workload: "deployment-" + peer, Labels: "app=" + peer}}
	}
	ps := behavior.Profiles{}
	ps.Add(profile("web", network("/usr/bin/web", behavior.Egress, "api")))
	ps.Add(profile("api", network("/usr/bin/api", behavior.Ingress, "web"),
		behavior.Fact{Kind: behavior.Network, Exe: "/usr/bin/api", Direction: behavior.Listen, Protocol: "tcp", Port: 8080}))
	return ps
}

// shelled is the web service while somebody has it run a shell.
func shelled() []behavior.Fact {
	return []behavior.Fact{
		{Kind: behavior.Network, Exe: "/usr/bin/web", Direction: behavior.Listen, Protocol: "tcp", Port: 80},
		{Kind: behavior.Process, Parent: "/usr/bin/web", Path: "/usr/bin/dash"},
		{Kind: behavior.Process, Parent: "/usr/bin/dash", Path: "/usr/bin/id"},
		{Kind: behavior.File, Exe: "/usr/bin/id", Path: "/etc/passwd", Access: behavior.Read},
	}
}

// hostileNames are names that a pod may give its files: they end lines and
// fields, move a cursor, are no text at all, or are as long as a path can be.
func hostileNames() []string {
	return []string{
		"line\nnamespace: kube-system", "carriage\rreturn", "tab\tstop", `quote"'` + "`", `back\slash\n`, "escape\x1b[2J\x1b]0;owned\a",
		"c1\u009b2J", "bidi\u202etxt.exe", "zero\u200bwidth", "invalid\xff\xfe\xc3(", "- &anchor", "*alias", "{{ .Values }}", "$(id)", "# comment",
		"delete\x7f", "document\n---\nkind: Secret", strings.Repeat("long/", 800),
	}
}

func hostile() behavior.Profile {
	var facts []behavior.Fact
	for _, name := range hostileNames() {
		p := behavior.Escape("/data/" + strings.TrimSuffix(name, "/"))
		facts = append(facts,
			behavior.Fact{Kind: behavior.File, Exe: "/usr/bin/mean", Path: p, Access: behavior.Read},
			behavior.Fact{Kind: behavior.Process, Parent: "/usr/bin/mean", Path: p},
			behavior.Fact{Kind: behavior.Network, Exe: p, Direction: behavior.Egress, Protocol: "tcp", Port: 443,
				Peer: behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("192.0.2.10")}})
	}
	return profile("mean", facts...)
}

// profile is what a dynamic executable does when it starts, and more, seen in the
// one pod of a deployment from its start on.
func profile(name string, more ...behavior.Fact) behavior.Profile {
	exe, pod := "/usr/bin/"+name, name+"-1"
	p := behavior.Profile{
		Subject: behavior.Subject{Workload: behavior.Workload{Namespace: namespace, Kind: "Deployment", Name: name}, Container: name},
		Labels:  "app=" + name,
		Coverage: behavior.Coverage{Replicas: 1, Pods: map[string]behavior.PodCoverage{
			pod: {Node: "node-1", Image: name + "@sha256:1", From: noon, To: noon.Add(time.Minute), Start: true},
		}},
	}
	reads := func(path string) behavior.Fact {
		return behavior.Fact{Kind: behavior.File, Exe: exe, Path: path, Access: behavior.Read}
	}
	facts := []behavior.Fact{
		{Kind: behavior.Process, Path: exe},
		reads(exe), reads("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), reads("/usr/lib/x86_64-linux-gnu/libc.so.6"), reads("/etc/" + name + ".conf"),
		{Kind: behavior.Syscall, Name: "execve", Arch: "amd64"}, {Kind: behavior.Syscall, Name: "exit_group", Arch: "amd64"},
	}
	for _, f := range append(facts, more...) {
		p.Add(f, behavior.Evidence{First: noon, Last: noon.Add(time.Minute), Pods: map[string]uint64{pod: 3}})
	}
	return p
}

// observed is a workload whose coverage has something of all that there is.
func observed() behavior.Profile {
	p := profile("cart")
	p.Coverage.Replicas = 3
	p.Coverage.Pods["cart-2"] = behavior.PodCoverage{Node: "node-2", Image: "cart@sha256:1", From: noon, To: noon.Add(10 * time.Minute),
		Ready: true, Steady: true, Terminated: true, Restarts: 2}
	p.Coverage.Lost = map[string]uint64{"node-1: file: map full": 3, "node-1: " + behavior.UnattributedReason: 4, "cart-2: limit of facts": 0}
	p.Coverage.LostAt = map[string]behavior.Span{"node-1: file: map full": {First: noon.Add(time.Minute), Last: noon.Add(2 * time.Minute)}}
	p.Coverage.Gaps = []string{"node node-2: not observed after 2026-05-04T12:09:00Z: gone"}
	p.Coverage.Hooks = map[behavior.Kind][]string{behavior.File: {"fentry", "tracepoint"}, behavior.Network: {"tracepoint"}}
	p.Coverage.Maps = map[string]behavior.MapUse{"node-1: files": {High: 16384, Size: 65536}}
	p.Coverage.Mounts = map[string]behavior.Mount{"/data": {Volume: "data", Kind: "emptyDir"}}
	for i := range 5 {
		at := noon.Add(time.Duration(i*i) * 30 * time.Second)
		p.Add(behavior.Fact{Kind: behavior.File, Exe: "/usr/bin/cart", Path: fmt.Sprintf("/data/%d", i), Access: behavior.Read},
			behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{"cart-2": 1}, Snapshot: i == 0})
	}
	return p
}

// producer is a workload that speaks to Kafka, as Hubble would have told.
func producer() behavior.Profile {
	asked := func(api, topic, group string) behavior.Fact {
		return behavior.Fact{Kind: behavior.Kafka, Direction: behavior.Egress, Protocol: "tcp", Port: 9092, Name: topic, Type: api, Target: "orders-1", Arguments: group,
			Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "kafka", Workload: "statefulset-broker", Labels: "app=broker"}}
	}
	return profile("orders", asked("produce", "orders", ""), asked("fetch", "payments", ""), asked("join-group", "", "billing; rm -rf /"))
}
