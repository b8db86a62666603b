package kubearmor

import (
	"cmp"
	"slices"
	"strings"
	"time"

	pb "github.com/kubearmor/KubeArmor/protobuf"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source"
	"github.com/autopolicy/kubectl-autopolicy/pkg/topology"
)

// What is kept at most.
const (
	maxFacts = 1 << 16 // of one container in one pod, as the collector keeps
	maxPods  = 1 << 14
)

// where names a container in a pod.
type where struct{ pod, container string }

// sighted is how often a fact was seen in one container, and when.
type sighted struct {
	count       uint64
	first, last int64
}

// watched is what is known of one container in one pod.
type watched struct {
	node, image, labels string
	owner               *owner
	first, last         int64
	facts               map[behavior.Fact]*sighted
	denied              map[denial]*sighted
	lost                map[string]*sighted
	spelled             bool // some path is as the program spelled it
}

type denial struct {
	fact    behavior.Fact
	policy  string
	audited bool
}

// Book keeps what events said, each distinct thing once. It is for one goroutine.
type Book struct {
	namespace  string
	containers map[where]*watched
	kinds      map[behavior.Kind]bool
	passed     map[string]uint64
	overflow   uint64 // events of pods beyond those that are kept
	events     uint64
	gaps       []string
}

// NewBook makes an empty book for the pods of one namespace.
func NewBook(namespace string) *Book {
	return &Book{namespace: namespace, containers: map[where]*watched{}, kinds: map[behavior.Kind]bool{}, passed: map[string]uint64{}}
}

// Events is how many events there were.
func (b *Book) Events() uint64 { return b.events }

// Distinct is how many different facts there are.
func (b *Book) Distinct() int {
	n := 0
	for _, w := range b.containers {
		n += len(w.facts)
	}
	return n
}

// Lost is how much is known to be lost, muted alerts as one for each stretch.
func (b *Book) Lost() uint64 {
	n := b.overflow
	for _, w := range b.containers {
		for _, l := range w.lost {
			n += l.count
		}
	}
	return n
}

// Gap notes in words, escaped, what could not be seen.
func (b *Book) Gap(text string) {
	if !slices.Contains(b.gaps, text) {
		b.gaps = append(b.gaps, text)
	}
}

// Log takes one log.
func (b *Book) Log(l *pb.Log) { b.add(ofLog(l)) }

// Alert takes one alert.
func (b *Book) Alert(a *pb.Alert) { b.add(ofAlert(a)) }

// AddJSON takes one line of either, as karmor prints them. It is ErrMessage when it
// cannot be read.
func (b *Book) AddJSON(line []byte) error {
	e, err := ofJSON(line)
	if err == nil {
		b.add(e)
	}
	return err
}

func (b *Book) add(e *event) {
	b.events++
	if e.NamespaceName != b.namespace || e.PodName == "" || e.ContainerName == "" {
		b.passed[passOther]++
		return
	}
	w := b.containers[where{e.PodName, e.ContainerName}]
	if w == nil {
		if len(b.containers) >= maxPods {
			b.overflow++
			return
		}
		w = &watched{facts: map[behavior.Fact]*sighted{}, denied: map[denial]*sighted{}, lost: map[string]*sighted{}, first: e.Timestamp}
		b.containers[where{e.PodName, e.ContainerName}] = w
	}
	w.first, w.last = min(w.first, e.Timestamp), max(w.last, e.Timestamp)
	w.node, w.image, w.labels = cmp.Or(behavior.Escape(e.HostName), w.node), cmp.Or(behavior.Escape(e.ContainerImage), w.image), cmp.Or(e.Labels, w.labels)
	if e.Owner != nil && e.Owner.Name != "" {
		w.owner = e.Owner
	}
	if e.Operation == "AlertThreshold" || e.Operation == "NetworkLimit" {
		see(w.lost, lostMuted, e.Timestamp)
		return
	}
	f, pass, lost := e.fact()
	if lost == "" && pass == "" && f.Validate() != nil {
		lost = lostUnknown
	}
	blocked := e.Action == "Block" && e.Result != resultPassed
	switch {
	case pass != "":
		b.passed[pass]++
	case lost != "":
		see(w.lost, lost, e.Timestamp)
	case e.Result != resultPassed && !blocked:
		b.passed[passFailed]++
	default:
		b.state(w, e, f, blocked)
	}
}

// state notes what was done, and what a policy had to say about it.
func (b *Book) state(w *watched, e *event, f behavior.Fact, blocked bool) {
	audited := !blocked && e.PolicyName != "" && strings.HasPrefix(e.Action, "Audit")
	if blocked || audited {
		d := denial{f, behavior.Escape(e.PolicyName), audited}
		if w.denied[d] != nil || len(w.denied) < maxFacts {
			see(w.denied, d, e.Timestamp)
		} else {
			see(w.lost, lostKinds, e.Timestamp)
		}
	}
	if blocked {
		return
	}
	if w.facts[f] == nil && len(w.facts) >= maxFacts {
		see(w.lost, lostKinds, e.Timestamp)
		return
	}
	see(w.facts, f, e.Timestamp)
	b.kinds[f.Kind] = true
	w.spelled = w.spelled || f.Kind == behavior.File && strings.HasPrefix(e.Data, "syscall=")
}

func see[K comparable](m map[K]*sighted, k K, at int64) {
	s := m[k]
	if s == nil {
		s = &sighted{first: at}
		m[k] = s
	}
	s.count++
	s.first, s.last = min(s.first, at), max(s.last, at)
}

func (s *sighted) evidence(pod string) behavior.Evidence {
	return behavior.Evidence{First: time.Unix(s.first, 0).UTC(), Last: time.Unix(s.last, 0).UTC(),
		Pods: map[string]uint64{pod: s.count}, Witnesses: []string{behavior.ByKubeArmor}}
}

