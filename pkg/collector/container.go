//go:build linux

package collector

import (
	"maps"
	"slices"
	"time"
	"unique"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior/wire"
)

// container is everything that is known of one container.
type container struct {
	info    containerInfo
	from    time.Time
	to      time.Time // zero while it runs
	start   bool      // its first program was seen to start
	entries map[factKey]*entry
	lost    map[string]uint64
	lostAt  map[string]behavior.Span
	linkers linkers
	mounts  mounts
	names   names
	revisions

	held       []string  // capabilities of its processes when it was found running
	restarts   int       // containers of its name in its pod that were observed before it
	terminated bool      // its end was seen
	unready    bool      // it was seen not being ready
	ready      bool      // it was seen becoming ready
	readySince time.Time // zero while it is not ready
	newAt      time.Time // when it last did something new by itself
	steady     bool

	restored bool // read back, and not met since
}

// has tells whether a fact of the container is known.
func (k *container) has(f behavior.Fact) bool { return k.entries[unique.Make(f)] != nil }

// lose counts facts that were lost at some time between two moments.
func (k *container) lose(reason string, n uint64, from, to time.Time) {
	if n == 0 {
		return
	}
	if k.lost == nil {
		k.lost, k.lostAt = map[string]uint64{}, map[string]behavior.Span{}
	}
	k.lost[reason] += n
	k.lostAt[reason] = extend(k.lostAt[reason], from, to)
}

// extend widens a span, the zero one of which is empty.
func extend(s behavior.Span, from, to time.Time) behavior.Span {
	if s.First.IsZero() || from.Before(s.First) {
		s.First = from.UTC()
	}
	if to.After(s.Last) {
		s.Last = to.UTC()
	}
	return s
}

// noteNew remembers that the container did something for the first time; what was
// there before, what its runtime did and what people did in it is no news.
func (k *container) noteNew(o sighting) {
	if o.fact.Own() && !o.snapshot && o.at.After(k.newAt) {
		k.newAt = o.at
	}
}

// update takes over what the API server says of the container now. Observing
// began at attached.
func (k *container) update(info containerInfo, attached, now time.Time) {
	k.info = info
	if !info.ready {
		k.unready, k.readySince = true, time.Time{}
		return
	}
	if k.readySince.IsZero() {
		k.readySince = now
	}
	// One that began while it was observed was not ready at first, whether or
	// not the API server showed it so.
	if k.unready || info.started.After(attached) {
		k.ready = true
	}
	since := k.readySince
	if k.newAt.After(since) {
		since = k.newAt
	}
	if k.to.IsZero() && now.Sub(since) >= behavior.SteadyAfter {
		k.steady = true
	}
}

// wire describes the container without its facts. All text is escaped:
// an image's name is what a person wrote into a pod.
func (k *container) wire(now time.Time) wire.Container {
	to := k.to
	if to.IsZero() {
		to = now
	}
	lost, lostAt := maps.Clone(k.lost), maps.Clone(k.lostAt)
	if n := len(k.linkers.unknown); n > 0 {
		if lost == nil {
			lost, lostAt = map[string]uint64{}, map[string]behavior.Span{}
		}
		const reason = "dynamic linker of a program that was gone"
		lost[reason] = uint64(n)
		for _, p := range k.linkers.unknown {
			lostAt[reason] = extend(lostAt[reason], p.at, p.at)
		}
	}
	return wire.Container{
		Namespace: behavior.Escape(k.info.namespace), Pod: behavior.Escape(k.info.pod), UID: behavior.Escape(k.info.uid),
		Name: behavior.Escape(k.info.name), ID: behavior.Escape(k.info.id), Image: behavior.Escape(k.info.image),
		From: k.from.UTC(), To: to.UTC(), Start: k.start, Ready: k.ready, Steady: k.steady, Terminated: k.terminated,
		Restarts: k.restarts, Held: slices.Clone(k.held), Lost: lost, LostAt: lostAt, Mounts: k.mounted(),
	}
}

// mounted gives the mounts; of a container that was gone before they could be read,
// the volumes that its specification says.
func (k *container) mounted() map[string]behavior.Mount {
	if k.mounts.found != nil || len(k.info.volumes) > maxMounts {
		return k.mounts.found
	}
	volumes := map[string]behavior.Mount{}
	for path, m := range k.info.volumes {
		volumes[behavior.Escape(path)] = m
	}
	return volumes
}
