package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

type initOptions struct {
	*app
	repository repositoryFlags
	gitops     string
	address    string
	dryRun     bool
	overwrite  bool
}

// gitopsNames are whom init writes an object for.
func gitopsNames() []string { return []string{"argocd", "flux"} }

func (a *app) init() *cobra.Command {
	o := &initOptions{app: a}
	c := &cobra.Command{
		Use:   "init",
		Short: "Write a configuration, and what makes Argo CD or Flux apply a namespace's policies",
		Long: `Write autopolicy.yaml into the working folder, and with --gitops the Argo CD
Application, or the Flux GitRepository and Kustomization, that apply the policies
of a namespace. Commit those where your clusters' objects are, or apply them.

 The repository is looked through for an Application, ApplicationSet,
Kustomization or kustomization.yaml that applies the folder already; where there
is one, it is named, and no second one is written.

 A file that is there is never replaced without --overwrite: what would change is
shown. Running it again changes nothing. It needs no cluster.

 Exit codes: 0 written or already there, 1 a file differs, 2 an error.`,
		Example: `  # Configure this folder for a repository
  kubectl autopolicy init --repo https://git.example.com/fleet.git

  # One repository for many clusters, and a Flux Kustomization for namespace shop
  kubectl autopolicy init -n shop --repo ssh://git@git.example.com/fleet.git --path clusters/prod/autopolicy --gitops=flux

  # Only show what would be written
  kubectl autopolicy init -n shop --repo https://git.example.com/fleet.git --gitops=argocd --dry-run`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	flags := c.Flags()
	o.repository.add(flags)
	flags.StringVar(&o.gitops, "gitops", "", "write the objects of argocd or flux as well")
	flags.StringVar(&o.address, "cluster-url", "", "URL that the cluster reads the repository from (default that of --repo)")
	flags.BoolVar(&o.dryRun, "dry-run", false, "print the files and write none")
	flags.BoolVar(&o.overwrite, "overwrite", false, "replace files that differ")
	// The error is that the flag does not exist, and it was made just now.
	_ = c.RegisterFlagCompletionFunc("gitops", cobra.FixedCompletions(gitopsNames(), cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o *initOptions) run(ctx context.Context) error {
	if o.gitops != "" && !slices.Contains(gitopsNames(), o.gitops) {
		return fmt.Errorf("--gitops=%s: want one of %s", o.gitops, strings.Join(gitopsNames(), ", "))
	}
	s, err := o.setup(nil, &decisionFlags{}, nil)
	if err != nil {
		return err
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	address := ""
	if o.gitops != "" {
		if address, err = applierURL(cmp.Or(o.address, o.repository.url)); err != nil {
			return err
		}
	}
	repository, err := gitops.Open(ctx, o.repository.options())
	if err != nil {
		return fmt.Errorf("open repository: %w", err)
	}
	defer repository.Close()
	v := initValues{
		URL: o.repository.url, Branch: repository.Branch(), Path: o.repository.path, Namespace: s.namespace,
		Folder: path.Join(o.repository.path, s.namespace), Address: address,
	}
	name := o.config
	if name == "" {
		name = configFile
	}
	files, err := v.render(map[string]string{name: configTemplate})
	if err != nil {
		return err
	}
	if o.gitops != "" {
		taken, err := o.takenBy(ctx, s, repository, v)
		if err != nil {
			return err
		}
		if !taken {
			more, err := v.render(map[string]string{"autopolicy-" + s.namespace + "-" + o.gitops + ".yaml": map[string]string{"argocd": argocdTemplate, "flux": fluxTemplate}[o.gitops]})
			if err != nil {
				return err
			}
			files = append(files, more...)
		}
	}
	return o.write(s, files)
}

// takenBy tells who applies the folder already, as far as the repository shows.
func (o *initOptions) takenBy(ctx context.Context, s *setup, r *gitops.Repository, v initValues) (bool, error) {
	tree, _, err := r.Read(ctx, "")
	var unsafe *gitops.UnsafeError
	if errors.As(err, &unsafe) {
		s.progress.say("the repository was not looked through for who applies %s: %s", v.Folder, err)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look through repository %s: %w", r.URL(), err)
	}
	found := appliers(tree, v.Folder)
	for _, f := range found {
		s.progress.say("%s is applied by %s already: nothing is written for it", v.Folder, f)
	}
	return len(found) > 0, nil
}

// applierURL is a repository's URL as Argo CD and Flux take it, without user
// information that is a secret.
func applierURL(repository string) (string, error) {
	text := repository
	if !strings.Contains(text, "://") {
		host, rest, ok := strings.Cut(text, ":")
		if !ok || strings.Contains(host, "/") || len(host) < 2 {
			return "", hinted(fmt.Errorf("repository %s is on this machine, where no cluster can read it", repository), "name the URL that the cluster reads it from with --cluster-url")
		}
		text = "ssh://" + host + "/" + strings.TrimPrefix(rest, "/")
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "ssh" {
		return "", hinted(errors.New("the repository's URL cannot be read by a cluster"), "name the URL that the cluster reads it from with --cluster-url")
	}
	if u.Scheme == "ssh" {
		u.User = url.User(u.User.Username())
	} else {
		u.User = nil
	}
	return u.String(), nil
}

// initFile is a file to be written.
type initFile struct {
	name string
	data []byte
}

// write writes what is not there; of what is there and differs it shows the
// difference.
func (o *initOptions) write(s *setup, files []initFile) error {
	differ := 0
	for _, f := range files {
		old, err := os.ReadFile(f.name)
		exists := err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s: %w", f.name, err)
		}
		switch {
		case exists && bytes.Equal(old, f.data):
			s.progress.say("%s is there already", f.name)
			continue
		case exists:
			change := rollout.Plan{Files: map[string][]byte{f.name: f.data}}
			fmt.Fprint(o.Out, change.Diff(overlay.Tree{f.name: old}, painter(o.Out)))
			if !o.overwrite {
				differ++
				continue
			}
		case o.dryRun:
			fmt.Fprintf(o.Out, "# %s\n%s", f.name, f.data)
		}
		if o.dryRun {
			continue
		}
		if err := os.WriteFile(f.name, f.data, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", f.name, err)
		}
		s.progress.say("wrote %s", f.name)
	}
	if differ > 0 {
		s.progress.say("%s left as it is; --overwrite replaces it", number(differ, "file"))
		return &silentError{ExitNotYet}
	}
	if o.dryRun {
		s.progress.say("dry run: nothing written")
	}
	return nil
}

// initValues are what the files are made of.
type initValues struct{ URL, Branch, Path, Namespace, Folder, Address string }

func (v initValues) render(templates map[string]string) ([]initFile, error) {
	var files []initFile
	for name, text := range templates {
		t, err := template.New(filepath.Base(name)).Funcs(template.FuncMap{"yaml": quoted}).Parse(text)
		if err != nil {
			return nil, fmt.Errorf("make %s: %w", name, err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, v); err != nil {
			return nil, fmt.Errorf("make %s: %w", name, err)
		}
		files = append(files, initFile{name, b.Bytes()})
	}
	slices.SortFunc(files, func(a, b initFile) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// quoted writes a text as a YAML scalar: as it is where that is one word, else in
// double quotes.
func quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("-._/:@", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) && !strings.ContainsAny(s[:1], "-:@0123456789.") && !strings.HasSuffix(s, ":") && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	return fmt.Sprintf("%q", s)
}

const configTemplate = `# How kubectl autopolicy finds the repository of your policies. A flag wins over
# what is here; docs/configuration.md has every field.
apiVersion: autopolicy.dev/v1alpha1
kind: Config
repository: {{yaml .URL}}
branch: {{yaml .Branch}}
# Folder of the repository; each namespace gets a folder in it.
path: {{yaml .Path}}
# Engines to write policies for; all by default.
# engines: [kubearmor, cilium, networkpolicy, seccomp]
# Where the forge is known, changes are offered as pull requests; push takes them
# to the branch directly.
# delivery: pull-request
# forge: {kind: gitea, url: https://git.example.com}
# pullRequest: {labels: [autopolicy], reviewers: []}
# Author and signature of commits; by default as git's own configuration says.
# author: {name: "", email: ""}
# signing: {key: ""}
`

const fluxTemplate = `# Flux applies the policies of namespace {{.Namespace}} from git. What is taken out of the folder is
# taken out of the cluster; the namespace itself is not: its object in the folder says so.
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata:
  name: autopolicy
  namespace: flux-system
spec:
  interval: 1m
  url: {{yaml .Address}}
  ref:
    branch: {{yaml .Branch}}
  # A Secret with the credentials, where the repository is not public.
  # secretRef: {name: autopolicy}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: autopolicy-{{.Namespace}}
  namespace: flux-system
spec:
  interval: 10m
  path: {{yaml (print "./" .Folder)}}
  prune: true
  sourceRef:
    kind: GitRepository
    name: autopolicy
`

const argocdTemplate = `# Argo CD applies the policies of namespace {{.Namespace}} from git. What is taken out of the folder
# is taken out of the cluster; the namespace itself is not: its object in the folder says so.
# Without a finalizer here, deleting the Application leaves the policies in force.
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata:
  name: autopolicy-{{.Namespace}}
  namespace: argocd
spec:
  project: default
  source:
    repoURL: {{yaml .Address}}
    targetRevision: {{yaml .Branch}}
    path: {{yaml .Folder}}
  destination:
    server: https://kubernetes.default.svc
    namespace: {{yaml .Namespace}}
  syncPolicy:
    automated:
      prune: true
      selfHeal: true
    syncOptions:
    # Only what the folder says of the namespace is set on it.
    - ServerSideApply=true
`
