//go:build linux

package collector

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func TestCommandsAreThoseThatTheKubeletRuns(t *testing.T) {
	exec := func(args ...string) *corev1.ExecAction { return &corev1.ExecAction{Command: args} }
	probe := func(args ...string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: exec(args...)}}
	}
	c := &corev1.Container{
		Env: []corev1.EnvVar{
			{Name: "PORT", Value: "80"},
			{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{}}},
		},
		StartupProbe:   probe("/check", "--port=$(PORT)", "$(SECRET)", "$(UNSET)", "$$(PORT)", "$PORT", "$(PORT", "a$"),
		LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}},
		ReadinessProbe: probe("cat", "/tmp/a\nb"),
		Lifecycle: &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: exec("echo", "$(PORT)")}, PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{}},
		},
	}
	want := [][]string{
		{"/check", "--port=80", "", "$(UNSET)", "$(PORT)", "$PORT", "$(PORT", "a$"}, {"cat", `/tmp/a\x0ab`}, {"echo", "$(PORT)"},
	}
	if got := commandsOf(c); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWhichArgumentsAreThoseOfACommand(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		entered, command []string
		want             bool
	}{
		"the same":                                     {[]string{"ls", "/data"}, []string{"ls", "/data"}, true},
		"another argument":                             {[]string{"ls", "/etc"}, []string{"ls", "/data"}, false},
		"more arguments":                               {[]string{"ls", "/data", "-l"}, []string{"ls", "/data"}, false},
		"fewer arguments":                              {[]string{"ls"}, []string{"ls", "/data"}, false},
		"a shell and what it is told":                  {[]string{"sh", "-c", "exec ls"}, []string{"sh", "-c", "exec ls"}, true},
		"a shell that is told something else":          {[]string{"sh", "-c", "id"}, []string{"sh", "-c", "exec ls"}, false},
		"a script and its interpreter":                 {[]string{"/bin/sh", "/check.sh", "x"}, []string{"/check.sh", "x"}, true},
		"an interpreter with an argument":              {[]string{"/bin/sh", "-e", "/check.sh"}, []string{"/check.sh"}, true},
		"a script that was found by its name":          {[]string{"/bin/sh", "/usr/bin/check", "x"}, []string{"check", "x"}, true},
		"a script of that name elsewhere":              {[]string{"/bin/sh", "/tmp/check.sh"}, []string{"/opt/check.sh"}, false},
		"a script with other arguments":                {[]string{"/bin/sh", "/check.sh", "y"}, []string{"/check.sh", "x"}, false},
		"arguments of a script that begin like it":     {[]string{"/bin/sh", "/other", "/check.sh"}, []string{"/check.sh"}, true},
		"arguments that were cut":                      {[]string{"sh", "-c", long[:4090]}, []string{"sh", "-c", long}, true},
		"arguments that were cut and differ":           {[]string{"sh", "-c", "y" + long[:4090]}, []string{"sh", "-c", long}, false},
		"arguments that were cut before the last ones": {[]string{"sh", long[:4092]}, []string{"sh", long, "more"}, true},
		"short ones are not taken for cut":             {[]string{"sh", "-c", "l"}, []string{"sh", "-c", "ls"}, false},
		"none":                                         {nil, []string{"ls"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := isCommand(c.entered, c.command); got != c.want {
				t.Errorf("%q as %q: %t", c.entered, c.command, got)
			}
		})
	}
}

// probed is a bench with a container that is probed by ls /data.
func probed(t *testing.T) *bench {
	b := newBench(t, DefaultLimits())
	b.podWith("web-1", uidA, idA, func(p *corev1.Pod) {
		p.Spec.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"ls", "/data"}}}}
	})
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	return b
}

// enters lets a record of a session come.
func (b *bench) enters(session uint32, f behavior.Fact, entered ...string) {
	b.id++
	b.record(Record{MountNS: 77, PID: 100, ID: b.id, Time: b.clock, Fact: f, Session: session, Entered: entered})
}

func from(origin behavior.Origin, f behavior.Fact) behavior.Fact {
	f.Origin = origin
	return f
}

func TestWhatSomebodyWhoEnteredDoesIsNotTheContainersOwn(t *testing.T) {
	b := probed(t)
	b.sees(77, 100, reads("/own"))
	b.enters(5, runs("/bin/ls"), "ls", "/data")
	b.enters(5, reads("/data"))
	b.enters(6, runs("/bin/sh"), "sh")
	b.enters(6, reads("/etc/passwd"))
	b.want(idA, reads("/own"), from(behavior.OriginProbe, runs("/bin/ls")), from(behavior.OriginProbe, reads("/data")),
		from(behavior.OriginExec, runs("/bin/sh")), from(behavior.OriginExec, reads("/etc/passwd")))
	if b.store.containers[idA].start {
		t.Error("a probe counts as the container's start")
	}
}

func TestWhoEnteredIsLearnedLaterThanWhatTheyDid(t *testing.T) {
	b := probed(t)
	b.enters(5, reads("/data"))
	b.want(idA)
	b.enters(5, runs("/bin/ls"), "ls", "/data")
	b.want(idA, from(behavior.OriginProbe, runs("/bin/ls")), from(behavior.OriginProbe, reads("/data")))
	if b.pending != 0 {
		t.Errorf("%d records are still pending", b.pending)
	}
}

