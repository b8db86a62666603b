// Package kubearmor renders rules as KubeArmorPolicy objects and judges facts by
// such objects, whoever wrote them, as KubeArmor's BPF LSM enforcer decides: by
// rebuilding the table of keys that it hands to the kernel and walking it as the
// kernel does.
//
// It renders only what that enforcer honours: resolved paths, no patterns, no
// readOnly (which denies in any posture), and never more keys than a container
// may have. What does not fit is widened or left out, and noted.
package kubearmor

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Name is the engine's name.
const Name = "kubearmor"

// The annotations on a Namespace that say what happens to what no rule of an
// allow list matches: PostureAudit or PostureBlock. The file posture is that of
// processes, too.
const (
	FilePosture         = "kubearmor-file-posture"
	NetworkPosture      = "kubearmor-network-posture"
	CapabilitiesPosture = "kubearmor-capabilities-posture"

	PostureAudit = "audit"
	PostureBlock = "block"
)

// Limits of the enforcer.
const (
	maxKeys       = 256 // entries of a container's table in the kernel
	maxPath       = 199 // bytes of a path or source that are compared
	maxSlash      = 63  // index of the last slash of a folder that is looked up
	maxComponents = 20  // parts of a path that are walked, from its end
)

const (
	apiVersion     = "security.kubearmor.com/v1"
	kind           = "KubeArmorPolicy"
	containerLabel = "kubearmor.io/container.name"
)

// Engine implements engine.Engine. The zero value is ready for use.
type Engine struct{}

// Name implements engine.Engine.
func (Engine) Name() string { return Name }

// Annotations are the posture annotations that a Namespace needs while its
// furthest workload is at the stage; nil when it needs none.
func Annotations(stage policy.Stage) map[string]string {
	var posture string
	switch stage {
	case policy.Audit:
		posture = PostureAudit
	case policy.Deny:
		posture = PostureBlock
	default:
		return nil
	}
	return map[string]string{FilePosture: posture, NetworkPosture: posture, CapabilitiesPosture: posture}
}

// objectName is the name of the policy for one container, stable and within 63
// characters. The two dashes before the container keep it apart from the policy
// of another workload whose name ends like it.
func objectName(w behavior.Workload, container string) string {
	name := "autopolicy-" + w.Slug()
	if container != "" {
		name += "--" + container
	}
	if len(name) <= 63 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return strings.TrimRight(name[:54], "-.") + "-" + hex.EncodeToString(sum[:])[:8]
}

// containerSelector is the value of the container label that selects just one
// container: in a cluster KubeArmor cuts off the first and the last character
// and compares the rest; elsewhere it reads it as an unanchored expression.
// Both readings of this one select the same container.
func containerSelector(name string) string { return "^" + name + "$" }

var _ engine.Engine = Engine{}
