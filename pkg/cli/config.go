package cli

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops/forge"
)

// flagOf is pflag's flag, named here so that only this file knows the package.
type flagOf = pflag.Flag

// repositoryFlags are the flags of every command that reads or writes git.
type repositoryFlags struct {
	url, branch, path string
	key, knownHosts   string
	name, email       string
	signing           string
	forge             string // its kind, where the host's name does not tell
}

func (f *repositoryFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "repo", "", "GitOps repository: a folder, or a file, https or ssh URL")
	flags.StringVar(&f.branch, "branch", "", "branch to read and commit to (default the repository's own)")
	flags.StringVar(&f.path, "path", "", "folder of the repository that holds the policies (default autopolicy)")
	flags.StringVar(&f.key, "ssh-key", "", "private key for an ssh repository (default the agent's)")
	flags.StringVar(&f.knownHosts, "ssh-known-hosts", "", "known_hosts file (default the user's)")
	flags.StringVar(&f.name, "author-name", "", "author of commits (default git's user.name)")
	flags.StringVar(&f.signing, "signing-key", "", "OpenPGP or SSH key file to sign commits with, or none (default as git's configuration says)")
	flags.StringVar(&f.email, "author-email", "", "author's address (default git's user.email)")
}

// merge fills what no flag gave from the configuration.
func (f *repositoryFlags) merge(c config) error {
	for _, m := range []struct {
		flag *string
		file string
	}{
		{&f.url, c.Repository}, {&f.branch, c.Branch}, {&f.path, c.Path}, {&f.key, c.SSH.Key},
		{&f.knownHosts, c.SSH.KnownHosts}, {&f.name, c.Author.Name}, {&f.email, c.Author.Email}, {&f.signing, c.Signing.Key},
	} {
		if *m.flag == "" {
			*m.flag = m.file
		}
	}
	f.forge = c.Forge.Kind
	if f.path == "" {
		f.path = defaultPath
	}
	if f.url == "" {
		return hinted(errNoRepository, "give --repo, or put 'repository: URL' into "+configFile)
	}
	if clean := path.Clean(f.path); path.IsAbs(f.path) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains(f.path, `\`) {
		return fmt.Errorf("path %q: want a folder inside the repository, with forward slashes", f.path)
	}
	f.path = path.Clean(f.path)
	return nil
}

// options says how to open the repository. Credentials come from the
// environment only, never from a flag that a process list would show.
func (f repositoryFlags) options() gitops.Options {
	o := gitops.Options{
		URL: f.url, Branch: f.branch, Auth: gitops.AuthFromEnv(os.Getenv),
		Author:  gitops.Signature{Name: f.name, Email: f.email},
		Signing: gitops.Signing{Key: f.signing, Passphrase: os.Getenv(gitops.EnvSigningPassphrase)},
	}
	kind := forge.Kind(f.forge)
	if kind == "" {
		kind, _ = forge.Detect(f.url)
	}
	if kind != "" && o.Auth.Token == "" {
		o.Auth.Token = forgeToken(kind)
		if kind == forge.Bitbucket && o.Auth.Username == "" {
			o.Auth.Username = "x-token-auth"
		}
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
