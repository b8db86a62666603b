package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

const (
	configVersion = "autopolicy.dev/v1alpha1"
	configKind    = "Config"
	configFile    = "autopolicy.yaml"
	defaultPath   = "autopolicy"
)

// config is autopolicy.yaml. A flag that was given wins over it.
type config struct {
	APIVersion string          `yaml:"apiVersion"`
	Kind       string          `yaml:"kind"`
	Repository string          `yaml:"repository"`
	Branch     string          `yaml:"branch"`
	Path       string          `yaml:"path"`
	Engines    []string        `yaml:"engines"`
	MutualAuth bool            `yaml:"mutualAuth"`
	Author     configAuthor    `yaml:"author"`
	SSH        configSSH       `yaml:"ssh"`
	Collector  configCollector `yaml:"collector"`
	SyncedBy   string          `yaml:"syncedBy"`
	// Delivery is pull-request or push; empty: a pull request where the forge is known.
	Delivery    string            `yaml:"delivery"`
	Signing     configSigning     `yaml:"signing"`
	Forge       configForge       `yaml:"forge"`
	PullRequest configPullRequest `yaml:"pullRequest"`
}

type configSigning struct {
	Key string `yaml:"key"`
}

type configForge struct {
	Kind string `yaml:"kind"`
	URL  string `yaml:"url"`
}

type configPullRequest struct {
	Labels    []string `yaml:"labels"`
	Reviewers []string `yaml:"reviewers"`
}

type configAuthor struct {
	Name  string `yaml:"name"`
	Email string `yaml:"email"`
}

type configSSH struct {
	Key        string `yaml:"key"`
	KnownHosts string `yaml:"knownHosts"`
}

type configCollector struct {
	Image string `yaml:"image"`
}

// readConfig reads the file that the user named, or autopolicy.yaml in the
// working folder where there is one.
func readConfig(name string) (config, error) {
	given := name != ""
	if !given {
		name = configFile
	}
	data, err := os.ReadFile(name)
	switch {
	case !given && errors.Is(err, fs.ErrNotExist):
		return config{}, nil
	case err != nil:
		return config{}, hinted(fmt.Errorf("read configuration: %w", err), "name a file with --config, or leave it out to use "+configFile+" in this folder")
	}
	c, err := decodeConfig(data)
	if err != nil {
		return config{}, hinted(fmt.Errorf("read configuration: %s%w", name, err),
			"the fields are apiVersion, kind, repository, branch, path, engines, author.name, author.email, ssh.key, ssh.knownHosts, collector.image, syncedBy, delivery, signing.key, forge.kind, forge.url, pullRequest.labels and pullRequest.reviewers")
	}
	if c.APIVersion != configVersion || c.Kind != configKind {
		return config{}, hinted(fmt.Errorf("read configuration: %s: apiVersion is %q and kind %q", name, c.APIVersion, c.Kind),
			fmt.Sprintf("begin the file with 'apiVersion: %s' and 'kind: %s'", configVersion, configKind))
	}
	// Files beside the configuration are named relative to it.
	for _, p := range []*string{&c.SSH.Key, &c.SSH.KnownHosts, &c.Signing.Key} {
		if *p != "" && *p != gitops.NoSigning && !strings.HasPrefix(*p, "~/") && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(name), *p)
		}
	}
	return c, nil
}

// decodeConfig reads the one document of a configuration. Its errors continue the
// file's name: ":LINE: reason", or ": reason".
func decodeConfig(data []byte) (config, error) {
	var c config
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	switch err := decoder.Decode(&c); {
	case errors.Is(err, io.EOF):
		return c, errors.New(": the file is empty")
	case err != nil:
		return c, yamlReason(err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return c, errors.New(": more than one YAML document")
	}
	return c, nil
}

// yamlReason says the first mistake in the user's words: what the library says of
// Go types and of its own way to the mistake is left out.
func yamlReason(err error) error {
	text, mistake := strings.TrimPrefix(err.Error(), "yaml: "), "not YAML: "
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) && len(wrong.Errors) > 0 {
		text, mistake = wrong.Errors[0], ""
	}
	line := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text)
	at := ": "
	if line != nil {
		text = strings.TrimPrefix(text, line[0])
		n, _ := strconv.Atoi(line[1]) // digits, by the expression
		if strings.HasPrefix(text, "did not find expected") {
			n++ // the parser counts from 0 where the scanner counts from 1
		}
		at = fmt.Sprintf(":%d: ", n)
	}
	text = regexp.MustCompile(`(?s)^field (.*) not found in type \S*$`).ReplaceAllString(text, "unknown field $1")
	if m := regexp.MustCompile("(?s)^cannot unmarshal !*(\\S+)( `.*`)? into (.*)$").FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("want %s, found %s", yamlWord(m[3]), yamlWord(m[1])+m[2])
	}
	return errors.New(at + mistake + text)
}

// yamlWord names a type of Go or YAML as people who write YAML call it.
func yamlWord(name string) string {
	switch {
	case name == "string" || name == "str":
		return "a text"
	case name == "seq" || strings.HasPrefix(name, "[]"):
		return "a list"
	case name == "map" || strings.HasPrefix(name, "cli."):
		return "a mapping of fields"
	}
	return "a value of type " + name
}