// Result makes profiles of what the book holds. Pods that the events name and the
// topology does not know are added to it, as far as the events tell.
func (b *Book) Result(t *topology.Cluster) source.Result {
	bare := t.Blank() // then an address is nobody's in particular
	for key, w := range b.containers {
		if !t.Has(b.namespace, key.pod) {
			t.AddPod(w.pod(b.namespace, key), time.Time{})
			t.RemovePod(b.namespace, key.pod, time.Time{})
		}
	}
	t.Seal()
	result := source.Result{Profiles: behavior.Profiles{}, Topology: t, Passed: b.passed}
	profiles := map[behavior.Subject]*behavior.Profile{}
	profile := func(w behavior.Workload, container string, labels map[string]string) *behavior.Profile {
		s := behavior.Subject{Workload: w, Container: container}
		if profiles[s] == nil {
			profiles[s] = &behavior.Profile{Subject: s}
		}
		profiles[s].Labels = max(profiles[s].Labels, behavior.FormatLabels(labels))
		return profiles[s]
	}
	resolve := func(f behavior.Fact, pod string, at int64) []behavior.Fact {
		if bare {
			return []behavior.Fact{f}
		}
		return t.Resolve(f, b.namespace, pod, time.Unix(at, 0).UTC())
	}
	for key, w := range b.containers {
		workload, labels, _ := t.Workload(b.namespace, key.pod)
		p := profile(workload, behavior.Escape(key.container), labels)
		for f, s := range w.facts {
			for _, g := range resolve(f, key.pod, s.last) {
				p.Add(g, s.evidence(key.pod))
			}
		}
		for d, s := range w.denied {
			for _, g := range resolve(d.fact, key.pod, s.last) {
				result.Denials = append(result.Denials, source.Denial{Subject: p.Subject, Fact: g, Evidence: s.evidence(key.pod), Policy: d.policy, Audited: d.audited})
			}
		}
		p.Coverage = behavior.MergeCoverage(p.Coverage, b.coverage(key, w))
	}
	b.unseen(t, profile)
	for s, p := range profiles {
		p.Coverage.Replicas = max(p.Coverage.Replicas, t.Replicas(s.Workload), len(p.Coverage.Pods))
		result.Profiles[s] = *p
	}
	slices.SortFunc(result.Denials, func(x, y source.Denial) int {
		return cmp.Or(behavior.CompareSubjects(x.Subject, y.Subject), behavior.Compare(x.Fact, y.Fact), cmp.Compare(x.Policy, y.Policy))
	})
	return result
}

// unseen adds the containers of the namespace that no event was about: of them
// nothing can be claimed.
func (b *Book) unseen(t *topology.Cluster, profile func(behavior.Workload, string, map[string]string) *behavior.Profile) {
	for _, v := range t.View(b.namespace) {
		if v.Gone {
			continue
		}
		w, labels, _ := t.Workload(v.Namespace, v.Name)
		for _, name := range v.Containers {
			p := profile(w, name, labels)
			if b.containers[where{v.Name, name}] == nil {
				p.Coverage = behavior.MergeCoverage(p.Coverage, behavior.Coverage{Gaps: []string{"pod " + v.Name + ": KubeArmor told nothing of it"}})
			}
		}
	}
}

// coverage is what KubeArmor can claim of one container. It tells nothing of the
// container's life, and of a kind only where its visibility settings ask for that.
func (b *Book) coverage(key where, w *watched) behavior.Coverage {
	at := func(sec int64) time.Time { return time.Unix(sec, 0).UTC() }
	c := behavior.Coverage{Hooks: map[behavior.Kind][]string{}, Gaps: slices.Clone(b.gaps),
		Pods: map[string]behavior.PodCoverage{key.pod: {Node: w.node, Image: w.image, From: at(w.first), To: at(w.last)}}}
	for k := range b.kinds {
		c.Hooks[k] = []string{behavior.ByKubeArmor}
	}
	if w.spelled {
		c.Gaps = append(c.Gaps, "KubeArmor tells paths as programs spell them, with symbolic links that no policy matches")
	}
	if b.kinds[behavior.Network] {
		c.Gaps = append(c.Gaps, "KubeArmor tells of no UDP but questions to DNS servers")
	}
	lose := func(reason string, n uint64) {
		if c.Lost == nil {
			c.Lost, c.LostAt = map[string]uint64{}, map[string]behavior.Span{}
		}
		c.Lost[reason] += n
	}
	for reason, s := range w.lost {
		lose(key.pod+": "+reason, s.count)
		c.LostAt[key.pod+": "+reason] = behavior.Span{First: at(s.first), Last: at(s.last)}
	}
	if b.overflow > 0 {
		lose("events of more pods than are kept", b.overflow)
	}
	return c
}

// pod is what the events tell of a pod.
func (w *watched) pod(namespace string, key where) topology.Pod {
	p := topology.Pod{Meta: topology.Meta{Namespace: namespace, Name: key.pod, Labels: map[string]string{}}}
	p.Spec.NodeName = w.node
	p.Spec.Containers = []topology.Container{{Name: key.container}}
	for text := range strings.SplitSeq(w.labels, ",") {
		if k, v, ok := strings.Cut(text, "="); ok && k != "" && source.PlainLabel(k) && source.PlainLabel(v) {
			p.Meta.Labels[k] = v
		}
	}
	if w.owner != nil && w.owner.Ref != "Pod" {
		p.Meta.Owners = []topology.Owner{{Kind: w.owner.Ref, Name: w.owner.Name, Controller: true}}
	}
	return p
}
