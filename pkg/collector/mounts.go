//go:build linux

package collector

import (
	"bufio"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

// Bounds of one container's mounts. A message states them in full, so that they
// must leave room in it; a kernel allows 100,000 in a namespace.
const (
	maxMounts     = wire.MaxMounts
	maxMountBytes = wire.MaxMessage / 16
	maxMountLines = 16384
)

// When a container's mounts are read again: its runtime makes them one after the
// other before its program starts, and it may make some itself.
const (
	mountsSoon  = 3 * time.Second
	mountsLater = time.Minute
)

// mounts is what is known of a container's mounts.
type mounts struct {
	found map[string]behavior.Mount // replaced, never changed
	bytes int
	reads int
	at    time.Time // of the last read
	full  bool
}

// due tells whether the mounts are to be read.
func (m *mounts) due(now time.Time) bool {
	switch m.reads {
	case 0:
		return true
	case 1:
		return now.Sub(m.at) >= mountsSoon
	}
	return now.Sub(m.at) >= mountsLater
}

// add joins in what a read found: what was mounted once stays known. It tells
// how many did not fit for the first time.
func (m *mounts) add(found map[string]behavior.Mount, now time.Time) (lost uint64) {
	m.reads, m.at = m.reads+1, now
	joined := make(map[string]behavior.Mount, len(m.found)+len(found))
	for path, mount := range m.found {
		joined[path] = mount
	}
	for _, path := range sortedKeys(found) {
		mount := found[path]
		old, known := joined[path]
		if known && (old.Volume == "" || mount.Volume != "") {
			joined[path] = mount
			continue
		}
		n := len(path) + len(mount.Volume) + len(mount.Kind)
		if !known && (len(joined) >= maxMounts || m.bytes+n > maxMountBytes) {
			lost++
			continue
		}
		if !known {
			m.bytes += n
			joined[path] = mount
		}
	}
	m.found = joined
	if m.full {
		return 0 // told before
	}
	m.full = lost > 0
	return lost
}

// parseMount reads one line of /proc/PID/mountinfo: the raw path, and what is
// mounted there.
func parseMount(line string) (path string, m behavior.Mount, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 6 || len(rest) < 1 {
		return "", m, false
	}
	if path = unoctal(fields[4]); !strings.HasPrefix(path, "/") {
		return "", m, false
	}
	m.Kind = behavior.Escape(unoctal(rest[0]))
	m.ReadOnly = slices.Contains(strings.Split(fields[5], ","), "ro") ||
		len(rest) > 2 && slices.Contains(strings.Split(rest[2], ","), "ro")
	return path, m, true
}

// unoctal takes back what the kernel does to spaces, tabs, newlines and
// backslashes.
func unoctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mounts reads what is mounted in a container, by escaped path, through one of
// its processes, and names those that are volumes of its pod.
func (p proc) mounts(pid int, volumes map[string]behavior.Mount) (map[string]behavior.Mount, error) {
	root := p.path(pid, "root")
	// A process that changed its root would show other paths.
	if at, err := os.Readlink(root); err != nil || at != "/" {
		return nil, fmt.Errorf("read mounts through process %d: it has another root", pid)
	}
	f, err := os.Open(p.path(pid, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	named := map[string]behavior.Mount{}
	for path, volume := range volumes {
		named[resolveIn(root, path)] = volume
	}
	found := map[string]behavior.Mount{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, wire.MaxText)
	for n := 0; lines.Scan(); n++ {
		if n >= maxMountLines {
			return found, fmt.Errorf("read mounts: more than %d", maxMountLines)
		}
		path, m, ok := parseMount(lines.Text())
		if !ok || path == "/" {
			continue
		}
		if volume, ok := named[path]; ok {
			m.Volume, m.Kind, m.ReadOnly = volume.Volume, volume.Kind, m.ReadOnly || volume.ReadOnly
		}
		found[behavior.Escape(path)] = m
	}
	return found, lines.Err()
}

// resolveIn follows a path inside a root directory; the path itself where that
// cannot be done.
func resolveIn(root, path string) string {
	fd, err := openIn(root, path)
	if err != nil {
		return path
	}
	defer unix.Close(fd)
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return path
	}
	return real
}

// volumesOf gives the volumes that a container of a pod mounts, by the path that
// the specification says.
func volumesOf(pod *corev1.Pod, mounted []corev1.VolumeMount) map[string]behavior.Mount {
	if len(mounted) == 0 {
		return nil
	}
	kinds := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		kinds[v.Name] = volumeKind(v.VolumeSource)
	}
	volumes := map[string]behavior.Mount{}
	for _, m := range mounted {
		volumes["/"+strings.Trim(m.MountPath, "/")] = behavior.Mount{
			Volume: behavior.Escape(m.Name), Kind: kinds[m.Name], ReadOnly: m.ReadOnly,
		}
	}
	return volumes
}

// volumeKind is the name that the API has for the kind of a volume.
func volumeKind(source corev1.VolumeSource) string {
	v := reflect.ValueOf(source)
	for i := range v.NumField() {
		if !v.Field(i).IsNil() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "emptyDir" // the API's default
}

// readMounts reads the mounts of the containers whose turn it is.
func (c *Collector) readMounts(now time.Time) {
	type job struct {
		container *container
		pids      []int
		volumes   map[string]behavior.Mount
	}
	var jobs []job
	c.mu.Lock()
	taken := map[*container]bool{}
	for _, n := range c.spaces {
		if k := n.container; k != nil && !taken[k] && len(n.pids) > 0 && k.mounts.due(now) {
			taken[k] = true
			jobs = append(jobs, job{k, n.pids, k.info.volumes})
		}
	}
	c.mu.Unlock()
	for _, j := range jobs {
		found, err := c.proc.mountsOf(j.pids, j.volumes)
		c.mu.Lock()
		j.container.lose("mounts of a container not listed", j.container.mounts.add(found, now), now, now)
		if err != nil && !gone(err) && j.container.mounts.reads == 2 {
			j.container.lose("mounts of a container not read", 1, now, now)
		}
		c.mu.Unlock()
	}
}

// mountsOf reads through the first process that shows the mounts.
func (p proc) mountsOf(pids []int, volumes map[string]behavior.Mount) (found map[string]behavior.Mount, err error) {
	for i, pid := range pids {
		if i == maxRoots {
			break
		}
		if found, err = p.mounts(pid, volumes); err == nil {
			return found, nil
		}
	}
	return found, err
}
