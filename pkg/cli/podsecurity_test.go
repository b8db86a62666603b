package cli

import (
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/podsecurity"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/seccomp"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
)

func TestThePodSecurityOfANamespaceIsThatOfItsLeastWorkload(t *testing.T) {
	with := func(spec behavior.PodSpec) []behavior.Coverage {
		return []behavior.Coverage{{}, {Spec: &behavior.SeenSpec{Pod: spec}}}
	}
	plain := behavior.PodSpec{Containers: []behavior.ContainerSpec{{Name: "web"}}}
	host := behavior.PodSpec{HostNetwork: true, Containers: []behavior.ContainerSpec{{Name: "web"}}}
	var b strings.Builder
	podSecurityOf(map[string][]behavior.Coverage{"deployment/web": with(plain), "deployment/node": with(host), "job/old": {{}}}).print(&b, true)
	const want = `pod security: pods like those observed could live with level privileged; in the way of baseline:
pod security: deployment/node: host namespaces (hostNetwork=true)
pod security: job/old: its pods' specification is not known
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	if p := podSecurityOf(map[string][]behavior.Coverage{"job/old": {{}}}); p != nil {
		t.Errorf("of pods that nobody knows: %+v", p)
	}
}

func TestTheFormOfSeccompProfilesStaysWhatItIs(t *testing.T) {
	spo := overlay.Tree{"workloads/deployment-web/base/seccomp.yaml": nil}
	for _, tt := range []struct {
		asked string
		tree  overlay.Tree
		want  string
	}{{"", nil, "file"}, {"spo", nil, "spo"}, {"", spo, "spo"}, {"file", spo, "file"}} {
		if got, err := seccompForm(tt.asked, tt.tree); got != tt.want || err != nil {
			t.Errorf("asked for %q: %q, %v", tt.asked, got, err)
		}
	}
	if _, err := seccompForm("crd", nil); err == nil {
		t.Error("another form is taken")
	}
	for _, e := range formed(engines(false), "spo") {
		if e == (seccomp.Engine{}) || e == (podsecurity.Engine{}) {
			t.Errorf("%s does not write for the operator", e.Name())
		}
	}
}
