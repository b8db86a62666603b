//go:build linux

package collector

import (
	"strings"
	"testing"
)

const (
	uidA = "0b6b4b1c-1111-4222-8333-444455556666"
	idA  = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	idB  = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestEveryCgroupLayoutNamesPodAndContainer(t *testing.T) {
	under := strings.ReplaceAll(uidA, "-", "_")
	both := place{pod: uidA, container: idA}
	for name, c := range map[string]struct {
		path string
		want place
	}{
		"the cgroupfs driver":                               {"/kubepods/burstable/pod" + uidA + "/" + idA, both},
		"the cgroupfs driver, guaranteed pod":               {"/kubepods/pod" + uidA + "/" + idA, both},
		"a cgroup root of kubelet's own":                    {"/e2e-node0/kubepods/besteffort/pod" + uidA + "/" + idA, both},
		"the systemd driver with containerd":                {"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-" + idA + ".scope", both},
		"the systemd driver with CRI-O":                     {"/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + idA + ".scope", both},
		"CRI-O with a group below the scope":                {"/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + idA + ".scope/container", both},
		"the systemd driver with Docker":                    {"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/docker-" + idA + ".scope", both},
		"containerd's service with a colon path":            {"/system.slice/containerd.service/kubepods-burstable-pod" + under + ".slice:cri-containerd:" + idA, both},
		"a kubelet slice of kind":                           {"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + under + ".slice/cri-containerd-" + idA + ".scope", both},
		"a container inside the pod's container":            {"/kubepods/pod" + uidA + "/" + idA + "/docker/" + idB, both},
		"a path relative to the reader's cgroup namespace":  {"/../../pod" + uidA + "/" + idA, both},
		"a static pod, named by a hash":                     {"/kubepods/pod0123456789abcdef0123456789abcdef/" + idA, place{"0123456789abcdef0123456789abcdef", idA}},
		"a leaf's name alone":                               {"cri-containerd-" + idA + ".scope", place{container: idA}},
		"a container that no kubelet made":                  {"/system.slice/docker-" + idA + ".scope", place{container: idA}},
		"conmon is no container":                            {"/kubepods.slice/kubepods-pod" + under + ".slice/crio-conmon-" + idA + ".scope", place{pod: uidA}},
		"a service of the host":                             {"/system.slice/sshd.service", place{}},
		"the root":                                          {"/", place{}},
		"a name with upper case is no ID":                   {"/" + strings.ToUpper(idA), place{}},
		"a longer hexadecimal name is no ID":                {"/x" + idA, place{}},
		"a service whose name only begins like that of pod": {"/system.slice/podman.service", place{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseCgroup(c.path); got != c.want {
				t.Errorf("%s\ngot  %+v\nwant %+v", c.path, got, c.want)
			}
		})
	}
}

func TestACgroupFileOfAnyVersionNamesTheContainer(t *testing.T) {
	path := "/kubepods/burstable/pod" + uidA + "/" + idA
	for name, content := range map[string]string{
		"version 2":                          "0::" + path + "\n",
		"version 1":                          "12:memory:" + path + "\n11:pids:" + path + "\n1:name=systemd:" + path + "\n",
		"version 1 where one is at the root": "12:rdma:/\n11:memory:" + path + "\n",
		"hybrid with an empty version 2":     "9:name=systemd:" + path + "\n4:memory:" + path + "\n0::/\n",
		"hybrid with all in version 2":       "1:name=systemd:/system.slice/kubelet.service\n0::" + path + "\n",
		"hybrid whose first line has no pod": "2:net_cls:/" + idB + "\n0::" + path + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseCgroupFile(content); got != (place{uidA, idA}) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func FuzzParseCgroupFile(f *testing.F) {
	f.Add("0::/kubepods/burstable/pod" + uidA + "/" + idA + "\n")
	f.Add("1:name=systemd:/a.slice:cri-containerd:" + idA)
	f.Fuzz(func(t *testing.T, content string) {
		p := parseCgroupFile(content)
		if p.container != "" && (len(p.container) != idLength || !strings.Contains(content, p.container)) {
			t.Errorf("container %q is not in the input", p.container)
		}
	})
}
