//go:build linux

package collector

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

// mountinfo is what the kernel shows of a container, with a hostile name in it.
const mountinfo = `600 500 0:50 / / rw,relatime master:1 - overlay overlay rw,lowerdir=/a
601 600 0:51 / /proc rw,nosuid - proc proc rw
602 600 254:1 /var/lib/kubelet/pods/u/volumes/x /data rw,relatime - ext4 /dev/vda1 rw
603 600 0:52 / /run/secrets/kubernetes.io/serviceaccount ro,relatime - tmpfs tmpfs rw,size=1k
604 600 0:53 / /a\040b\012\134x rw shared:5 - tmpfs tmpfs ro
605 600 254:1 /etc/hosts /etc/hosts rw,relatime - ext4 /dev/vda1 rw
broken line
`

func TestMountsAreNamedByTheirVolumes(t *testing.T) {
	procs := newFakeProc(t)
	procs.link("100/root", "/")
	procs.write("100/mountinfo", mountinfo)
	found, err := proc{procs.root}.mounts(100, map[string]behavior.Mount{
		"/data": {Volume: "data", Kind: "emptyDir"},
		"/run/secrets/kubernetes.io/serviceaccount": {Volume: "token", Kind: "projected", ReadOnly: true},
		"/not/mounted": {Volume: "x", Kind: "secret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]behavior.Mount{
		"/proc": {Kind: "proc"}, "/data": {Volume: "data", Kind: "emptyDir"}, "/etc/hosts": {Kind: "ext4"},
		"/run/secrets/kubernetes.io/serviceaccount": {Volume: "token", Kind: "projected", ReadOnly: true},
		`/a b\x0a\\x`: {Kind: "tmpfs", ReadOnly: true},
	}
	if !maps.Equal(found, want) {
		t.Errorf("got  %v\nwant %v", found, want)
	}
}

func TestAVolumeBelowALinkIsFoundWhereItIsMounted(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "run/secrets"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "var"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/run", filepath.Join(root, "var/run")); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimPrefix(resolveIn(root, "/var/run/secrets"), root); got != "/run/secrets" {
		t.Errorf("got %s", got)
	}
	if got := resolveIn(root, "/nowhere"); got != "/nowhere" {
		t.Errorf("a path that is not there becomes %s", got)
	}
}

func TestOfAContainerThatWasGoneTheSpecificationNamesTheMounts(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.podWith("job-1", uidA, idA, func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "scratch"}, {Name: "conf", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
		}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/tmp/"}, {Name: "conf", MountPath: "/etc/c", ReadOnly: true}}
	})
	b.sees(77, 100, runs("/bin/true"), idA, "pod"+uidA)
	want := map[string]behavior.Mount{"/tmp": {Volume: "scratch", Kind: "emptyDir"}, "/etc/c": {Volume: "conf", Kind: "configMap", ReadOnly: true}}
	if got := b.store.containers[idA].wire(b.clock).Mounts; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMountsAreBoundedSoThatTheyFitAMessageAndSaySo(t *testing.T) {
	var m mounts
	many := map[string]behavior.Mount{}
	for i := range maxMounts + 5 {
		many[fmt.Sprintf("/m%d", i)] = behavior.Mount{Kind: "tmpfs"}
	}
	if lost := m.add(many, time.Now()); lost != 5 || len(m.found) != maxMounts {
		t.Errorf("%d lost and %d kept, want 5 and %d", lost, len(m.found), maxMounts)
	}
	if lost := m.add(many, time.Now()); lost != 0 {
		t.Errorf("the same loss is told again: %d", lost)
	}
	var long mounts
	lengthy := map[string]behavior.Mount{}
	for i := range maxMounts {
		lengthy[fmt.Sprintf("/%04d%s", i, strings.Repeat("x", 4000))] = behavior.Mount{}
	}
	if lost := long.add(lengthy, time.Now()); lost == 0 || long.bytes > maxMountBytes {
		t.Errorf("%d bytes kept, %d mounts lost", long.bytes, lost)
	}
	k := wire.Container{Namespace: "n", Pod: "p", Name: "c", Mounts: long.found}
	if n := proto.Size(wire.EncodeContainer(k)); n > wire.MaxMessage {
		t.Errorf("a container's mounts take %d bytes", n)
	}
}

func TestMountsThatAppearLaterAreFoundAndThoseThatWentStayKnown(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.pod("web-1", uidA, b.clock, [2]string{"web", idA})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.procs.link("100/root", "/")
	b.procs.write("100/mountinfo", "1 0 0:1 / / rw - overlay o rw\n2 1 0:2 / /early rw - tmpfs t rw\n")
	b.pass(time.Second)
	b.procs.write("100/mountinfo", "1 0 0:1 / / rw - overlay o rw\n3 1 0:2 / /late rw - tmpfs t rw\n")
	b.pass(time.Second)
	if got := b.store.containers[idA].mounts.reads; got != 1 {
		t.Errorf("read %d times within a second", got)
	}
	b.pass(mountsSoon)
	if got := sortedKeys(b.store.containers[idA].wire(b.clock).Mounts); fmt.Sprint(got) != "[/early /late]" {
		t.Errorf("mounts are %v", got)
	}
}

func TestTheMountsOfThisProcessAreThoseThatTheKernelShows(t *testing.T) {
	found, err := proc{"/proc"}.mounts(os.Getpid(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := found["/proc"]; !ok || m.Kind != "proc" {
		t.Errorf("/proc is %+v (%t)", m, ok)
	}
}

func FuzzParseMount(f *testing.F) {
	for line := range strings.Lines(mountinfo) {
		f.Add(strings.TrimSuffix(line, "\n"))
	}
	f.Fuzz(func(t *testing.T, line string) {
		path, m, ok := parseMount(line)
		if ok && (!strings.HasPrefix(path, "/") || !behavior.IsEscaped(m.Kind)) {
			t.Errorf("accepted %q, %+v", path, m)
		}
	})
}

// podWith lets the API server name a pod with one container, changed as the test
// wants it.
func (b *bench) podWith(name, uid, id string, change func(*corev1.Pod)) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid)}}
	p.Spec.Containers = []corev1.Container{{Name: "web", Image: "localhost/web:1"}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "web", ContainerID: "containerd://" + id, ImageID: "sha256:1234",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(b.clock)}},
	}}
	change(p)
	b.pods.set(p)
}
