//go:build linux

package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestPathBeyondTheBoundsIsMarkedAndCounted(t *testing.T) {
	cases := []struct{ name, component, depth, reason string }{
		{"more than 4,096 bytes of long names", strings.Repeat("n", 255), "17", "path too long: file"},
		{"more than 4,096 bytes of short names", "d", "2100", "path too long: file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := requireProbe(t, Options{})
			if !p.walksDeep && len(c.component) == 1 {
				c.reason = "path too deep: file"
			}
			_, records := observe(t, p, "deep", "/tmp", c.component, c.depth)
			if !slices.ContainsFunc(records, func(r Record) bool {
				return r.Truncated && strings.HasPrefix(r.Fact.Path, "truncated:/") && strings.HasSuffix(r.Fact.Path, "/leaf")
			}) {
				t.Errorf("no truncated record in %d", len(records))
			}
			if l := allLost(t, p); l[c.reason] == 0 {
				t.Errorf("lost %v, want some of %q", l, c.reason)
			}
		})
	}
}

func TestFullRingIsCountedAndTriedAgain(t *testing.T) {
	const files, passes = 2000, 20
	p := requireProbe(t, Options{RingBytes: 64 << 10})
	var script []string
	for range passes {
		script = append(script, fmt.Sprintf("many /tmp %d", files), "pause")
	}
	c := newContainer(t, actions(script...)...)
	c.resume(t) // nobody reads
	if l := allLost(t, p); l["share of ring buffer used up: file"] == 0 {
		t.Fatalf("lost %v; want some files", l)
	}
	r := record(t, p, c.mntns)
	found := map[string]bool{}
	for range passes - 1 {
		c.resume(t)
		for _, rec := range r.all() {
			if strings.HasPrefix(rec.Fact.Path, "/tmp/file-") {
				found[rec.Fact.Path] = true
			}
		}
		if len(found) == files {
			return
		}
	}
	t.Errorf("%d of %d files recorded in the end", len(found), files)
}

func TestFullMapIsCountedAndStillRecords(t *testing.T) {
	const files, size = 30, 64
	p := requireProbe(t, Options{Files: size})
	// Each takes an eighth, or what is left.
	found, uncounted := map[string]bool{}, 0
	for i := range 12 {
		_, records := observe(t, p, "many", "/tmp", strconv.Itoa(files))
		for _, r := range records {
			if strings.HasPrefix(r.Fact.Path, "/tmp/file-") {
				found[fmt.Sprint(i, r.Fact.Path)] = true
				if r.ID == 0 {
					uncounted++
				}
			}
		}
	}
	if uncounted == 0 || len(found) != 12*files {
		t.Errorf("%d files recorded, %d of them uncounted", len(found), uncounted)
	}
	if l := allLost(t, p); l["map full: file"]+l["share of map used up: file"] == 0 {
		t.Errorf("lost %v", l)
	}
	stats, err := p.Stats()
	if err != nil || stats.Maps["files"] != (Fill{size, size}) {
		t.Errorf("stats %+v, %v", stats, err)
	}
	use, err := p.MapUse()
	if err != nil || use["files"] != (behavior.MapUse{High: size, Size: size}) {
		t.Errorf("use %+v, %v", use, err)
	}
}
