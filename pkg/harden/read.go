package harden

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kubearmor"
)

//go:embed templates
var builtIn embed.FS

// Limits of a folder of templates, which somebody else writes.
const (
	maxFile    = 1 << 20 // bytes of one file
	maxRules   = 2000    // templates in a folder; kubearmor/policy-templates has some hundreds
	maxText    = 4000    // characters of a description that are kept
	maxPattern = 500     // characters of a precondition
)

// always is the precondition that needs no file.
const always = "OPTSCAN"

// FileError is a file of a folder of templates that cannot be used. Its text is
// escaped.
type FileError struct {
	File   string
	Reason string
}

// Error implements error.
func (e *FileError) Error() string {
	return behavior.Escape(e.File) + ": " + behavior.Escape(e.Reason)
}

// BuiltIn gives the templates that come with the program.
func BuiltIn() ([]Template, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(builtIn, "templates", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[p], err = builtIn.ReadFile(p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the built-in templates: %w", err)
	}
	all, skipped, err := Read(files, "built in")
	if err == nil && len(skipped) > 0 {
		err = fmt.Errorf("read the built-in templates: %s: %s", skipped[0].Name, skipped[0].Reason)
	}
	return all, err
}

// metadata is a metadata.yaml. What it says beside this is not looked at.
type metadata struct {
	Rules []rule `json:"policyRules"`
}

type rule struct {
	Name         string   `json:"name"`
	Precondition []string `json:"precondition"`
	Description  struct {
		Refs []struct {
			Name string   `json:"name"`
			URL  []string `json:"url"`
		} `json:"refs"`
		Tldr     string `json:"tldr"`
		Detailed string `json:"detailed"`
	} `json:"description"`
	YAML string         `json:"yaml"`
	Spec map[string]any `json:"spec"`
}

// Read reads the templates of every metadata.yaml among the files, given by path.
// A file that is not what it says it is, or that reaches out of the folder, is a
// FileError; a template that is sound and of no use to us is skipped. Source
// names the folder for people.
func Read(files map[string][]byte, source string) ([]Template, []Skipped, error) {
	var all []Template
	var skipped []Skipped
	names := map[string]int{}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		if path.Base(p) != "metadata.yaml" {
			continue
		}
		m, err := decode(p, files[p])
		if err != nil {
			return nil, nil, err
		}
		for i, r := range m.Rules {
			if len(all)+len(skipped) == maxRules {
				return nil, nil, &FileError{p, fmt.Sprintf("with it the folder has more than %d templates", maxRules)}
			}
			from := source
			if source != "built in" {
				from = behavior.Escape(source + ": " + p)
			}
			t, err := read(files, p, r)
			var useless *uselessError
			switch {
			case errors.As(err, &useless):
				skipped = append(skipped, Skipped{behavior.Escape(r.Name), from, behavior.Escape(useless.reason)})
				continue
			case err != nil:
				return nil, nil, err
			}
			if t.Name == "" {
				return nil, nil, &FileError{p, fmt.Sprintf("policyRules[%d] has no name", i)}
			}
			t.Source = from
			if names[t.Name]++; names[t.Name] > 1 {
				t.Name = fmt.Sprintf("%s-%d", t.Name, names[t.Name])
			}
			all = append(all, t)
		}
	}
	return all, skipped, nil
}

// uselessError is a template that is sound and that we can do nothing with.
type uselessError struct{ reason string }

func (e *uselessError) Error() string { return e.reason }

func decode(p string, data []byte) (metadata, error) {
	var m metadata
	if len(data) > maxFile {
		return m, &FileError{p, fmt.Sprintf("is larger than %d bytes", maxFile)}
	}
	raw, err := yaml.YAMLToJSONStrict(data)
	if err == nil {
		err = yaml.Unmarshal(raw, &m)
	}
	if err != nil {
		return m, &FileError{p, plain(err)}
	}
	return m, nil
}

// plain is a parser's error without the parser's own way to it.
func plain(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "read template: "), "yaml: ")
}

func read(files map[string][]byte, file string, r rule) (Template, error) {
	t := Template{Name: slug(r.Name), Summary: text(r.Description.Tldr), Detail: text(r.Description.Detailed)}
	for _, ref := range r.Description.Refs {
		for _, url := range ref.URL {
			t.References = append(t.References, Reference{text(ref.Name), text(url)})
		}
	}
	for _, p := range r.Precondition {
		if p == always {
			t.always = true
			continue
		}
		if len(p) > maxPattern {
			return t, &FileError{file, fmt.Sprintf("template %s: a precondition of more than %d characters", r.Name, maxPattern)}
		}
		expression, err := regexp.Compile(p)
		if err != nil {
			return t, &FileError{file, fmt.Sprintf("template %s: precondition %q is no regular expression", r.Name, p)}
		}
		t.matches = append(t.matches, expression)
	}
	spec, err := policy(files, file, r)
	if err != nil {
		return t, err
	}
	if t.parts, err = kubearmor.ParseTemplate(spec); err != nil {
		return t, &uselessError{plain(err)}
	}
	return t, nil
}

// policy finds the spec of a template's policy, in the rule itself or in the file
// beside it that the rule names.
func policy(files map[string][]byte, file string, r rule) ([]byte, error) {
	if len(r.Spec) > 0 {
		data, err := yaml.Marshal(r.Spec)
		if err != nil {
			return nil, &FileError{file, "template " + r.Name + ": " + err.Error()}
		}
		return data, nil
	}
	if r.YAML == "" {
		return nil, &uselessError{"it has neither spec nor yaml"}
	}
	if !fs.ValidPath(r.YAML) || strings.ContainsAny(r.YAML, "\\\x00\n\r") {
		return nil, &FileError{file, fmt.Sprintf("template %s: yaml %q is not the name of a file beside it", r.Name, r.YAML)}
	}
	p := path.Join(path.Dir(file), r.YAML)
	data, ok := files[p]
	if !ok {
		return nil, &uselessError{"the file " + p + " is not there"}
	}
	if len(data) > maxFile {
		return nil, &FileError{p, fmt.Sprintf("is larger than %d bytes", maxFile)}
	}
	var o struct {
		Kind string         `json:"kind"`
		Spec map[string]any `json:"spec"`
	}
	raw, err := yaml.YAMLToJSONStrict(data)
	if err == nil {
		err = yaml.Unmarshal(raw, &o)
	}
	if err != nil {
		return nil, &FileError{p, plain(err)}
	}
	if o.Kind != "KubeArmorPolicy" {
		return nil, &uselessError{"it is a " + o.Kind + ", and templates of KubeArmorPolicy only are applied"}
	}
	spec, err := yaml.Marshal(o.Spec)
	if err != nil {
		return nil, &FileError{p, err.Error()}
	}
	return spec, nil
}

// slug makes of a name one that an object may have.
func slug(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			b.WriteRune(r)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	s := b.String()
	return strings.Trim(s[:min(len(s), 60)], "-")
}

// text is prose as it may be shown: one line, bounded, escaped.
func text(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > maxText {
		s = string(r[:maxText]) + "..."
	}
	return behavior.Escape(s)
}
