package peer

import (
	"slices"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func profile(paths ...string) behavior.Profile {
	var p behavior.Profile
	for _, path := range paths {
		p.Add(behavior.Fact{Kind: behavior.File, Exe: "/a", Path: path, Access: behavior.Read}, behavior.Evidence{})
	}
	return p
}

func TestMoreThanThreeNamesBecomeTheFolder(t *testing.T) {
	for _, tt := range []struct {
		name  string
		paths []string
		want  []string
	}{
		{"three names stay", []string{"/etc/a", "/etc/b", "/etc/c"}, []string{"/etc/a", "/etc/b", "/etc/c"}},
		{"four become their folder", []string{"/etc/a", "/etc/b", "/etc/c", "/etc/d"}, []string{"/etc/"}},
		{"names directly below the root stay", []string{"/a", "/b", "/c", "/d", "/e"}, []string{"/a", "/b", "/c", "/d", "/e"}},
		{"folders count as names", []string{"/var/run/a/1", "/var/run/b/1", "/var/run/c/1", "/var/run/secrets/token"}, []string{"/var/run/"}},
		{"a folder that was opened, too, counts as folder", []string{"/srv/x", "/srv/x/a"}, []string{"/srv/x/a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := Learn(profile(tt.paths...)).List(); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAFolderAllowsEverythingBelowIt(t *testing.T) {
	p := Learn(profile("/run/a", "/run/b", "/run/c", "/run/d"))
	token := behavior.Fact{Kind: behavior.File, Exe: "/x", Path: "/run/secrets/kubernetes.io/serviceaccount/token", Access: behavior.Write}
	if !p.Governs(behavior.File) || p.Governs(behavior.Process) || !p.Allows(token) || p.Len() != 1 {
		t.Errorf("%+v does not swallow the token", p)
	}
}
