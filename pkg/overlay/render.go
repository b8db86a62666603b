package overlay

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
)

// Kinds of objects whose posture a stage folder sets.
const (
	kindCilium    = "CiliumNetworkPolicy"
	kindNetwork   = "NetworkPolicy"
	kindKubeArmor = "KubeArmorPolicy"
	kindAdmission = "ValidatingAdmissionPolicyBinding"
	kindSeccomp   = "SeccompProfile"
	// hardening stands for KubeArmor policies that block from the first moment,
	// whatever the namespace's posture is.
	hardening = "autopolicy.dev/hardening"
)

// Posture is what KubeArmor does, in a whole namespace, about what no Allow rule
// of a container covers.
type Posture string

// Postures.
const (
	PostureAudit Posture = "audit"
	PostureBlock Posture = "block"
)

// Workload is what a workload's folder is made from.
type Workload struct {
	Slug string
	Base map[string][]byte // file name to the objects of one engine
	// Withheld leaves the KubeArmor policies out of stage audit, because the
	// namespace's posture is block and would enforce them.
	Withheld bool
}

// Render gives the kustomizations of a workload's base and stages, by path.
func Render(w Workload) (map[string][]byte, error) {
	if err := CheckSlug(w.Slug); err != nil {
		return nil, err
	}
	kinds, err := kindsOf(w)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	if len(w.Base) == 0 {
		b.WriteString(header + "resources: []\n")
	} else {
		b.WriteString(baseHeader)
	}
	for _, name := range slices.Sorted(maps.Keys(w.Base)) {
		b.WriteString("- " + name + "\n")
	}
	return map[string][]byte{
		path.Join(BaseFolder(w.Slug), Kustomization):                []byte(b.String()),
		path.Join(StageFolder(w.Slug, policy.Audit), Kustomization): auditKustomization(kinds, w.Withheld),
		path.Join(StageFolder(w.Slug, policy.Deny), Kustomization):  []byte(stageHeader),
	}, nil
}

// What our kustomizations begin with.
const (
	header      = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
	baseHeader  = header + "resources:\n"
	stageHeader = baseHeader + "- ../base\n"
)

// kindsOf finds which kinds, by API group, the base holds: a patch for a kind
// that is not there would only puzzle its readers.
func kindsOf(w Workload) (map[string]bool, error) {
	kinds := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(w.Base)) {
		docs, err := parse(path.Join(BaseFolder(w.Slug), name), w.Base[name], 0)
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			if kind := value(d, "kind"); kind != nil {
				kinds[kind.Value] = true
			}
			if value(d, "metadata", "labels", hardening) != nil {
				kinds[hardening] = true
			}
		}
	}
	return kinds, nil
}

