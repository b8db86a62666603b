package kubearmor_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ksp1 "github.com/kubearmor/KubeArmor/pkg/KubeArmorController/api/security.kubearmor.com/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
)

// schema is that of the policy in the CRD that KubeArmor's module carries.
func schema(t testing.TB) *spec.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kubearmor/KubeArmor/pkg/KubeArmorController").Output()
	if err != nil {
		t.Fatalf("find KubeArmor's module: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "config/crd/bases/security.kubearmor.com_kubearmorpolicies.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema spec.Schema }
			}
		}
	}
	if err := yaml.Unmarshal(data, &crd); err != nil {
		t.Fatal(err)
	}
	if len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != "v1" {
		t.Fatalf("unexpected versions in KubeArmor's CRD: %+v", crd.Spec.Versions)
	}
	return &crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

// valid fails the test for objects that KubeArmor's CRD or its Go types refuse,
// or that our own Parse does.
func valid(t testing.TB, base []byte) {
	t.Helper()
	validator := validate.NewSchemaValidator(schema(t), nil, "", strfmt.Default)
	given := objects(t, string(base))
	for _, o := range given {
		var data any
		if err := json.Unmarshal(o.JSON, &data); err != nil {
			t.Fatal(err)
		}
		if result := validator.Validate(data); !result.IsValid() {
			t.Errorf("the CRD refuses %s: %v\n%s", o.Name, result.Errors, base)
		}
		var typed ksp1.KubeArmorPolicy
		if err := yaml.UnmarshalStrict(o.JSON, &typed); err != nil {
			t.Errorf("KubeArmor's types refuse %s: %v", o.Name, err)
		}
	}
	if _, err := (kubearmor.Engine{}).Parse(given); err != nil {
		t.Errorf("parse what was rendered: %v", err)
	}
}

func TestTheSchemaCheckRefuses(t *testing.T) {
	validator := validate.NewSchemaValidator(schema(t), nil, "", strfmt.Default)
	var data any
	if err := yaml.Unmarshal([]byte(ksp("p", "file: {matchPaths: [{path: f}]}")[4:]), &data); err != nil {
		t.Fatal(err)
	}
	if validator.Validate(data).IsValid() {
		t.Error("a relative path passed the CRD's schema")
	}
}
