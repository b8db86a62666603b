package cli

import (
	"fmt"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// kinds are the workload kinds by the names that kubectl users type.
func kinds() map[string]string {
	names := map[string]string{}
	for kind, short := range map[string]string{
		"Deployment": "deploy", "StatefulSet": "sts", "DaemonSet": "ds", "CronJob": "cj", "Job": "", "Pod": "po", "ReplicaSet": "rs",
	} {
		lower := strings.ToLower(kind)
		for _, name := range []string{lower, lower + "s", short} {
			if name != "" {
				names[name] = kind
			}
		}
	}
	return names
}

// parseWorkload reads kind/name as kubectl takes it: deploy/web, deployment/web,
// deployments.apps/web.
func parseWorkload(namespace, arg string) (behavior.Workload, error) {
	kind, name, ok := strings.Cut(arg, "/")
	kind, _, _ = strings.Cut(strings.ToLower(kind), ".")
	if !ok || kind == "" || name == "" || strings.Contains(name, "/") {
		return behavior.Workload{}, hinted(fmt.Errorf("workload %q: want KIND/NAME", arg), "for example deploy/web")
	}
	if known, ok := kinds()[kind]; ok {
		kind = known
	} else {
		kind = strings.ToUpper(kind[:1]) + kind[1:]
	}
	return behavior.Workload{Namespace: namespace, Kind: kind, Name: name}, nil
}
