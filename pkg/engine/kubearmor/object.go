package kubearmor

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	kjson "sigs.k8s.io/json"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine"
)

// object is a KubeArmorPolicy, with every field of its schema.
type object struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   metadata        `json:"metadata"`
	Spec       spec            `json:"spec"`
	Status     json.RawMessage `json:"status,omitempty"`
}

type metadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

type spec struct {
	Selector     selector        `json:"selector"`
	Process      *paths          `json:"process,omitempty"`
	File         *paths          `json:"file,omitempty"`
	Network      *network        `json:"network,omitempty"`
	Capabilities *capabilities   `json:"capabilities,omitempty"`
	Syscalls     json.RawMessage `json:"syscalls,omitempty"`
	Presets      json.RawMessage `json:"presets,omitempty"`
	AppArmor     string          `json:"apparmor,omitempty"`
	report
}

type selector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []expression      `json:"matchExpressions,omitempty"`
}

type expression struct {
	Key      string   `json:"key,omitempty"`
	Operator string   `json:"operator,omitempty"`
	Values   []string `json:"values,omitempty"`
}

// report is what every level of a policy may say; the innermost one counts.
type report struct {
	Severity int      `json:"severity,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Message  string   `json:"message,omitempty"`
	Action   string   `json:"action,omitempty"`
}

type source struct {
	Path string `json:"path,omitempty"`
}

// paths are the rules for processes or files.
type paths struct {
	MatchPaths       []pathRule    `json:"matchPaths,omitempty"`
	MatchDirectories []dirRule     `json:"matchDirectories,omitempty"`
	MatchPatterns    []patternRule `json:"matchPatterns,omitempty"`
	report
}

type pathRule struct {
	Path        string   `json:"path,omitempty"`
	ExecName    string   `json:"execname,omitempty"`    // processes
	AllowedArgs []string `json:"allowedArgs,omitempty"` // processes
	ReadOnly    bool     `json:"readOnly,omitempty"`    // files
	OwnerOnly   bool     `json:"ownerOnly,omitempty"`
	FromSource  []source `json:"fromSource,omitempty"`
	report
}

type dirRule struct {
	Dir        string   `json:"dir"`
	Recursive  bool     `json:"recursive,omitempty"`
	ReadOnly   bool     `json:"readOnly,omitempty"` // files
	OwnerOnly  bool     `json:"ownerOnly,omitempty"`
	FromSource []source `json:"fromSource,omitempty"`
	report
}

type patternRule struct {
	Pattern   string `json:"pattern"`
	ReadOnly  bool   `json:"readOnly,omitempty"` // files
	OwnerOnly bool   `json:"ownerOnly,omitempty"`
	report
}

type network struct {
	MatchProtocols  []protocolRule  `json:"matchProtocols,omitempty"`
	MatchDNSQueries json.RawMessage `json:"matchDNSQueries,omitempty"`
	report
}

type protocolRule struct {
	Protocol   string   `json:"protocol"`
	FromSource []source `json:"fromSource,omitempty"`
	report
}

type capabilities struct {
	MatchCapabilities []capabilityRule `json:"matchCapabilities,omitempty"`
	report
}

type capabilityRule struct {
	Capability string   `json:"capability"`
	FromSource []source `json:"fromSource,omitempty"`
	report
}

// decode reads a policy strictly and refuses what the API server would refuse or
// prune, and what the enforcer would silently never match.
func decode(o engine.Object) (object, error) {
	invalid := func(format string, args ...any) (object, error) {
		return object{}, &engine.InvalidError{Object: kind + "/" + behavior.Escape(o.Name), Reason: behavior.Escape(fmt.Sprintf(format, args...))}
	}
	if o.APIVersion != apiVersion {
		return invalid("apiVersion %s: want %s", o.APIVersion, apiVersion)
	}
	// Metadata holds more than is read here, and is the API server's to check.
	var outer struct {
		APIVersion json.RawMessage `json:"apiVersion"`
		Kind       json.RawMessage `json:"kind"`
		Metadata   json.RawMessage `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
		Status     json.RawMessage `json:"status"`
	}
	if err := strict(o.JSON, &outer); err != nil {
		return invalid("%v", err)
	}
	p := object{APIVersion: o.APIVersion, Kind: o.Kind, Metadata: metadata{Name: o.Name, Namespace: o.Namespace}}
	if len(outer.Spec) > 0 {
		if err := strict(outer.Spec, &p.Spec); err != nil {
			return invalid("spec: %v", err)
		}
	}
	if err := p.Spec.check(); err != nil {
		return invalid("%v", err)
	}
	t := newTable()
	t.add(p)
	if n := t.size(); n > maxKeys {
		return invalid("it takes %d of the %d keys that a container may have; KubeArmor would drop the excess at random", n, maxKeys)
	}
	return p, nil
}

// strict decodes JSON as the API server does, but refuses fields that it would
// prune.
func strict(data []byte, into any) error {
	pruned, err := kjson.UnmarshalStrict(data, into)
	return errors.Join(append(pruned, err)...)
}

