package rollout_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

func noted(plan rollout.Plan, text string) bool {
	return slices.ContainsFunc(plan.Notes, func(n rollout.Note) bool { return strings.Contains(n.Text, text) })
}

// The API never saw the web service come, since nobody watched its node: its
// policies refuse what the web service was seen to do.
func TestConnectionsMustPassAtBothEnds(t *testing.T) {
	web, api := shopProfiles()
	blind := api
	blind.Facts = api.Facts.Filter(func(f behavior.Fact) bool { return f.Direction != behavior.Ingress })
	blind.Add(behavior.Fact{Kind: behavior.Network, Exe: "/usr/bin/api", Direction: behavior.Ingress, Protocol: "tcp", Port: 9100,
		Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-probe", Labels: "app=probe"}},
		behavior.Evidence{Pods: map[string]uint64{"api-1": 1}})
	plan, err := rollout.Discover(realInput(nil, web, blind), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	torn := "deployment/web connects to deployment/api on tcp/8080, and CiliumNetworkPolicy/autopolicy-deployment-api of deployment/api refuses it"
	if !noted(plan, torn) || !noted(plan, "and NetworkPolicy/autopolicy-deployment-api of deployment/api refuses it") {
		t.Errorf("notes are %v", plan.Notes)
	}
	audited := overlay.Tree{}.With(plan.Files)
	_, v, err := rollout.Promote(realInput(audited, web, blind), rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-api"}})
	var notYet *rollout.NotYetError
	if !errors.As(err, &notYet) || len(v.Violations) > 0 || !slices.ContainsFunc(notYet.Reasons, func(r string) bool { return strings.HasPrefix(r, torn) }) {
		t.Errorf("got %v with %v", err, notYet)
	}
	// The client alone may begin: nothing of the server's stands in its way.
	if _, _, err := rollout.Promote(realInput(audited, web, blind), rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-web"}}); err != nil {
		t.Errorf("the client alone: %v", err)
	}

	whole, err := rollout.Discover(realInput(nil, web, api), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if noted(whole, "refuses it") {
		t.Errorf("both ends were seen, and notes are %v", whole.Notes)
	}
}

func TestLabelsAreCheckedAgainstTheCluster(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	type object = map[string]any
	put := func(c *topology.Cluster, kind string, o object) {
		data, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Add(kind, data, at); err != nil {
			t.Fatal(err)
		}
	}
	pod := func(c *topology.Cluster, name, app string, host bool) {
		put(c, "Pod", object{"metadata": object{"namespace": "shop", "name": name, "labels": object{"app": app},
			"ownerReferences": []object{{"kind": "Deployment", "name": strings.TrimSuffix(name, "-1"), "controller": true}}},
			"spec":   object{"hostNetwork": host, "containers": []object{{"name": "c"}}},
			"status": object{"phase": "Running", "podIP": "10.1.0." + string('0'+name[0]%10)}})
	}
	web, api := shopProfiles()
	for name, tc := range map[string]struct {
		make func(*topology.Cluster)
		want []string
	}{
		"each label selects its own": {func(c *topology.Cluster) { pod(c, "web-1", "web", false); pod(c, "api-1", "api", false) }, nil},
		"a stranger carries them, too": {func(c *topology.Cluster) {
			pod(c, "web-1", "web", false)
			pod(c, "api-1", "api", false)
			pod(c, "stranger-1", "api", false)
		}, []string{"its labels app=api also select pods of deployment/stranger", "the labels app=api of its peer shop/deployment-api also select pods of deployment/stranger"}},
		"nobody carries them": {func(c *topology.Cluster) { pod(c, "api-1", "api", false) },
			[]string{"its labels app=web select no pod that is there now", "the labels app=web of its peer shop/deployment-web select no pod"}},
		"the node's network": {func(c *topology.Cluster) { pod(c, "web-1", "web", true); pod(c, "api-1", "api", false) },
			[]string{"its pods are on their nodes' network"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := realInput(nil, web, api)
			in.Topology = topology.New()
			tc.make(in.Topology)
			plan, err := rollout.Discover(in, rollout.DiscoverOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tc.want {
				if !noted(plan, text) {
					t.Errorf("no note says %q: %v", text, plan.Notes)
				}
			}
			if tc.want == nil && (noted(plan, "select pods") || noted(plan, "select no pod")) {
				t.Errorf("notes are %v", plan.Notes)
			}
		})
	}
}
