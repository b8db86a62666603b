//go:build linux

package probe

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestPathBeyondTheBoundsIsMarkedAndCounted(t *testing.T) {
	cases := []struct{ name, component, depth, reason string }{
		{"more than 4,096 bytes of long names", strings.Repeat("n", 255), "17", "path too long: file"},
		{"more than 4,096 bytes of short names", "d", "2100", "path too long: file"},
	}
	p := requireProbe(t, Options{})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if !p.walksDeep && len(c.component) == 1 {
				c.reason = "path too deep: file"
			}
			before, err := p.Lost()
			if err != nil {
				t.Fatal(err)
			}
			_, records := observe(t, p, "deep", "/tmp", c.component, c.depth)
			if !slices.ContainsFunc(records, func(r Record) bool {
				return r.Truncated && strings.HasPrefix(r.Fact.Path, "truncated:/") && strings.HasSuffix(r.Fact.Path, "/leaf")
			}) {
				t.Errorf("no truncated record in %d", len(records))
			}
			after, err := p.Lost()
			if err != nil {
				t.Fatal(err)
			}
			if after[c.reason] <= before[c.reason] {
				t.Errorf("lost %v, want more of %q", after, c.reason)
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
	lost, err := p.Lost()
	if err != nil || lost["ring buffer full: file"] == 0 {
		t.Fatalf("lost %v, %v; want some files", lost, err)
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
	const files = 200
	p := requireProbe(t, Options{Files: 32})
	_, records := observe(t, p, "many", "/tmp", strconv.Itoa(files))
	found, uncounted := map[string]bool{}, 0
	for _, r := range records {
		if strings.HasPrefix(r.Fact.Path, "/tmp/file-") {
			found[r.Fact.Path] = true
			if r.ID == 0 {
				uncounted++
			}
		}
	}
	if len(found) != files || uncounted < files-32 {
		t.Errorf("%d of %d files recorded, %d of them uncounted", len(found), files, uncounted)
	}
	lost, err := p.Lost()
	if err != nil || lost["map full: file"] < files-32 {
		t.Errorf("lost %v, %v", lost, err)
	}
	stats, err := p.Stats()
	if err != nil || stats.Maps["files"] != (Fill{32, 32}) {
		t.Errorf("stats %+v, %v", stats, err)
	}
}
