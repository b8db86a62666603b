package kubearmor

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	kjson "sigs.k8s.io/json"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// judge decides by the policies and postures of all namespaces that it was given.
type judge struct {
	policies []object // in order of the input
	clusters []string // cluster policies, which are not judged
	postures map[string][classes]string
	tables   sync.Map // behavior.Subject → *tables
}

// tables are those of one container. They differ where a policy's container
// selector means one thing in a cluster and another outside of one.
type tables struct {
	labels     map[string]string
	sure, wide *table
	doubtful   []string // policies in wide only
}

// Parse implements engine.Engine. A Namespace among the objects gives the
// postures; without its annotations the posture is audit.
func (Engine) Parse(objects []engine.Object) (engine.Judge, error) {
	j := &judge{postures: map[string][classes]string{}}
	for _, o := range objects {
		switch {
		case o.Kind == "Namespace" && o.APIVersion == "v1":
			p, err := postures(o)
			if err != nil {
				return nil, err
			}
			j.postures[o.Name] = p
		case o.Kind == kind:
			p, err := decode(o)
			if err != nil {
				return nil, err
			}
			j.policies = append(j.policies, p)
		case o.Kind == "KubeArmorClusterPolicy" && strings.HasPrefix(o.APIVersion, "security.kubearmor.com/"):
			j.clusters = append(j.clusters, o.Kind+"/"+behavior.Escape(o.Name))
		}
	}
	return j, nil
}

