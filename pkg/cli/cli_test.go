package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func TestWorkloadsAreNamedAsForKubectl(t *testing.T) {
	for arg, want := range map[string]behavior.Workload{
		"deploy/web":           {Namespace: "shop", Kind: "Deployment", Name: "web"},
		"deployment/web":       {Namespace: "shop", Kind: "Deployment", Name: "web"},
		"Deployments.apps/web": {Namespace: "shop", Kind: "Deployment", Name: "web"},
		"sts/store":            {Namespace: "shop", Kind: "StatefulSet", Name: "store"},
		"cj/nightly":           {Namespace: "shop", Kind: "CronJob", Name: "nightly"},
		"rollout/canary":       {Namespace: "shop", Kind: "Rollout", Name: "canary"}, // of a custom resource
	} {
		if got, err := parseWorkload("shop", arg); err != nil || got != want {
			t.Errorf("%s is %v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", "web", "/web", "deploy/", "deploy/a/b", ".apps/web"} {
		if got, err := parseWorkload("shop", arg); err == nil || len(hints(err)) == 0 {
			t.Errorf("%q is %v, %v", arg, got, err)
		}
	}
}

func TestHintsAreEachGivenOnceTheOutermostFirst(t *testing.T) {
	inner := hinted(errors.New("inner"), "do this")
	err := hinted(fmt.Errorf("outer: %w", errors.Join(inner, hinted(errors.New("other"), "do that"), inner)), "begin here")
	if got := hints(err); !slices.Equal(got, []string{"begin here", "do this", "do that"}) {
		t.Errorf("got %q", got)
	}
	// What says itself what to do is not talked over.
	unknown := &rollout.UnknownWorkloadError{Workload: "deployment-web"}
	if got := hints(fmt.Errorf("explain: %w", unknown)); len(got) != 1 {
		t.Errorf("got %q", got)
	}
	if got := hints(hinted(unknown, "do this")); !slices.Equal(got, []string{"do this"}) {
		t.Errorf("got %q", got)
	}
	if got := hints(errors.New("plain")); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestALongCellIsShortenedInItsMiddle(t *testing.T) {
	for name, c := range map[string]struct{ text, begins, ends string }{
		"a short one stays":            {"read /etc/web.conf", "read /etc/web.conf", "read /etc/web.conf"},
		"a path keeps its name":        {"read /" + strings.Repeat("long/", 800) + "name", "read /long/", "long/name"},
		"characters are not cut apart": {strings.Repeat("ä", 4000), "ää", "ää"},
	} {
		t.Run(name, func(t *testing.T) {
			got := fitted(c.text)
			if n := utf8.RuneCountInString(got); n > fittedWidth || !utf8.ValidString(got) || !strings.HasPrefix(got, c.begins) || !strings.HasSuffix(got, c.ends) {
				t.Errorf("got %d characters: %s", n, got)
			}
		})
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "line\nline\ttab", "\x1b[2J", "\xff\xfe", "\u009b2J", "\u202e", "\u200b", "\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := printable(text)
		if i := strings.IndexFunc(got, func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsPrint(r) }); i >= 0 || !utf8.ValidString(got) {
			t.Errorf("%+q becomes %+q", text, got)
		}
	})
}

// A configuration is a file that anybody may have sent. It ends in values or in an
// error that can be shown behind the file's name.
func FuzzDecodeConfig(f *testing.F) {
	for _, s := range []string{
		"apiVersion: autopolicy.dev/v1alpha1\nkind: Config\nengines: [kubearmor]\nauthor: {name: a}\n",
		"a: [\n", "- 1", "repository: [x]", "ssh: 1", "&a [*a]", "a: &a [x]\nb: [*a, *a]", "---\n---\n", "\x00", "\xff\xfe", "kind: !!binary x", "? {a: b}\n: c", "!0", "\"a\\nb\": 1",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := decodeConfig(data); err != nil && (!strings.HasPrefix(err.Error(), ":") || strings.Contains(err.Error(), "into cli.") || strings.Contains(err.Error(), "type cli.")) {
			t.Errorf("%q gives %v", data, err)
		}
	})
}
