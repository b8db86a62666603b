package rollout_test

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/cilium"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func realInput(t overlay.Tree, list ...behavior.Profile) rollout.Input {
	in := input(t, list...)
	in.Engines = []engine.Engine{kubearmor.Engine{}, cilium.New(cilium.Options{}), netpol.New(), seccomp.Engine{}}
	return in
}

// shopProfiles are a web service that calls an API, both with what a dynamic
// executable does when it starts.
func shopProfiles() (web, api behavior.Profile) {
	start := func(exe string) []behavior.Fact {
		return []behavior.Fact{
			reads(exe, exe), reads(exe, "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"), reads(exe, "/usr/lib/x86_64-linux-gnu/libc.so.6"),
			{Kind: behavior.File, Exe: exe, Path: "/var/log/app.log", Access: behavior.Write | behavior.Create},
			{Kind: behavior.Syscall, Name: "execve", Arch: "amd64"}, {Kind: behavior.Syscall, Name: "exit_group", Arch: "amd64"},
			{Kind: behavior.Capability, Exe: exe, Name: "NET_BIND_SERVICE", Syscall: "bind"},
			{Kind: behavior.Capability, Exe: exe, Name: "SYS_ADMIN", Syscall: "mount", Refused: true},
		}
	}
	network := func(exe string, d behavior.Direction, port uint16, peer string) behavior.Fact {
		return behavior.Fact{Kind: behavior.Network, Exe: exe, Direction: d, Protocol: "tcp", Port: port,
			Peer: behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-" + peer, Labels: "app=" + peer}}
	}
	web = profile("web", append(start("/usr/bin/web"), network("/usr/bin/web", behavior.Egress, 8080, "api"))...)
	api = profile("api", append(start("/usr/bin/api"), network("/usr/bin/api", behavior.Ingress, 8080, "web"),
		behavior.Fact{Kind: behavior.Network, Exe: "/usr/bin/api", Direction: behavior.Listen, Protocol: "tcp", Port: 8080})...)
	return web, api
}

func TestWithTheRealEngines(t *testing.T) {
	web, api := shopProfiles()
	plan, err := rollout.Discover(realInput(nil, web, api), rollout.DiscoverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	audited := overlay.Tree{}.With(plan.Files)
	for _, n := range plan.Notes {
		if strings.Contains(n.Text, "would deny") {
			t.Errorf("%s: %s %s", n.Workload, n.Engine, n.Text)
		}
	}
	for _, s := range plan.Summary {
		for _, name := range []string{"kubearmor", "cilium", "networkpolicy", "seccomp"} {
			if s.Rules[name] == 0 {
				t.Errorf("%s: %s enforces nothing", s.Workload, name)
			}
		}
	}
	if again, err := rollout.Discover(realInput(audited, web, api), rollout.DiscoverOptions{}); err != nil || !again.Empty() {
		t.Fatalf("a second discover gives %v, %q", err, slices.Sorted(maps.Keys(again.Files)))
	}

	t.Run("nothing is denied in audit", func(t *testing.T) {
		attacked, _ := shopProfiles()
		for _, f := range attacks() {
			attacked.Add(f, behavior.Evidence{Pods: map[string]uint64{"web-1": 1}})
		}
		// One workload goes to deny, and the other one, in audit, is attacked.
		if _, v, err := rollout.Promote(realInput(audited, attacked, api), rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-api"}}); err != nil {
			t.Errorf("got %v: %v", err, v.Violations)
		}
	})
	t.Run("every attack is a violation in deny", func(t *testing.T) {
		for _, f := range attacks() {
			attacked, _ := shopProfiles()
			attacked.Add(f, behavior.Evidence{Pods: map[string]uint64{"web-1": 1}})
			_, _, err := rollout.Promote(realInput(audited, attacked, api), rollout.PromoteOptions{To: policy.Deny})
			var notYet *rollout.NotYetError
			undecided := func(reason string) bool { return strings.Contains(reason, "undecided") }
			if !errors.As(err, &notYet) || len(slices.DeleteFunc(notYet.Reasons, undecided)) > 0 {
				t.Fatalf("%s: got %v", f, err)
			}
			for _, v := range notYet.Violations {
				if v.Fact != f {
					t.Errorf("%s: also found %s", f, v)
				}
			}
		}
	})
	t.Run("people's own policies are judged with ours", func(t *testing.T) {
		mine := audited.With(map[string][]byte{
			"custom/mine.yaml": []byte("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: mine, namespace: shop}\n" +
				"spec:\n  endpointSelector: {matchLabels: {app: web}}\n  egressDeny:\n  - toEndpoints:\n    - matchLabels: {app: api}\n"),
			"kustomization.yaml": append(slices.Clone(audited["kustomization.yaml"]), "- custom/mine.yaml\n"...),
		})
		_, _, err := rollout.Promote(realInput(mine, web, api), rollout.PromoteOptions{To: policy.Deny})
		var notYet *rollout.NotYetError
		if !errors.As(err, &notYet) || len(notYet.Violations) == 0 {
			t.Fatalf("got %v", err)
		}
		for _, v := range notYet.Violations {
			if v.Engine != "cilium" || !strings.HasSuffix(v.Object, "/mine") || v.Fact.Peer.Workload != "deployment-api" {
				t.Errorf("violation is %s", v)
			}
		}
	})
	t.Run("clean traffic is promoted, and rolled back to the same bytes", func(t *testing.T) {
		plan, verdicts, err := rollout.Promote(realInput(audited, web, api), rollout.PromoteOptions{To: policy.Deny})
		if err != nil {
			t.Fatalf("%v: %v", err, verdicts.Violations)
		}
		if got := slices.Sorted(maps.Keys(plan.Files)); !slices.Equal(got, []string{"kustomization.yaml", "namespace.yaml", "rollout.yaml"}) {
			t.Errorf("promotion touches %q", got)
		}
		denied := audited.With(plan.Files)
		back, err := rollout.Rollback(realInput(denied), history(audited, denied))
		if err != nil {
			t.Fatal(err)
		}
		mustEqual(t, denied.With(back.Files), audited)
	})
	t.Run("every rule is explained by an object", func(t *testing.T) {
		x, err := rollout.Explain(realInput(audited), "deployment-web")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range x.Rules {
			if len(r.Objects) == 0 || r.Facts.Len() == 0 {
				t.Errorf("%s stands on nothing", r)
			}
			for name, v := range r.Objects {
				if v.Decision != engine.Allowed {
					t.Errorf("%s: %s by %s: %s", r, v.Decision, name, v.Reason)
				}
			}
		}
	})
}

func attacks() []behavior.Fact {
	return []behavior.Fact{
		{Kind: behavior.Process, Exe: "/usr/bin/web", Parent: "/usr/bin/web", Path: "/usr/bin/dash"},
		reads("/usr/bin/web", "/etc/shadow"),
		{Kind: behavior.Network, Exe: "/usr/bin/web", Direction: behavior.Egress, Protocol: "tcp", Port: 4444,
			Peer: behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("198.51.100.7")}},
		{Kind: behavior.Syscall, Name: "mount", Arch: "amd64"},
	}
}

// The postures that the overlay writes are those that the engine reads.
func TestPosturesAreKubeArmors(t *testing.T) {
	for stage, posture := range map[policy.Stage]overlay.Posture{policy.Audit: overlay.PostureAudit, policy.Deny: overlay.PostureBlock} {
		data, err := overlay.Namespace(nil, "shop", posture)
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range kubearmor.Annotations(stage) {
			if !strings.Contains(string(data), "    "+key+": "+value+"\n") {
				t.Errorf("stage %s lacks %s: %s in\n%s", stage, key, value, data)
			}
		}
		if got := strings.Count(string(data), "-posture: "+string(posture)); got != len(kubearmor.Annotations(stage)) {
			t.Errorf("stage %s sets %d postures", stage, got)
		}
	}
}