func TestWhoEnteredIsNeverLearned(t *testing.T) {
	for name, end := range map[string]func(*bench){
		"and time passes": func(b *bench) {
			b.pass(sessionGrace)
			b.pass(time.Second)
		},
		"and the container ends": func(b *bench) {
			b.pass(time.Second)
			b.procs.exit("100")
			b.pass(time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := probed(t)
			b.enters(5, reads("/data"))
			end(b)
			b.want(idA, from(behavior.OriginExec, reads("/data")))
			if got := b.lostOf(idA)[unknownSession]; got != 1 || b.pending != 0 {
				t.Errorf("lost %v, %d pending", b.lostOf(idA), b.pending)
			}
		})
	}
}

func TestWhoEnteredAContainerThatIsNamedLater(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.procs.process("100", 77, cgroupOf(uidA, idA))
	b.enters(5, runs("/bin/ls"), "ls", "/data")
	b.enters(5, reads("/data"))
	b.podWith("web-1", uidA, idA, func(p *corev1.Pod) {
		p.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"ls", "/data"}}}}
	})
	b.pass(time.Second)
	b.want(idA, from(behavior.OriginProbe, runs("/bin/ls")), from(behavior.OriginProbe, reads("/data")))
}

func TestAnEphemeralContainerIsPeoplesAsAWhole(t *testing.T) {
	b := newBench(t, DefaultLimits())
	b.podWith("web-1", uidA, idA, func(p *corev1.Pod) {
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", Image: "busybox"}}}
		s := p.Status.ContainerStatuses[0]
		s.Name, s.ContainerID = "debugger", "containerd://"+idB
		p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{s}
	})
	b.procs.process("100", 77, cgroupOf(uidA, idB))
	b.sees(77, 100, runs("/bin/sh"))
	b.enters(5, runs("/bin/ls"), "ls")
	b.kern.calls[77] = []SyscallSet{{Arch: "amd64", Names: []string{"read"}}}
	if err := b.refresh(); err != nil {
		t.Fatal(err)
	}
	b.want(idB, from(behavior.OriginExec, runs("/bin/sh")), from(behavior.OriginExec, runs("/bin/ls")), from(behavior.OriginExec, calls("read")))
}

func TestSystemCallsOfThoseWhoEntered(t *testing.T) {
	set := func(entered bool, names ...string) SyscallSet {
		return SyscallSet{Arch: "amd64", Entered: entered, Names: names}
	}
	for name, c := range map[string]struct {
		probe, people bool
		sets          []SyscallSet
		want          []behavior.Fact
		lost          uint64
	}{
		"only probes entered": {true, false, []SyscallSet{set(true, "read")}, []behavior.Fact{from(behavior.OriginProbe, calls("read"))}, 0},
		"only people entered": {false, true, []SyscallSet{set(true, "read")}, []behavior.Fact{from(behavior.OriginExec, calls("read"))}, 0},
		"both, and the container does it too": {true, true, []SyscallSet{set(false, "read"), set(true, "read")},
			[]behavior.Fact{calls("read"), from(behavior.OriginExec, calls("read"))}, 0},
		"both, and the container does not": {true, true, []SyscallSet{set(true, "mount", "umount2")},
			[]behavior.Fact{from(behavior.OriginProbe, calls("mount")), from(behavior.OriginProbe, calls("umount2"))}, 2},
		"nobody knows yet who": {false, false, []SyscallSet{set(true, "read")}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := probed(t)
			want := c.want
			if c.probe {
				b.enters(5, runs("/bin/ls"), "ls", "/data")
				want = append(slices.Clone(want), from(behavior.OriginProbe, runs("/bin/ls")))
			}
			if c.people {
				b.enters(6, runs("/bin/sh"), "sh")
				want = append(slices.Clone(want), from(behavior.OriginExec, runs("/bin/sh")))
			}
			b.sees(77, 100, reads("/x"))
			b.kern.calls[77] = c.sets
			for range 2 {
				if err := b.refresh(); err != nil {
					t.Fatal(err)
				}
			}
			b.want(idA, append(want, reads("/x"))...)
			if got := b.lostOf(idA)[mixedCalls]; got != c.lost {
				t.Errorf("lost %v, want %d", b.lostOf(idA), c.lost)
			}
		})
	}
}

func TestParentsOfARecordAreEvidence(t *testing.T) {
	b := probed(t)
	for _, parent := range []string{"/b", "/a"} {
		b.record(Record{MountNS: 77, PID: 100, Time: b.clock, Fact: reads("/x"), Parent: parent, HasParent: true})
	}
	for _, e := range b.store.containers[idA].entries {
		if !slices.Equal(e.parents, []string{"/a", "/b"}) {
			t.Errorf("parents are %q", e.parents)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("--port=$(PORT)$$(X)$(")
	f.Fuzz(func(t *testing.T, text string) {
		got := expand(text, map[string]string{"PORT": "80"})
		if !strings.Contains(text, "$") && got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	})
}
