package engine

import "fmt"

// Answer is a Truth with what it hangs on when it is Maybe.
type Answer struct {
	Truth Truth
	Why   string // for Maybe: what is not known, such as "the names of 192.0.2.1"
}

// Certain is an Answer that hangs on nothing.
func Certain(b bool) Answer { return Answer{Truth: TruthOf(b)} }

// Unsure is Maybe, for that reason.
func Unsure(format string, args ...any) Answer {
	return Answer{Maybe, fmt.Sprintf(format, args...)}
}

// And is Yes when both are.
func (a Answer) And(b Answer) Answer {
	if b.Truth < a.Truth {
		return b
	}
	return a
}

// Or is Yes when one is.
func (a Answer) Or(b Answer) Answer {
	if b.Truth > a.Truth {
		return b
	}
	return a
}

// Ballot adds up what several policies of one engine say about one fact, for
// engines in which allowing rules add up, denying rules beat them, and a pod that
// some policy isolates is refused what no rule allows. The zero Ballot is empty.
type Ballot struct {
	governs, isolates, allows, denies vote
}

type vote struct {
	answer Answer
	object string
}

func (v *vote) add(object string, a Answer) {
	if a.Truth > v.answer.Truth {
		*v = vote{a, object}
	}
}

// Govern says whether the object has rules in the fact's direction for the pod.
func (b *Ballot) Govern(object string, a Answer) { b.governs.add(object, a) }

// Isolate says whether the object makes the pod one that is refused what no rule
// allows.
func (b *Ballot) Isolate(object string, a Answer) { b.isolates.add(object, a) }

// Allow says whether a rule of the object allows the fact.
func (b *Ballot) Allow(object string, a Answer) { b.allows.add(object, a) }

// Deny says whether a rule of the object denies the fact.
func (b *Ballot) Deny(object string, a Answer) { b.denies.add(object, a) }

// Verdict is the outcome.
func (b *Ballot) Verdict() Verdict {
	if b.governs.answer.Truth == No {
		return Verdict{}
	}
	passes := b.denies.answer.Truth.Not().And(b.allows.answer.Truth.Or(b.isolates.answer.Truth.Not()))
	switch {
	case b.denies.answer.Truth == Yes:
		return Verdict{Denied, b.denies.object, "a rule of it denies that"}
	case passes == No:
		return Verdict{Denied, b.isolates.object, "no rule allows it"}
	case passes == Yes && b.allows.answer.Truth == Yes:
		return Verdict{Allowed, b.allows.object, "a rule of it allows that"}
	case passes == Yes && b.governs.answer.Truth == Yes:
		return Verdict{Allowed, b.governs.object, "it refuses nothing by default"}
	case passes == Yes:
		return Verdict{}
	}
	for _, v := range []vote{b.denies, b.allows, b.isolates} {
		if v.answer.Truth == Maybe {
			return Verdict{Unknown, v.object, "it hangs on " + v.answer.Why}
		}
	}
	return Verdict{Unknown, b.governs.object, "it hangs on what is not known"}
}
