package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// hostileNames are files that somebody makes who wants to be read wrongly.
func hostileNames() []string {
	return []string{
		"new\nline", "carriage\rreturn", "tab\tbell\a", `quote"s and 'quotes'`, `back\slash\n`, "escape\x1b[2J\x1b]0;title\a",
		"invalid\xff\xfe\xc0utf8", "right\u202eto left\u2028", "--flag=x", "# comment: [yaml, {", "$(id)`id`${HOME}", "* ? [a-z]",
		" spaces ", strings.Repeat("n", 255),
	}
}

// hostileProgram is the name of a copy of busybox, which goes by its name's start.
const hostileProgram = "busybox\n\x1b[2J\"'\\\xff - x"

// deep is a path of about 4,000 bytes, in parts that can be made one by one.
func deep() []string {
	var parts []string
	for i := range 15 {
		parts = append(parts, strings.Repeat(string(rune('a'+i)), 255))
	}
	return append(parts, strings.Repeat("z", 130), "deep\nfile")
}

// quoted gives a name for a shell, byte by byte.
func quoted(name string) string {
	var b strings.Builder
	for i := range len(name) {
		fmt.Fprintf(&b, `\%03o`, name[i])
	}
	return `"$(printf '` + b.String() + `')"`
}

// hostileScript makes the files and uses them over and over.
func hostileScript() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, "      "+format+"\n", args...) }
	line("bb=/bin/busybox; $bb mkdir -p /tmp/h /tmp/x /tmp/d")
	for _, name := range hostileNames() {
		line("echo x > /tmp/h/%s", quoted(name))
	}
	line("$bb cp $bb /tmp/x/%s", quoted(hostileProgram))
	line("cd /tmp/d")
	parts := deep()
	for _, part := range parts[:len(parts)-1] {
		line("$bb mkdir %s; cd %s", quoted(part), quoted(part))
	}
	line("echo x > %s", quoted(parts[len(parts)-1]))
	line("echo made")
	line("while :; do")
	line("  for f in /tmp/h/*; do $bb cat \"$f\"; done > /dev/null")
	line("  $bb cat %s > /dev/null", quoted(parts[len(parts)-1]))
	line("  /tmp/x/%s true", quoted(hostileProgram))
	line("  $bb sleep 1")
	line("done")
	return b.String()
}

func TestNamesThatAPodControlsBreakNothing(t *testing.T) {
	w := needCluster(t)
	w.apply(t, `apiVersion: v1
kind: Namespace
metadata: {name: hostile}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hostile, namespace: hostile}
spec:
  selector: {matchLabels: {app: hostile}}
  template:
    metadata: {labels: {app: hostile}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: hostile
        image: localhost/shop:1
        imagePullPolicy: Never
        command: [/bin/sh, -c]
        args:
        - |
`+strings.ReplaceAll("      "+strings.TrimLeft(hostileScript(), " "), "      ", "          "))
	w.kubectl(t, "-n", "hostile", "rollout", "status", "deployment/hostile", "--timeout=60s")
	eventually(t, time.Minute, "the files to be there", func() bool {
		return strings.Contains(w.kubectl(t, "-n", "hostile", "logs", "deployment/hostile"), "made")
	})
	dir, repository := w.workspace(t)
	before := w.trace(t)
	r := w.plugin(t, dir, "discover", "-n", "hostile", "--duration", "6s", "-o", "wide")
	r.wantsCode(t, 0)
	r.harmless(t)
	w.nothingLeft(t, before)

	t.Run("the evidence holds every name", func(t *testing.T) {
		text := git(t, "-C", repository, "show", "main:autopolicy/hostile/workloads/deployment-hostile/evidence.yaml")
		profiles, err := behavior.DecodeFile([]byte(text + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		read, ran := map[string]bool{}, map[string]bool{}
		for _, p := range profiles {
			for f := range p.Facts.Keys() {
				read[f.Path] = read[f.Path] || f.Kind == behavior.File
				ran[f.Path] = ran[f.Path] || f.Kind == behavior.Process
			}
		}
		for _, name := range hostileNames() {
			if path := behavior.Escape("/tmp/h/" + name); !read[path] {
				t.Errorf("nobody read %s", path)
			}
		}
		if path := behavior.Escape("/tmp/x/" + hostileProgram); !ran[path] {
			t.Errorf("nobody ran %s", path)
		}
		if path := behavior.Escape("/tmp/d/" + strings.Join(deep(), "/")); !read[path] {
			t.Errorf("nobody read the path of %d bytes", len(path))
		}
	})
	t.Run("every file of the folder is YAML that the cluster takes", func(t *testing.T) {
		checkout := filepath.Join(dir, "checkout")
		git(t, "clone", "-q", repository, checkout)
		for _, name := range strings.Fields(git(t, "-C", repository, "ls-tree", "-r", "--name-only", "main")) {
			if filepath.Ext(name) != ".yaml" {
				continue
			}
			for _, document := range strings.Split(git(t, "-C", repository, "show", "main:"+name), "\n---\n") {
				var value any
				if err := yaml.Unmarshal([]byte(document), &value); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		w.kubectl(t, "apply", "--dry-run=server", "-k", filepath.Join(checkout, "autopolicy/hostile"))
	})
	t.Run("explain shows the names escaped", func(t *testing.T) {
		r := w.plugin(t, dir, "explain", "-n", "hostile", "deploy/hostile", "--rule", "/tmp/")
		r.wantsCode(t, 0)
		r.harmless(t)
		for _, name := range hostileNames() {
			r.wants(t, behavior.Escape("/tmp/h/"+name))
		}
		r.wants(t, behavior.Escape("/tmp/x/"+hostileProgram))
	})
}

// harmless fails if a terminal would do anything but print what the plugin said.
func (r result) harmless(t *testing.T) {
	t.Helper()
	said := r.out + r.errOut
	if !utf8.ValidString(said) {
		t.Error("the plugin says invalid UTF-8")
	}
	for _, c := range said {
		if c != '\n' && !unicode.IsPrint(c) {
			t.Errorf("the plugin says %q", c)
		}
	}
}
