package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func proposed(container, path string, d policy.Decision) rollout.Proposal {
	return rollout.Proposal{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}, Container: container, Class: "shell", Decision: d,
		Facts: []behavior.Observed{{Fact: behavior.Fact{Kind: behavior.Process, Parent: "/web", Path: path}}}}
}

func TestEachProposalIsAskedAbout(t *testing.T) {
	list := []rollout.Proposal{proposed("a", "/bin/1", ""), proposed("b", "/bin/2", policy.Declined), proposed("c", "/bin/3", policy.Postponed), proposed("d", "/bin/4", "")}
	for _, tt := range []struct{ name, typed, want string }{
		{"one by one", "a\nbecause\nD\n\np\nlater\n", "a accepted because;c declined ;d postponed later;"},
		{"what is not understood is asked again", "what\nmaybe\ndecline\nno\ns\nskip\n", "a declined no;"},
		{"nothing is said by pressing return", "\n\n\n", ""},
		{"the rest is left by quitting", "a\nyes\nq\na\n", "a accepted yes;"},
		{"the end of the input ends it", "a\nyes\n", "a accepted yes;"},
		{"no answer at all", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, said bytes.Buffer
			o := &reviewOptions{app: &app{IOStreams: genericiooptions.IOStreams{Out: &out, ErrOut: &said}}}
			decisions, err := o.prompt(context.Background(), strings.NewReader(tt.typed), list)
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, d := range decisions {
				got += d.Container + " " + string(d.Decision) + " " + d.Reason + ";"
			}
			if got != tt.want {
				t.Errorf("decided %q, want %q", got, tt.want)
			}
		})
	}
}

func TestFiltersFitWhatTheySay(t *testing.T) {
	list := []rollout.Proposal{proposed("a", "/bin/sh", ""), proposed("b", "/opt/tool", "")}
	for text, want := range map[string]int{
		"all": 2, "class=shell": 2, "class=shell,container=a": 1, "path=/bin/*": 1, "path=*": 2, "workload=deploy/web": 2, "workload=deployment/*": 2,
		"workload=sts/web": 0, "exe=/web": 2, "exe=/bin/sh": 0, "kind=process": 2, "kind=file": 0, list[0].ID(): 1, "id=" + list[1].ID(): 1,
	} {
		f, err := parseFilter("shop", text)
		if err != nil {
			t.Fatal(err)
		}
		f.decision = policy.Declined
		if got := len(f.decide(list, "")); got != want {
			t.Errorf("%s fits %d, want %d", text, got, want)
		}
	}
	for _, text := range []string{"", "shell", "colour=red", "class=", "workload=web", "class=shell,"} {
		if _, err := parseFilter("shop", text); err == nil {
			t.Errorf("%q is no filter", text)
		}
	}
}
