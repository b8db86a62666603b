package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/harden"
)

// Limits of a folder of templates, those of a folder in a repository.
const (
	maxTemplateFiles = gitops.MaxFiles
	maxTemplateFile  = gitops.MaxFileSize
)

// templates reads the built-in templates and those of the folders and
// repositories that were named.
func (a *app) templates(ctx context.Context, sources []string) ([]harden.Template, []harden.Skipped, error) {
	all, err := harden.BuiltIn()
	if err != nil {
		return nil, nil, err
	}
	var skipped []harden.Skipped
	for _, source := range sources {
		files, err := templateFiles(ctx, source)
		if err != nil {
			return nil, nil, fmt.Errorf("read templates of %s: %w", source, err)
		}
		more, useless, err := harden.Read(files, source)
		if err != nil {
			return nil, nil, fmt.Errorf("read templates of %s: %w", source, err)
		}
		if len(more)+len(useless) == 0 {
			return nil, nil, hinted(fmt.Errorf("%s has no template", source), "templates are listed in files named metadata.yaml, as in kubearmor/policy-templates")
		}
		for _, t := range more {
			if slices.ContainsFunc(all, func(x harden.Template) bool { return x.Name == t.Name }) {
				return nil, nil, hinted(fmt.Errorf("template %s of %s has a name that is taken", t.Name, source), "rename one of the two")
			}
			all = append(all, t)
		}
		skipped = append(skipped, useless...)
	}
	return all, skipped, nil
}

// templateFiles reads a folder of this machine, or of a repository: the folder in
// it is what follows a double slash, as in https://git.example.com/t.git//system.
// The credentials of the fleet's repository are not for others.
func templateFiles(ctx context.Context, source string) (map[string][]byte, error) {
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		return readFolder(source)
	}
	scheme, rest, isURL := strings.Cut(source, "://")
	if !isURL {
		rest = source
	}
	rest, dir, _ := strings.Cut(rest, "//")
	if isURL {
		rest = scheme + "://" + rest
	}
	r, err := gitops.Open(ctx, gitops.Options{URL: rest})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	files, _, err := r.Read(ctx, dir)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("folder %q of it has no files", behavior.Escape(dir))
	}
	return files, err
}

// readFolder reads the YAML files of a folder of this machine. Links are refused
// rather than followed: a folder that somebody else made could point anywhere.
func readFolder(dir string) (map[string][]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files := map[string][]byte{}
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.Type()&fs.ModeSymlink != 0:
			return fmt.Errorf("%s is a symbolic link", behavior.Escape(p))
		case !d.Type().IsRegular() || path.Ext(p) != ".yaml":
			return nil
		case len(files) == maxTemplateFiles:
			return fmt.Errorf("it has more than %d files", maxTemplateFiles)
		}
		f, err := root.Open(filepath.FromSlash(p))
		if err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(f, maxTemplateFile+1))
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("read %s: %w", behavior.Escape(p), err)
		}
		files[p] = data
		return nil
	})
	return files, err
}
