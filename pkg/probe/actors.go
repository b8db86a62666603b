//go:build linux

package probe

// maxActors bounds how many actors are remembered: twice what the programs keep
// of them, since one that user space forgot is introduced anew under another id.
const maxActors = 8192

// actors remembers those that the programs have introduced: a record of something
// that happened outside of its process only names one by its id.
type actors struct {
	known map[uint64]Record // by id; of the record, who it was
	order []uint64          // the oldest first
}

func (a *actors) add(id uint64, r Record) {
	if a.known == nil {
		a.known = map[uint64]Record{}
	}
	if _, ok := a.known[id]; !ok {
		a.order = append(a.order, id)
	}
	a.known[id] = r
	if len(a.order) > maxActors {
		delete(a.known, a.order[0])
		a.order = a.order[1:]
	}
}

// complete says in r whose it is; false when that was forgotten.
func (a *actors) complete(id uint64, r *Record) bool {
	who, ok := a.known[id]
	if ok {
		r.CgroupNames, r.Truncated, r.Session = who.CgroupNames, who.Truncated, who.Session
		r.Parent, r.HasParent = who.Parent, who.HasParent
		r.Fact.Exe, r.Fact.Runtime = who.Fact.Exe, who.Fact.Runtime
	}
	return ok
}