// HasKubeArmor tells whether a workload's base holds policies of KubeArmor,
// which the namespace's posture decides about. The index is the tree's.
func HasKubeArmor(t Tree, files Index, slug string) (bool, error) {
	w := Workload{Slug: slug, Base: map[string][]byte{}}
	for _, p := range files.Below(BaseFolder(slug)) {
		if !bytes.Contains(t[p], []byte(kindKubeArmor)) && !bytes.Contains(t[p], []byte(`\`)) {
			continue // neither the kind nor an escaped spelling of it: spares the parser
		}
		if path.Ext(p) == ".yaml" && path.Base(p) != Kustomization {
			w.Base[strings.TrimPrefix(p, BaseFolder(slug)+"/")] = t[p]
		}
	}
	kinds, err := kindsOf(w)
	return kinds[kindKubeArmor], err
}

// auditKustomization patches what would enforce so that it does not.
func auditKustomization(kinds map[string]bool, withheld bool) []byte {
	var b strings.Builder
	b.WriteString(stageHeader)
	var patches []string
	if kinds[kindCilium] {
		patches = append(patches, `- target:
    group: cilium.io
    kind: CiliumNetworkPolicy
  patch: |-
    apiVersion: cilium.io/v2
    kind: CiliumNetworkPolicy
    metadata:
      name: any
    spec:
      enableDefaultDeny:
        egress: false
        ingress: false
`)
	}
	if kinds[kindAdmission] {
		patches = append(patches, `- target:
    group: admissionregistration.k8s.io
    kind: ValidatingAdmissionPolicyBinding
  patch: |-
    apiVersion: admissionregistration.k8s.io/v1
    kind: ValidatingAdmissionPolicyBinding
    metadata:
      name: any
    spec:
      validationActions:
      - Audit
      - Warn
`)
	}
	if kinds[kindSeccomp] {
		patches = append(patches, `- target:
    group: security-profiles-operator.x-k8s.io
    kind: SeccompProfile
  patch: |-
    apiVersion: security-profiles-operator.x-k8s.io/v1
    kind: SeccompProfile
    metadata:
      name: any
    spec:
      defaultAction: SCMP_ACT_LOG
`)
	}
	if kinds[hardening] && !withheld {
		patches = append(patches, `# Policies of hardening templates report only, until the workload is in deny.
- target:
    group: security.kubearmor.com
    kind: KubeArmorPolicy
    labelSelector: autopolicy.dev/hardening=block
  patch: |-
    apiVersion: security.kubearmor.com/v1
    kind: KubeArmorPolicy
    metadata:
      name: any
    spec:
      action: Audit
`)
	}
	if withheld && kinds[kindKubeArmor] {
		patches = append(patches, deletePatch("security.kubearmor.com", "v1", kindKubeArmor, "the namespace's posture is block and would enforce it"))
	}
	if kinds[kindNetwork] {
		patches = append(patches, deletePatch("networking.k8s.io", "v1", kindNetwork, "it has no mode that only reports"))
	}
	if len(patches) > 0 {
		b.WriteString("patches:\n" + strings.Join(patches, ""))
	}
	return []byte(b.String())
}

func deletePatch(group, version, kind, why string) string {
	return fmt.Sprintf(`# %[3]s is left out of this stage: %[4]s.
- target:
    group: %[1]s
    kind: %[3]s
  patch: |-
    $patch: delete
    apiVersion: %[1]s/%[2]s
    kind: %[3]s
    metadata:
      name: any
`, group, version, kind, why)
}

// postureKeys are KubeArmor's annotations on a namespace.
func postureKeys() []string {
	return []string{"kubearmor-capabilities-posture", "kubearmor-file-posture", "kubearmor-network-posture"}
}

// Namespace gives the bytes of namespace.yaml for a posture. An existing file
// keeps everything but the three values. The other annotations make Argo CD and
// Flux leave the namespace, which is its owner's, and what the owner set on it
// alone, also when the overlay is removed (measured with both).
func Namespace(old []byte, name string, p Posture) ([]byte, error) {
	if old == nil {
		quoted, err := yaml.Marshal(name) // a name may look like a number
		if err != nil {
			return nil, fmt.Errorf("write namespace %s: %w", printable(name), err)
		}
		return fmt.Appendf(nil, `# Only annotations are set; the namespace and all else on it stay its owner's.
apiVersion: v1
kind: Namespace
metadata:
  name: %[1]s
  annotations:
    argocd.argoproj.io/compare-options: IgnoreExtraneous
    argocd.argoproj.io/sync-options: Prune=false,Delete=false,ServerSideApply=true
    kubearmor-capabilities-posture: %[2]s
    kubearmor-file-posture: %[2]s
    kubearmor-network-posture: %[2]s
    kustomize.toolkit.fluxcd.io/prune: disabled
    kustomize.toolkit.fluxcd.io/ssa: Merge
`, bytes.TrimSpace(quoted), p), nil
	}
	data := bytes.Clone(old)
	for _, key := range postureKeys() {
		docs, err := parse(NamespaceFile, data, 0)
		if err != nil {
			return nil, err
		}
		if len(docs) != 1 || value(docs[0], "kind") == nil || value(docs[0], "kind").Value != "Namespace" {
			return nil, &InvalidError{File: NamespaceFile, Reason: "want the one Namespace " + name}
		}
		v := value(docs[0], "metadata", "annotations", key)
		if v == nil {
			return nil, &InvalidError{File: NamespaceFile, Reason: "annotation " + key + " is missing"}
		}
		if v.Value == string(p) {
			continue
		}
		text := newText(NamespaceFile, data)
		if err := text.replace(v, string(p)); err != nil {
			return nil, err
		}
		data = text.bytes()
	}
	return data, nil
}
