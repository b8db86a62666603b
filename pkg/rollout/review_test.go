package rollout_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// attacked is the web service while somebody has it run a shell.
func attacked() behavior.Profile {
	return profile("web", listening,
		behavior.Fact{Kind: behavior.Process, Parent: "/usr/bin/web", Path: "/usr/bin/dash"},
		behavior.Fact{Kind: behavior.Process, Parent: "/usr/bin/dash", Path: "/usr/bin/id"},
		reads("/usr/bin/id", "/etc/passwd"))
}

var listening = behavior.Fact{Kind: behavior.Network, Exe: "/usr/bin/web", Direction: behavior.Listen, Protocol: "tcp", Port: 8080}

func proposals(t *testing.T, in rollout.Input) []rollout.Proposal {
	t.Helper()
	list, _, err := rollout.Proposals(in)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func review(t *testing.T, in rollout.Input, list ...rollout.Decision) overlay.Tree {
	t.Helper()
	plan, err := rollout.Review(in, list)
	if err != nil {
		t.Fatal(err)
	}
	return in.Tree.With(plan.Files)
}

const webPolicy = "workloads/deployment-web/base/kubearmor.yaml"

func TestWhatIsSuspiciousWaitsForSomebody(t *testing.T) {
	tree := discover(t, nil, attacked())
	if text := string(tree[webPolicy]); strings.Contains(text, "dash") || strings.Contains(text, "passwd") {
		t.Fatalf("learned unread:\n%s", text)
	}
	list := proposals(t, input(tree))
	if len(list) != 1 || list[0].Class != "shell" || len(list[0].With) != 2 {
		t.Fatalf("proposals: %+v", list)
	}
	calm := profile("web", listening)
	refused := func(tree overlay.Tree, fresh behavior.Profile) string {
		_, _, err := rollout.Promote(input(tree, fresh), rollout.PromoteOptions{To: policy.Deny})
		var notYet *rollout.NotYetError
		if err != nil && !errors.As(err, &notYet) {
			t.Fatal(err)
		}
		if notYet == nil {
			return ""
		}
		return fmt.Sprint(notYet.Reasons, notYet.Violations)
	}
	if why := refused(tree, calm); !strings.Contains(why, "shell, undecided") || !strings.Contains(why, "kubectl autopolicy review -n shop deployment/web") {
		t.Errorf("undecided: %q", why)
	}
	postponed := review(t, input(tree), list[0].Decide(policy.Postponed))
	if why := refused(postponed, calm); !strings.Contains(why, "shell, postponed") {
		t.Errorf("postponed: %q", why)
	}
	declined := review(t, input(tree), list[0].Decide(policy.Declined))
	if text := string(declined[webPolicy]); strings.Contains(text, "dash") || strings.Contains(text, "passwd") {
		t.Errorf("declined and learned:\n%s", text)
	}
	if why := refused(declined, attacked()); why != "" {
		t.Errorf("declined, and seen again: %s", why)
	}
	accepted := review(t, input(tree), list[0].Decide(policy.Accepted))
	if text := string(accepted[webPolicy]); !strings.Contains(text, "dash") || !strings.Contains(text, "/usr/bin/id reads /etc/passwd") {
		t.Errorf("accepted and not learned:\n%s", text)
	}
	if why := refused(accepted, attacked()); why != "" {
		t.Errorf("accepted: %s", why)
	}
	// Discover carries on where a review left off.
	for name, tree := range map[string]overlay.Tree{"declined": declined, "accepted": accepted, "postponed": postponed} {
		if again := discover(t, tree, attacked()); string(again[webPolicy]) != string(tree[webPolicy]) {
			t.Errorf("%s: discover made of it\n%s", name, again[webPolicy])
		}
	}
}

func TestWhatIsInDenyLearnsWhatWasAccepted(t *testing.T) {
	calm := profile("web", listening)
	tree := promote(t, input(discover(t, nil, calm), calm))
	backup, other := reads("/usr/bin/web", "/srv/backup"), reads("/usr/bin/web", "/srv/other")
	in := input(tree, profile("web", listening, backup, other))
	list := proposals(t, in)
	if len(list) != 2 || list[0].Class != rollout.ClassNew || list[0].Stage != policy.Deny {
		t.Fatalf("proposals: %+v", list)
	}
	after := review(t, in, list[0].Decide(policy.Accepted))
	if text := string(after[webPolicy]); !strings.Contains(text, "/srv/backup") || strings.Contains(text, "/srv/other") {
		t.Errorf("accepted the one, and the policy is\n%s", text)
	}
	if left := proposals(t, input(after, profile("web", listening, backup, other))); len(left) != 1 || left[0].Allows[0] != "read /srv/other, by /usr/bin/web" {
		t.Errorf("left to decide: %+v", left)
	}
	// The same, decided in the file and carried out by discover.
	decided := tree.With(map[string][]byte{rollout.DecisionsFile: after[rollout.DecisionsFile]})
	if learned := discover(t, decided, profile("web", listening, backup, other)); string(learned[webPolicy]) != string(after[webPolicy]) {
		t.Errorf("discover made of it\n%s", learned[webPolicy])
	}
}

// Whatever order people decide in, the policies are the same.
func TestDecidingCommutes(t *testing.T) {
	var more []behavior.Fact
	for i := range 12 {
		more = append(more, reads("/usr/bin/web", fmt.Sprintf("/srv/%c/data", 'a'+i)))
	}
	calm := profile("web", listening)
	tree := promote(t, input(discover(t, nil, calm), calm))
	in := input(tree, profile("web", append(more, listening)...))
	list := proposals(t, in)
	if len(list) != 12 {
		t.Fatalf("%d proposals", len(list))
	}
	r := rand.New(rand.NewPCG(1, 4))
	var all []rollout.Decision
	for _, p := range list {
		all = append(all, p.Decide([]policy.Decision{policy.Accepted, policy.Declined, policy.Postponed}[r.IntN(3)]))
	}
	want := review(t, in, all...)
	for range 10 {
		shuffled := slices.Clone(all)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		got := in
		got.Tree = review(t, got, shuffled[:5]...)
		got.Tree = review(t, got, shuffled[5:]...)
		if string(got.Tree[webPolicy]) != string(want[webPolicy]) {
			t.Fatalf("another order made\n%s\nof\n%s", got.Tree[webPolicy], want[webPolicy])
		}
	}
}

func decode(text string) ([]rollout.Decision, error) {
	return rollout.DecodeDecisions("decisions.yaml", []byte(text), "shop", false)
}

const decisionsHead = "apiVersion: autopolicy.dev/v1alpha1\nkind: Decisions\nnamespace: shop\n"

func TestDecisionsAreReadStrictly(t *testing.T) {
	entry := func(lines string) string { return decisionsHead + "decisions:\n- decision: declined\n" + lines }
	what := "  what:\n  - {kind: file, path: /x}\n"
	for _, tt := range []struct{ name, text, want string }{
		{"what is written is read", entry(what), ""},
		{"an unknown field", entry("  colour: red\n" + what), "decisions.yaml:6: unknown field colour"},
		{"a key twice", entry("  by: a\n  by: b\n" + what), "decisions.yaml:7: key by is there twice"},
		{"a bomb", "a: &a [x,x]\nb: [*a,*a]\n", "decisions.yaml:2: YAML aliases are not accepted here"},
		{"no YAML", "decisions: [", "decisions.yaml:2: not YAML"},
		{"two documents", entry(what) + "---\n" + entry(what), "want one document"},
		{"another version", strings.Replace(entry(what), "v1alpha1", "v9", 1), "want autopolicy.dev/v1alpha1"},
		{"another namespace", strings.Replace(entry(what), "shop", "bank", 1), `is about namespace "bank"`},
		{"no such decision", strings.Replace(entry(what), "declined", "maybe", 1), `decisions.yaml:5: decision "maybe"`},
		{"still undecided", strings.Replace(entry(what), "declined", "undecided", 1), `decisions.yaml:5: decision "undecided"`},
		{"about nothing", entry("  by: me\n"), "nothing is named below what"},
		{"about everything", entry("  what: [{kind: file}]\n"), "would mean all of them"},
		{"no such kind", entry("  what: [{kind: thing, path: /x}]\n"), `kind "thing"`},
		{"a folder without a word", entry("  what: [{kind: file, path: /x/}]\n"), "say match: directory or recursive"},
		{"no folder", entry("  what: [{kind: file, path: /x, match: recursive}]\n"), "ends in a slash"},
		{"no such match", entry("  what: [{kind: file, path: /x, match: regex}]\n"), `match "regex"`},
		{"a workload as nobody writes it", entry("  workload: web\n" + what), `workload "web"`},
		{"the second of two", entry(what) + "- decision: perhaps\n" + what, `decisions.yaml:8: decision "perhaps"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decode(tt.text)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// People's comments, order and spelling stay, whatever is added.
func TestDecisionsAreAddedToTheEnd(t *testing.T) {
	calm := profile("web", listening)
	first := discover(t, nil, calm)
	more := rollout.Decision{Decision: policy.Declined, Workload: "deployment/web", Container: "web", By: "Jane: Doe #1", Reason: "a\nb: 'c' # d",
		What: []rollout.Matcher{rollout.Exactly(reads("/usr/bin/web", `/srv/\x0aodd`))}}
	for name, text := range map[string]string{
		"no file":                "",
		"none yet":               decisionsHead + "decisions: []\n",
		"nothing in it":          decisionsHead + "decisions: # people's\n",
		"comments and indents":   "# mine\n" + decisionsHead + "decisions:\n    # why\n    -   decision:   accepted # yes\n        what:\n            -   kind: file\n                path: /x   # this\n    # the end\n",
		"no line end":            decisionsHead + "decisions:\n- {decision: declined, what: [{kind: file, path: /x}]}",
		"another field after it": "apiVersion: autopolicy.dev/v1alpha1\ndecisions:\n- {decision: declined, what: [{kind: file, path: /x}]}\nkind: Decisions\nnamespace: shop\n",
	} {
		t.Run(name, func(t *testing.T) {
			tree := first
			var before []rollout.Decision
			if text != "" {
				tree = first.With(map[string][]byte{rollout.DecisionsFile: []byte(text)})
				var err error
				if before, err = decode(strings.ReplaceAll(text, "decisions: # people's", "decisions: [] # people's")); err != nil {
					t.Fatal(err)
				}
			}
			after := string(review(t, input(tree), more, more)[rollout.DecisionsFile])
			all, err := decode(after)
			if err != nil || len(all) != len(before)+2 {
				t.Fatalf("%d decisions, want two more than %d (%v):\n%s", len(all), len(before), err, after)
			}
			got := all[len(all)-1]
			if got.Reason != "a b: 'c' # d" || got.By != "Jane: Doe #1" || !got.When.Equal(noon.Add(time.Hour)) || fmt.Sprint(got.What) != fmt.Sprint(more.What) {
				t.Errorf("added %+v", got)
			}
			for line := range strings.Lines(strings.TrimSuffix(text, "\n")) {
				if line = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "[]")); !strings.Contains(after, strings.TrimSuffix(line, " # people's")) {
					t.Errorf("lost %q:\n%s", line, after)
				}
			}
		})
	}
	tree := first.With(map[string][]byte{rollout.DecisionsFile: []byte(decisionsHead + "decisions: [{decision: declined, what: [{kind: file, path: /x}]}]\n")})
	if _, err := rollout.Review(input(tree), []rollout.Decision{more}); err == nil || !strings.Contains(err.Error(), "decisions.yaml:4: write decisions as a list") {
		t.Errorf("a list on one line: %v", err)
	}
}

func TestOfTwoDecisionsTheNewerCounts(t *testing.T) {
	in := input(discover(t, nil, attacked()))
	p := proposals(t, in)[0]
	at := func(d policy.Decision, hours int) rollout.Decision {
		decision := p.Decide(d)
		decision.When = noon.Add(time.Duration(hours) * time.Hour)
		return decision
	}
	for _, tt := range []struct {
		list []rollout.Decision
		want bool // accepted
	}{
		{[]rollout.Decision{at(policy.Declined, 1), at(policy.Accepted, 2)}, true},
		{[]rollout.Decision{at(policy.Accepted, 2), at(policy.Declined, 1)}, true},
		{[]rollout.Decision{at(policy.Accepted, 1), at(policy.Declined, 2)}, false},
		{[]rollout.Decision{at(policy.Declined, 2), at(policy.Accepted, 2)}, true}, // at one time, the last
	} {
		tree := review(t, in, tt.list...)
		if got := strings.Contains(string(tree[webPolicy]), "dash"); got != tt.want {
			t.Errorf("%v: learned %t, want %t", tt.list, got, tt.want)
		}
	}
}

func TestAMatcherMeansWhatItSays(t *testing.T) {
	outside := behavior.Fact{Kind: behavior.Network, Exe: "/a", Direction: behavior.Egress, Protocol: "tcp", Port: 443,
		Peer: behavior.Peer{Kind: behavior.PeerOutside, Name: "api.example", Address: netip.MustParseAddr("192.0.2.7")}}
	rotated := outside
	rotated.Peer.Address = netip.MustParseAddr("192.0.2.8")
	renamed := outside
	renamed.Peer.Name = "other.example"
	write := reads("/a", "/x")
	write.Access = behavior.Read | behavior.Write
	run := behavior.Fact{Kind: behavior.Process, Path: "/usr/bin/dash"}
	byWeb := run
	byWeb.Parent = "/usr/bin/web"
	for _, tt := range []struct {
		name string
		m    rollout.Matcher
		f    behavior.Fact
		d    policy.Decision
		want bool
	}{
		{"the fact itself", rollout.Exactly(outside), outside, policy.Accepted, true},
		{"the same name at another address", rollout.Exactly(outside), rotated, policy.Accepted, true},
		{"another name at the same address", rollout.Exactly(outside), renamed, policy.Accepted, false},
		{"writing where reading was accepted", rollout.Exactly(reads("/a", "/x")), write, policy.Accepted, false},
		{"reading where writing too was accepted", rollout.Exactly(write), reads("/a", "/x"), policy.Accepted, true},
		{"writing too where reading was declined", rollout.Exactly(reads("/a", "/x")), write, policy.Declined, true},
		{"another's reading", rollout.Exactly(reads("/a", "/x")), reads("/b", "/x"), policy.Declined, false},
		{"what the runtime runs is not what a server runs", rollout.Exactly(run), byWeb, policy.Accepted, false},
		{"anybody's, where nobody is named", rollout.Matcher{Kind: behavior.Process, Path: "/usr/bin/dash"}, byWeb, policy.Accepted, true},
		{"anything below a folder", rollout.Matcher{Kind: behavior.File, Path: "/srv/", Match: policy.Recursive}, reads("/a", "/srv/x/y"), policy.Declined, true},
		{"another kind", rollout.Matcher{Kind: behavior.Process, Path: "/x"}, reads("/a", "/x"), policy.Declined, false},
	} {
		if got := tt.m.Matches(tt.f, tt.d); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

func FuzzDecisions(f *testing.F) {
	f.Add([]byte(decisionsHead + "decisions:\n- decision: declined\n  what: [{kind: file, path: /x}]\n"))
	f.Add([]byte(decisionsHead + "decisions: []\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		before, err := rollout.DecodeDecisions("decisions.yaml", data, "shop", false)
		if err != nil {
			return
		}
		in := input(overlay.Tree{rollout.DecisionsFile: data})
		more := rollout.Decision{Decision: policy.Declined, What: []rollout.Matcher{{Kind: behavior.File, Path: "/x"}}}
		plan, err := rollout.Review(in, []rollout.Decision{more})
		if err != nil {
			return // written in a way that cannot be added to
		}
		after, err := rollout.DecodeDecisions("decisions.yaml", plan.Files[rollout.DecisionsFile], "shop", false)
		if err != nil || len(after) != len(before)+1 {
			t.Errorf("%d decisions became %d (%v):\n%s", len(before), len(after), err, plan.Files[rollout.DecisionsFile])
		}
	})
}
