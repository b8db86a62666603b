package rollout

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
)

func TestAnImageThatChangedIsSaidWithWhatStandsOnTheOldOne(t *testing.T) {
	w := behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}
	at := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	seen := func(pod, image string, paths ...string) behavior.Profiles {
		p := behavior.Profile{Subject: behavior.Subject{Workload: w, Container: "web"}}
		p.Coverage.Pods = map[string]behavior.PodCoverage{pod: {Image: image, From: at, To: at.Add(time.Hour)}}
		for _, path := range paths {
			p.Add(behavior.Fact{Kind: behavior.File, Exe: "/web", Path: path, Access: behavior.Read},
				behavior.Evidence{First: at, Last: at, Pods: map[string]uint64{pod: 2}})
		}
		at = at.Add(2 * time.Hour)
		return behavior.Profiles{p.Subject: p}
	}
	one, two := "web@sha256:1111111111112222", "web@sha256:3333333333334444"
	old := seen("web-1", one, "/etc/a", "/etc/b")
	for _, tt := range []struct {
		name  string
		fresh behavior.Profiles
		want  []string
	}{
		{"the same image", seen("web-2", one, "/etc/a"), nil},
		{"another image", seen("web-3", two, "/etc/b", "/etc/c"),
			[]string{"deployment/web, container web: the image changed since its facts were learned, from web@sha256:111111111111 to web@sha256:333333333333; 1 of its 3 rules were seen with older images only"}},
		{"an image that nobody knows", seen("web-4", "", "/etc/b"), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set, err := learn.Rules(sorted(behavior.MergeProfiles(old, tt.fresh)), learn.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got := imageChanges(w, old, tt.fresh, set); !slices.Equal(got, tt.want) {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}
