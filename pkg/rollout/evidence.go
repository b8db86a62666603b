package rollout

import "github.com/autopolicy/kubectl-autopolicy/pkg/behavior"

// Evidence gives everything that the tree's policies were learned from, in order of
// subject.
func Evidence(in Input) ([]behavior.Profile, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	rec, _, err := read(in.Tree, in.Namespace)
	if err != nil {
		return nil, err
	}
	var all []behavior.Profile
	for _, s := range rec.Workloads {
		profiles, err := evidence(in.Tree, s.workload(in.Namespace), behavior.DecodeFile)
		if err != nil {
			return nil, err
		}
		all = append(all, sorted(profiles)...)
	}
	return all, nil
}