func (s spec) check() error {
	if err := s.report.check(); err != nil {
		return err
	}
	for _, e := range s.Selector.MatchExpressions {
		if e.Key != "label" || e.Operator != "In" && e.Operator != "NotIn" {
			return fmt.Errorf("matchExpressions: want key label and operator In or NotIn, got %s %s", e.Key, e.Operator)
		}
	}
	if s.Process != nil {
		if err := s.Process.check(true); err != nil {
			return fmt.Errorf("process: %w", err)
		}
	}
	if s.File != nil {
		if err := s.File.check(false); err != nil {
			return fmt.Errorf("file: %w", err)
		}
	}
	if s.Network != nil {
		if err := s.Network.check(); err != nil {
			return fmt.Errorf("network: %w", err)
		}
	}
	if s.Capabilities != nil {
		if err := s.Capabilities.check(); err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	return nil
}

func (r report) check() error {
	if r.Severity < 0 || r.Severity > 10 {
		return fmt.Errorf("severity %d: want 1 to 10", r.Severity)
	}
	switch r.Action {
	case "", "Allow", "Audit", "Block":
		return nil
	}
	return fmt.Errorf("action %s: want Allow, Audit or Block", r.Action)
}

func (p paths) check(process bool) error {
	if err := p.report.check(); err != nil {
		return err
	}
	for _, r := range p.MatchPaths {
		switch {
		case !process && (r.ExecName != "" || len(r.AllowedArgs) > 0):
			return fmt.Errorf("path %s: execname and allowedArgs are for processes", r.Path)
		case process && r.ReadOnly:
			return fmt.Errorf("path %s: readOnly is for files", r.Path)
		case len(r.AllowedArgs) > 20:
			return fmt.Errorf("path %s: more than 20 allowedArgs", r.Path)
		case strings.Contains(r.ExecName, "/"):
			return fmt.Errorf("execname %s: want a name without a slash", r.ExecName)
		}
		if r.Path != "" || r.ExecName == "" {
			if err := checkPath(r.Path); err != nil {
				return err
			}
		}
		if err := checkRule(r.report, r.FromSource); err != nil {
			return fmt.Errorf("path %s: %w", r.Path, err)
		}
	}
	for _, r := range p.MatchDirectories {
		switch {
		case process && r.ReadOnly:
			return fmt.Errorf("dir %s: readOnly is for files", r.Dir)
		case !strings.HasPrefix(r.Dir, "/") || !strings.HasSuffix(r.Dir, "/") || strings.Contains(r.Dir, "\n"):
			return fmt.Errorf("dir %s: want an absolute path that ends in a slash", r.Dir)
		case len(r.Dir)-1 > maxSlash:
			return fmt.Errorf("dir %s: its last slash is beyond index %d, so nothing in it would ever match", r.Dir, maxSlash)
		}
		if err := checkRule(r.report, r.FromSource); err != nil {
			return fmt.Errorf("dir %s: %w", r.Dir, err)
		}
	}
	for _, r := range p.MatchPatterns {
		if err := r.check(); err != nil {
			return fmt.Errorf("pattern %s: %w", r.Pattern, err)
		}
	}
	return nil
}

func (n network) check() error {
	if err := n.report.check(); err != nil {
		return err
	}
	for _, r := range n.MatchProtocols {
		low := strings.HasSuffix
		known := slices.ContainsFunc(protocolNames(), func(name string) bool {
			return low(r.Protocol, name) || low(r.Protocol, strings.ToUpper(name))
		})
		if !known {
			return fmt.Errorf("protocol %s is not one of %s", r.Protocol, strings.Join(protocolNames(), ", "))
		}
		if err := checkRule(r.report, r.FromSource); err != nil {
			return fmt.Errorf("protocol %s: %w", r.Protocol, err)
		}
	}
	return nil
}

func (c capabilities) check() error {
	if err := c.report.check(); err != nil {
		return err
	}
	for _, r := range c.MatchCapabilities {
		if !slices.ContainsFunc(capabilityNames(), func(name string) bool { return strings.HasSuffix(r.Capability, name) }) {
			return fmt.Errorf("capability %s is not one of %s", r.Capability, strings.Join(capabilityNames(), ", "))
		}
		if err := checkRule(r.report, r.FromSource); err != nil {
			return fmt.Errorf("capability %s: %w", r.Capability, err)
		}
	}
	return nil
}

func checkRule(r report, sources []source) error {
	for _, s := range sources {
		if err := checkPath(s.Path); err != nil {
			return fmt.Errorf("fromSource: %w", err)
		}
	}
	return r.check()
}

func checkPath(path string) error {
	switch {
	case len(path) < 2 || path[0] != '/' || strings.HasSuffix(path, "/") || strings.Contains(path, "\n"):
		return fmt.Errorf("path %q: want an absolute path without a slash at its end", path)
	case utf8.RuneCountInString(path) > 200 || len(path) > maxPath:
		return fmt.Errorf("path %s: longer than %d bytes, so it would never match", path, maxPath)
	}
	return nil
}

// protocolNames are what matchProtocols takes, in lower case.
func protocolNames() []string {
	return []string{"tcp", "udp", "raw", "icmp", "icmpv6", "sctp", "stream", "dgram", "rdm", "seqpacket", "dccp", "packet", "all"}
}

// capabilityNames are what matchCapabilities takes, by their number in the
// kernel; syslog and what the kernel got after it cannot be said.
func capabilityNames() []string {
	return []string{"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
		"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module",
		"sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time",
		"sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin"}
}
