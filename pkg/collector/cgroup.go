//go:build linux

package collector

import (
	"strings"
)

// place is what the name of a control group tells about a process: the pod's UID
// and the container's ID, each empty when the name does not say. Whether the
// container is one of a pod of this node, only the API server knows.
type place struct {
	pod, container string
}

// idLength is the length of a container ID in every runtime of Kubernetes.
const idLength = 64

// parseCgroup reads a control group's path, or a single name of one, in any of
// the layouts that kubelet, containerd, CRI-O and Docker make with the cgroupfs
// and the systemd driver. Of nested containers the outermost counts: it is the
// pod's.
func parseCgroup(path string) place {
	var p place
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == ':' }) {
		name = strings.TrimSuffix(strings.TrimSuffix(name, ".scope"), ".slice")
		if p.pod == "" {
			p.pod = podUID(name)
		}
		if p.container == "" {
			p.container = containerID(name)
		}
	}
	return p
}

// podUID finds pod<UID> at the end of a name such as
// kubepods-burstable-pod0b6b4b1c_....
func podUID(name string) string {
	i := strings.LastIndex(name, "pod")
	if i < 0 || i > 0 && name[i-1] != '-' {
		return ""
	}
	uid := strings.ReplaceAll(name[i+len("pod"):], "_", "-")
	// 36 for the API server's UIDs, 32 for the hash that names a static pod.
	if len(uid) != 36 && len(uid) != 32 || strings.Trim(uid, "0123456789abcdef-") != "" {
		return ""
	}
	return uid
}

// containerID finds the ID at the end of a name such as cri-containerd-<ID>.
func containerID(name string) string {
	if len(name) < idLength || strings.HasPrefix(name, "crio-conmon-") {
		return ""
	}
	prefix, id := name[:len(name)-idLength], name[len(name)-idLength:]
	if prefix != "" && !strings.HasSuffix(prefix, "-") || strings.Trim(id, "0123456789abcdef") != "" {
		return ""
	}
	return id
}

// parseCgroupFile reads the content of /proc/PID/cgroup: one line a hierarchy,
// version 1, 2 or both. The first line that names a container wins, since the
// hierarchies that a runtime does not use stay at the root.
func parseCgroupFile(content string) place {
	var best place
	for line := range strings.Lines(content) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		p := parseCgroup(parts[2])
		if p.container != "" && p.pod != "" {
			return p
		}
		if best.container == "" && (p.container != "" || best.pod == "") {
			best = p
		}
	}
	return best
}
