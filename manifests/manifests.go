// Package manifests holds the Kustomize base of the collector, as it is deployed.
// It holds no logic and knows no cluster.
package manifests

import "embed"

// Names that the base uses.
const (
	Namespace = "autopolicy-collector"
	DaemonSet = "collector"
	Container = "collector"
	Role      = "autopolicy-collector" // ClusterRole and ClusterRoleBinding
	Selector  = "app.kubernetes.io/name=autopolicy-collector"
	Port      = 9847 // on loopback in the pod
	ManagedBy = "autopolicy"
)

// Files are the base's files.
//
//go:embed kustomization.yaml namespace.yaml rbac.yaml daemonset.yaml
var Files embed.FS

// Names lists the files with objects, in the order in which they are applied.
func Names() []string { return []string{"namespace.yaml", "rbac.yaml", "daemonset.yaml"} }
