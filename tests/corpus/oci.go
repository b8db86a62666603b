//go:build linux && amd64

package main

import (
	"path/filepath"
	"slices"
	"strings"
)

// object is JSON in the making: what runc reads is wider than what is said here.
type object = map[string]any

// kubernetesCapabilities are those that a container has by default.
func kubernetesCapabilities() []string {
	return strings.Fields("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE")
}

// config is what containerd gives runc for a container of the pod.
func (p *pod) config() object {
	held := kubernetesCapabilities()
	if p.confine != nil {
		held = p.confine.capabilities
	}
	capabilities := []string{}
	for _, name := range held {
		capabilities = append(capabilities, "CAP_"+name)
	}
	process := object{
		"user": object{"uid": p.program.uid, "gid": p.program.uid}, "args": p.program.args, "cwd": "/", "noNewPrivileges": p.confine != nil && p.confine.noNewPrivileges,
		"env":          append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=" + p.name, "HOME=/root"}, p.program.env...),
		"capabilities": object{"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
	}
	linux := object{
		"namespaces": []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/" + p.netns}},
		// Where kubelet's driver for control groups puts a pod that asks for nothing.
		"cgroupsPath":   "/kubepods/besteffort/pod" + p.uid + "/" + p.id,
		"resources":     object{"devices": []object{{"allow": false, "access": "rwm"}}},
		"maskedPaths":   strings.Fields("/proc/asound /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware"),
		"readonlyPaths": strings.Fields("/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"),
	}
	if p.confine != nil && p.confine.seccomp != nil {
		linux["seccomp"] = p.confine.seccomp
	}
	return object{
		"ociVersion": "1.0.2", "hostname": p.name, "process": process, "linux": linux,
		"root":   object{"path": "rootfs", "readonly": p.confine != nil && p.confine.readOnlyRoot},
		"mounts": p.mounts(),
	}
}

func (p *pod) mounts() []object {
	mount := func(kind, to, from string, options ...string) object {
		return object{"type": kind, "destination": to, "source": from, "options": options}
	}
	list := []object{
		mount("proc", "/proc", "proc", "nosuid", "noexec", "nodev"),
		mount("tmpfs", "/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
		mount("devpts", "/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
		mount("mqueue", "/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
		mount("tmpfs", "/dev/shm", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
		mount("sysfs", "/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
		mount("cgroup", "/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
	}
	if p.confine != nil {
		for _, to := range p.confine.emptyDirs {
			list = append(list, mount("tmpfs", to, "tmpfs", "nosuid", "nodev", "mode=777"))
		}
	}
	for name, to := range map[string]string{"hosts": "/etc/hosts", "hostname": "/etc/hostname", "resolv.conf": "/etc/resolv.conf"} {
		list = append(list, mount("bind", to, filepath.Join(p.dir, name), "rbind", "rprivate", "rw"))
	}
	list = append(list, mount("bind", "/run/secrets/kubernetes.io/serviceaccount", filepath.Join(p.dir, "serviceaccount"), "rbind", "rprivate", "ro"))
	for i, to := range p.program.volumes {
		how := "rw"
		if p.confine != nil && slices.Contains(p.confine.readOnlyMounts, to) {
			how = "ro"
		}
		list = append(list, mount("bind", to, p.volume(i), "rbind", "rprivate", how))
	}
	return list
}

// confinement is what is really enforced on a container here.
type confinement struct {
	seccomp         object
	capabilities    []string
	readOnlyRoot    bool
	readOnlyMounts  []string
	emptyDirs       []string
	noNewPrivileges bool
	calls           int // that the profile allows
}
