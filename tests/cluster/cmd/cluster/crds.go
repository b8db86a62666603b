package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// crdFile is one CRD file and the module that has it. The files stay in
// their modules, which the project depends on already.
type crdFile struct{ module, path string }

func crdFiles() []crdFile {
	const (
		cilium    = "github.com/cilium/cilium"
		ciliumDir = "pkg/k8s/apis/cilium.io/client/crds/v2/"
		kubearmor = "github.com/kubearmor/KubeArmor/pkg/KubeArmorController"
		armorDir  = "config/crd/bases/"
	)
	return []crdFile{
		{cilium, ciliumDir + "ciliumnetworkpolicies.yaml"},
		{cilium, ciliumDir + "ciliumclusterwidenetworkpolicies.yaml"},
		{kubearmor, armorDir + "security.kubearmor.com_kubearmorpolicies.yaml"},
		{kubearmor, armorDir + "security.kubearmor.com_kubearmorclusterpolicies.yaml"},
		{kubearmor, armorDir + "security.kubearmor.com_kubearmorhostpolicies.yaml"},
	}
}

// crds copies the CRDs of the engines' own modules into a folder, for
// kubectl apply -f. The modules' versions are those of the main go.mod.
func crds(ctx context.Context, args []string, _, stderr io.Writer) error {
	l := newLine("crds", stderr)
	moduleDir := l.flags.String("module-dir", "", "folder of the main module (default: found from here)")
	if err := l.parse(args, 1, 1); err != nil {
		return err
	}
	if *moduleDir == "" {
		source, err := findSource("")
		if err != nil {
			return err
		}
		*moduleDir = filepath.Dir(filepath.Dir(source))
	}
	if err := os.MkdirAll(l.words[0], 0o755); err != nil {
		return err
	}
	for _, f := range crdFiles() {
		dir, err := fetchModule(ctx, *moduleDir, f.module)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, f.path))
		if err != nil {
			return fmt.Errorf("read a CRD: %w", err)
		}
		if err := os.WriteFile(filepath.Join(l.words[0], filepath.Base(f.path)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fetchModule returns the folder of a module that go.mod in dir names, and
// downloads it where the module cache lacks it.
func fetchModule(ctx context.Context, dir, module string) (string, error) {
	for _, args := range [][]string{{"mod", "download", module}, {"list", "-m", "-f", "{{.Dir}}", module}} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
		}
		if args[0] == "list" {
			return strings.TrimSpace(string(out)), nil
		}
	}
	return "", nil
}
