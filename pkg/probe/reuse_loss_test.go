//go:build linux

package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

const rwc = behavior.Read | behavior.Write

func TestAFileIsFoundUnderTheNumberOfOneThatIsGone(t *testing.T) {
	type where struct {
		name, dir string
		setup     func(t *testing.T, root string)
	}
	places := []where{
		{"on the root's file system", "/tmp", func(*testing.T, string) {}},
		{"on an overlay", "/mnt", overlay},
	}
	for _, place := range places {
		for _, c := range []struct {
			name, action string
			want         func(string) bool
		}{
			{"a file's", "reuse", func(path string) bool { return path == place.dir+"/second" }},
			{"a directory's and its file's", "redo", func(path string) bool {
				return strings.HasPrefix(path, place.dir+"/next-") && strings.HasSuffix(path, "/leaf")
			}},
		} {
			t.Run(place.name+" "+c.name, func(t *testing.T) {
				p := requireProbe(t, Options{})
				for range 8 { // whether memory is reused as well is chance
					root := newRoot(t)
					place.setup(t, root)
					box := startContainer(t, root, actions(c.action+" "+place.dir)...)
					r := record(t, p, box.mntns)
					box.run(t)
					r.stop()
					if !slices.ContainsFunc(r.all(), func(r Record) bool { return c.want(r.Fact.Path) && r.Fact.Access == rwc }) {
						t.Fatal("the new name was taken for the old one")
					}
				}
			})
		}
	}
}

// overlay mounts one on the container's /mnt, upper and lower on the test's own
// file system.
func overlay(t *testing.T, root string) {
	t.Helper()
	base := t.TempDir()
	var options []string
	for _, name := range []string{"lower", "upper", "work"} {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		options = append(options, name+"dir="+dir)
	}
	target := filepath.Join(root, "mnt")
	if out, err := exec.Command("mount", "-t", "overlay", "overlay", "-o", strings.Join(options, ","), target).CombinedOutput(); err != nil {
		t.Fatalf("mount overlay: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", target).CombinedOutput(); err != nil {
			t.Errorf("unmount overlay: %v\n%s", err, out)
		}
	})
}

func TestAFileIsFoundAgainBelowADirectoryThatWasRenamed(t *testing.T) {
	for name, c := range map[string]struct{ actions, want string }{
		"its own":    {"mkdir /tmp/a -- create /tmp/a/x -- write /tmp/a/x -- rename /tmp/a /tmp/b -- write /tmp/b/x", "/tmp/b/x"},
		"above it":   {"mkdir /tmp/a/b/c -- write /tmp/a/b/c/x -- rename /tmp/a /tmp/z -- write /tmp/z/b/c/x", "/tmp/z/b/c/x"},
		"to and fro": {"mkdir /tmp/a -- create /tmp/a/x -- rename /tmp/a /tmp/b -- write /tmp/b/x -- rename /tmp/b /tmp/c -- write /tmp/c/x", "/tmp/c/x"},
	} {
		t.Run(name, func(t *testing.T) {
			p := requireProbe(t, Options{})
			words := strings.Fields(strings.ReplaceAll(c.actions, "write /tmp/a/b/c/x --", "create /tmp/a/b/c/x -- write /tmp/a/b/c/x --"))
			_, records := observe(t, p, words...)
			wantFact(t, records, file(c.want, behavior.Write))
		})
	}
}

// A number of a mount namespace is given out again at once. Whatever both did is
// told apart.
func TestMountNamespacesOfOneNumberAreToldApart(t *testing.T) {
	p := requireProbe(t, Options{})
	first := newContainer(t, actions("read /etc/config", "chroot /")...)
	r := record(t, p, 0)
	first.run(t)
	for range 200 {
		second := newContainer(t, actions("read /etc/other")...)
		if second.mntns != first.mntns {
			continue
		}
		second.run(t)
		r.stop()
		generations := map[uint32][]string{}
		for _, rec := range r.all() {
			if rec.MountNS == first.mntns && rec.Fact.Kind == behavior.File && !rec.Fact.Runtime {
				generations[rec.Generation] = append(generations[rec.Generation], rec.Fact.Path)
			}
		}
		if len(generations) < 2 {
			t.Errorf("the records are of one generation: %v", generations)
		}
		calls, err := p.Syscalls()
		if err != nil {
			t.Fatal(err)
		}
		rooted := map[uint32]bool{}
		for _, set := range calls[first.mntns] {
			if !set.Runtime {
				rooted[set.Generation] = slices.Contains(set.Names, "chroot")
			}
		}
		if len(rooted) < 2 {
			t.Errorf("system calls of %d mount namespaces, want both", len(rooted))
		}
		for generation, paths := range generations {
			if _, known := rooted[generation]; !known {
				t.Errorf("generation %d of the records (%v) has no system calls", generation, paths)
			}
			if rooted[generation] != slices.Contains(paths, "/etc/config") {
				t.Errorf("generation %d calls chroot: %t, and opened %v", generation, rooted[generation], paths)
			}
		}
		return
	}
	t.Skip("SKIPPED: the kernel did not give the number out again in 200 tries")
}

// Ignoring one that was never seen goes by its number; when it is gone, the next of
// that number counts again.
func TestANumberThatWasIgnoredUnseenIsSeenAgainOnceHeeded(t *testing.T) {
	p := requireProbe(t, Options{})
	const never = 77 // no mount namespace's: theirs are above 2^28
	if err := p.Ignore(never); err != nil {
		t.Fatal(err)
	}
	var value uint8
	if err := p.collection.Maps["ignored"].Lookup(uint32(never), &value); err != nil {
		t.Fatalf("it is not ignored: %v", err)
	}
	if err := p.Heed(never); err != nil {
		t.Fatal(err)
	}
	if err := p.collection.Maps["ignored"].Lookup(uint32(never), &value); err == nil {
		t.Error("the next one of its number would be ignored")
	}
}
