package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

// flagOf is pflag's flag, named here so that only this file knows the package.
type flagOf = pflag.Flag

const (
	configVersion = "autopolicy.dev/v1alpha1"
	configKind    = "Config"
	configFile    = "autopolicy.yaml"
	defaultPath   = "autopolicy"
)

// config is autopolicy.yaml. A flag that was given wins over it.
type config struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Repository string          `json:"repository,omitempty"`
	Branch     string          `json:"branch,omitempty"`
	Path       string          `json:"path,omitempty"`
	Engines    []string        `json:"engines,omitempty"`
	Author     configAuthor    `json:"author,omitzero"`
	SSH        configSSH       `json:"ssh,omitzero"`
	Collector  configCollector `json:"collector,omitzero"`
}

type configAuthor struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

type configSSH struct {
	Key        string `json:"key,omitempty"`
	KnownHosts string `json:"knownHosts,omitempty"`
}

type configCollector struct {
	Image string `json:"image,omitempty"`
}

// readConfig reads the file that the user named, or autopolicy.yaml in the
// working folder where there is one.
func readConfig(name string) (config, error) {
	c := config{APIVersion: configVersion, Kind: configKind}
	given := name != ""
	if !given {
		name = configFile
	}
	data, err := os.ReadFile(name)
	switch {
	case !given && errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, hinted(fmt.Errorf("read configuration %s: %s", name, yamlReason(err)),
			"the fields are apiVersion, kind, repository, branch, path, engines, author, ssh and collector; see docs/configuration.md")
	}
	if c.APIVersion != configVersion || c.Kind != configKind {
		return c, hinted(fmt.Errorf("read configuration %s: it is %q %q", name, c.APIVersion, c.Kind),
			fmt.Sprintf("begin it with apiVersion: %s and kind: %s", configVersion, configKind))
	}
	// Files beside the configuration are named relative to it.
	for _, p := range []*string{&c.SSH.Key, &c.SSH.KnownHosts} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(name), *p)
		}
	}
	return c, nil
}

// yamlReason drops what the libraries say of their own way to the mistake.
func yamlReason(err error) string {
	text := err.Error()
	for _, prefix := range []string{"error unmarshaling JSON: ", "error converting YAML to JSON: ", "while decoding JSON: ", "yaml: ", "json: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return text
}

// repositoryFlags are the flags of every command that reads or writes git.
type repositoryFlags struct {
	url, branch, path string
	key, knownHosts   string
	name, email       string
}

func (f *repositoryFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "repo", "", "GitOps repository: a folder, or a file, https or ssh URL")
	flags.StringVar(&f.branch, "branch", "", "branch to read and commit to (default the repository's own)")
	flags.StringVar(&f.path, "path", "", "folder of the repository that holds the policies (default autopolicy)")
	flags.StringVar(&f.key, "ssh-key", "", "private key for an ssh repository (default the agent's)")
	flags.StringVar(&f.knownHosts, "ssh-known-hosts", "", "known_hosts file (default the user's)")
	flags.StringVar(&f.name, "author-name", "", "author of commits (default git's user.name)")
	flags.StringVar(&f.email, "author-email", "", "author's address (default git's user.email)")
}

// merge fills what no flag gave from the configuration.
func (f *repositoryFlags) merge(c config) error {
	for _, m := range []struct {
		flag *string
		file string
	}{
		{&f.url, c.Repository}, {&f.branch, c.Branch}, {&f.path, c.Path}, {&f.key, c.SSH.Key},
		{&f.knownHosts, c.SSH.KnownHosts}, {&f.name, c.Author.Name}, {&f.email, c.Author.Email},
	} {
		if *m.flag == "" {
			*m.flag = m.file
		}
	}
	if f.path == "" {
		f.path = defaultPath
	}
	if f.url == "" {
		return hinted(errNoRepository, "give --repo, or put 'repository: URL' into "+configFile)
	}
	if clean := path.Clean(f.path); path.IsAbs(f.path) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains(f.path, `\`) {
		return fmt.Errorf("--path %q: want a folder inside the repository, with forward slashes", f.path)
	}
	f.path = path.Clean(f.path)
	return nil
}

// options says how to open the repository. Credentials come from the
// environment only, never from a flag that a process list would show.
func (f repositoryFlags) options() gitops.Options {
	o := gitops.Options{
		URL: f.url, Branch: f.branch, Auth: gitops.AuthFromEnv(os.Getenv),
		Author: gitops.Signature{Name: f.name, Email: f.email},
	}
	if f.key != "" {
		o.Auth.SSHKeyFile = f.key
	}
	if f.knownHosts != "" {
		o.Auth.KnownHosts = []string{f.knownHosts}
	}
	return o
}

// pick gives the first choice that names something.
func pick[T ~[]string](choices ...T) T {
	i := slices.IndexFunc(choices, func(c T) bool { return len(c) > 0 })
	if i < 0 {
		return nil
	}
	return choices[i]
}