// postures reads what a Namespace says of what no rule matches.
func postures(o engine.Object) (p [classes]string, err error) {
	var ns struct {
		Metadata struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(o.JSON, &ns); err != nil {
		return p, &engine.InvalidError{Object: "Namespace/" + behavior.Escape(o.Name), Reason: behavior.Escape(err.Error())}
	}
	for class, annotation := range []string{classProcess: FilePosture, classFile: FilePosture, classNetwork: NetworkPosture, classCapability: CapabilitiesPosture} {
		p[class] = strings.ToLower(ns.Metadata.Annotations[annotation])
	}
	return p, nil
}

// Judge implements engine.Judge. What an audit posture reports is allowed, and
// the reason says so. What the container's runtime did before KubeArmor knew of
// the container, and capabilities that the kernel refused by itself, are not
// KubeArmor's.
func (j *judge) Judge(s engine.Subject, f behavior.Fact) engine.Verdict {
	if f.Runtime || f.Refused || f.Kind == behavior.Syscall {
		return engine.Verdict{}
	}
	t := j.tablesOf(s)
	v := t.sure.judge(f, j.postures[s.Workload.Namespace])
	if len(t.doubtful) > 0 {
		if w := t.wide.judge(f, j.postures[s.Workload.Namespace]); w.Decision != v.Decision {
			return engine.Verdict{Decision: engine.Unknown, Object: t.doubtful[0],
				Reason: "its container selector means one thing in a cluster and another outside of one; write ^name$"}
		}
	}
	if len(j.clusters) > 0 {
		return engine.Verdict{Decision: engine.Unknown, Object: j.clusters[0], Reason: "cluster policies are not judged"}
	}
	return v
}

func (j *judge) tablesOf(s engine.Subject) *tables {
	if cached, ok := j.tables.Load(s.Subject); ok {
		if t := cached.(*tables); maps.Equal(t.labels, s.Labels) {
			return t
		}
	}
	t := &tables{labels: maps.Clone(s.Labels), sure: newTable(), wide: newTable()}
	for _, p := range j.policies {
		cluster, elsewhere := p.selects(s)
		if cluster && elsewhere {
			t.sure.add(p)
		}
		if cluster || elsewhere {
			t.wide.add(p)
		}
		if cluster != elsewhere {
			t.doubtful = append(t.doubtful, kind+"/"+behavior.Escape(p.Metadata.Name))
		}
	}
	j.tables.Store(s.Subject, t)
	return t
}

// selects tells whether the policy is for the container, as read in a cluster
// and as read elsewhere.
func (o object) selects(s engine.Subject) (cluster, elsewhere bool) {
	if o.Metadata.Namespace != s.Workload.Namespace {
		return false, false
	}
	cluster, elsewhere = true, true
	for k, v := range o.Spec.Selector.MatchLabels {
		if k == containerLabel {
			cluster, elsewhere = selectsContainer(v, s.Container)
			continue
		}
		if have, ok := s.Labels[k]; !ok || have != v {
			return false, false
		}
	}
	if !o.Spec.Selector.expressions(s.Labels) {
		return false, false
	}
	return cluster, elsewhere
}

func selectsContainer(selector, name string) (cluster, elsewhere bool) {
	if len(selector) > 2 {
		for container := range strings.SplitSeq(selector[1:len(selector)-1], ",") {
			cluster = cluster || strings.TrimSpace(container) == name
		}
	} else {
		cluster = true
	}
	expression, err := regexp.CompilePOSIX(selector)
	return cluster, err == nil && expression.MatchString(name)
}

// expressions tells whether the labels satisfy matchExpressions, whose values
// are whole labels: one In must match where there are any, and no NotIn; where
// there are NotIn, their absence is enough.
func (s selector) expressions(labels map[string]string) bool {
	var in, notIn []string
	for _, e := range s.MatchExpressions {
		if e.Operator == "In" {
			in = append(in, e.Values...)
		} else {
			notIn = append(notIn, e.Values...)
		}
	}
	has := func(label string) bool {
		k, v, _ := strings.Cut(label, "=")
		have, ok := labels[k]
		return ok && have == v
	}
	switch {
	case len(in)+len(notIn) == 0:
		return true
	case slices.ContainsFunc(notIn, has):
		return false
	case len(notIn) > 0:
		return true
	}
	return slices.ContainsFunc(in, has)
}

// judge decides about a fact by one container's table.
func (t *table) judge(f behavior.Fact, posture [classes]string) engine.Verdict {
	switch f.Kind {
	case behavior.Process:
		v := t.judgeProcess(f.Path, f.Parent, posture)
		if f.Interpreter != "" && (v.Decision == engine.Allowed || v.Decision == engine.NotMine) {
			if i := t.judgeProcess(f.Interpreter, f.Parent, posture); i.Decision != engine.NotMine && i.Decision != engine.Allowed {
				i.Reason = "its interpreter " + f.Interpreter + " is run: " + i.Reason
				return i
			}
		}
		return v
	case behavior.File:
		return t.judgeOperation(f, posture)
	case behavior.Network:
		return t.judgeNetwork(f, posture)
	case behavior.Capability:
		r, ok := t.matchCapability(f.Name, raw(f.Exe))
		return t.verdict(classCapability, r, ok, posture)
	}
	return engine.Verdict{}
}

// judgeProcess decides about running a program: that it may be run, and that the
// one that runs it may open its file.
func (t *table) judgeProcess(path, parent string, posture [classes]string) engine.Verdict {
	if raw(path) == "/" {
		return t.exempt(classProcess, "it has no path that is compared")
	}
	r, ok := t.process.match(kernelPath(raw(path)), raw(parent), true)
	run := t.verdict(classProcess, r, ok, posture)
	open := t.judgeFile(path, parent, behavior.Read, posture)
	switch {
	case run.Decision == engine.Denied || run.Decision == engine.Unknown && open.Decision != engine.Denied:
		return run
	case open.Decision == engine.Denied || open.Decision == engine.Unknown || run.Decision == engine.NotMine:
		if open.Reason != "" {
			open.Reason = "to run it, its file is opened: " + open.Reason
		}
		return open
	}
	return run
}

// judgeOperation decides about a file by what was done with it: not every way to
// change one is looked at.
func (t *table) judgeOperation(f behavior.Fact, posture [classes]string) engine.Verdict {
	switch f.Operation {
	case behavior.OpChown:
		return t.exempt(classFile, "a change of owner is not looked at")
	case behavior.OpTruncate, behavior.OpChmod, behavior.OpUnlink, behavior.OpRename, behavior.OpLink:
		r, ok := t.file.match(kernelPath(raw(f.Path)), raw(f.Exe), false)
		if ok && r.readOnly && !r.ownerOnly {
			return engine.Verdict{Decision: engine.Allowed, Object: r.object, Reason: "readOnly stops write(2) only, and not " + string(f.Operation)}
		}
	}
	return t.judgeFile(f.Path, f.Exe, f.Access, posture)
}

func (t *table) judgeFile(path, exe string, access behavior.Access, posture [classes]string) engine.Verdict {
	path = raw(path)
	if path == "/" || strings.HasPrefix(path, "pipe:") || strings.HasPrefix(path, "socket:") {
		return t.exempt(classFile, "it has no path that is compared")
	}
	r, ok := t.file.match(kernelPath(path), raw(exe), false)
	if ok && r.readOnly && !r.ownerOnly {
		if access.Has(behavior.Write) {
			return engine.Verdict{Decision: engine.Denied, Object: r.object, Reason: "readOnly denies writing, in an audit posture too"}
		}
		return engine.Verdict{Decision: engine.Allowed, Object: r.object, Reason: "readOnly allows reading"}
	}
	return t.verdict(classFile, r, ok, posture)
}

func (t *table) judgeNetwork(f behavior.Fact, posture [classes]string) engine.Verdict {
	kinds := sockets(f.Protocol)
	if len(kinds) == 0 && t.governs[classNetwork] != "" {
		return engine.Verdict{Decision: engine.Unknown, Object: t.governs[classNetwork], Reason: "which type of socket speaks " + f.Protocol + " is not known"}
	}
	var v engine.Verdict
	for i, s := range kinds {
		r, ok := t.matchSocket(s, raw(f.Exe))
		w := t.verdict(classNetwork, r, ok, posture)
		if i > 0 && w.Decision != v.Decision {
			return engine.Verdict{Decision: engine.Unknown, Object: t.governs[classNetwork], Reason: f.Protocol + " is spoken over sockets of several types"}
		}
		v = w
	}
	if v.Decision == engine.Denied && f.Anonymous() {
		return engine.Verdict{Decision: engine.Unknown, Object: v.Object, Reason: "which program did it was not seen"}
	}
	return v
}

func (t *table) exempt(c class, why string) engine.Verdict {
	if t.governs[c] == "" {
		return engine.Verdict{}
	}
	return engine.Verdict{Decision: engine.Allowed, Object: t.governs[c], Reason: why}
}

// verdict turns the rule that matched, if any, into a decision.
func (t *table) verdict(c class, r rule, matched bool, posture [classes]string) engine.Verdict {
	if t.governs[c] == "" {
		return engine.Verdict{}
	}
	is := func(d engine.Decision, object, format string, args ...any) engine.Verdict {
		return engine.Verdict{Decision: d, Object: object, Reason: fmt.Sprintf(format, args...)}
	}
	if n := t.size(); n > maxKeys {
		return is(engine.Unknown, t.governs[c], "its container needs %d keys of %d; KubeArmor drops the excess at random", n, maxKeys)
	}
	switch {
	case matched && r.args:
		return is(engine.Unknown, r.object, "it may be run with certain arguments only")
	case matched && r.ownerOnly:
		return is(engine.Unknown, r.object, "only the file's owner may")
	case matched && r.deny:
		return is(engine.Denied, r.object, "a Block rule matches")
	case matched:
		return is(engine.Allowed, r.object, "an Allow rule matches")
	case t.allow[c] == "":
		return is(engine.Allowed, t.governs[c], "no Block rule matches")
	case posture[c] == PostureBlock:
		return is(engine.Denied, t.allow[c], "no Allow rule matches, and the namespace's posture is block")
	}
	return is(engine.Allowed, t.allow[c], "audited: no Allow rule matches, but the namespace's posture is not block")
}

// raw gives the bytes behind escaped text. What is not escaped text stands for
// itself.
func raw(s string) string {
	if b, err := behavior.Unescape(s); err == nil {
		return b
	}
	return s
}
