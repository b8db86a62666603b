package kafka

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Principal names who a client is to the broker, and says whether that is known.
type Principal func(Client) (string, bool)

// user is a Strimzi KafkaUser, as far as it is written here. Its schema is
// kafka.strimzi.io/v1beta2.
type user struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       struct {
		Authorization authorization `json:"authorization"`
	} `json:"spec"`
}

type metadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

type authorization struct {
	Type string `json:"type"` // simple: the broker's own authoriser
	ACLs []acl  `json:"acls"`
}

type acl struct {
	Resource   resource `json:"resource"`
	Operations []string `json:"operations"`
	Host       string   `json:"host"`
}

type resource struct {
	Type        string `json:"type"`
	Name        string `json:"name,omitempty"`
	PatternType string `json:"patternType,omitempty"`
}

// Users renders a KafkaUser for each workload that is a client, in one YAML stream:
// namespace is that of the Kafka cluster, where the user operator looks, and cluster
// its name. How a user proves who it is is left to its owner. Clients outside of the
// cluster have no KafkaUser, and are noted.
func Users(accesses []Access, namespace, cluster string, name Principal) ([]byte, []Note, error) {
	var notes []Note
	users := map[string]*user{}
	for _, a := range accesses {
		principal, ok := name(a.Client)
		if !ok {
			notes = append(notes, Note{a.Client, "it is no workload of the cluster: give it a KafkaUser by hand"})
			continue
		}
		raw, why := plain(a.Resource)
		if why != "" {
			notes = append(notes, Note{a.Client, why})
			continue
		}
		u := users[principal]
		if u == nil {
			u = &user{APIVersion: "kafka.strimzi.io/v1beta2", Kind: "KafkaUser",
				Metadata: metadata{Name: principal, Namespace: namespace, Labels: map[string]string{"strimzi.io/cluster": cluster}}}
			u.Spec.Authorization.Type = "simple"
			users[principal] = u
		}
		r := resource{Type: string(a.Resource.Kind)}
		if a.Resource.Kind != Cluster {
			r.Name, r.PatternType = raw, "literal"
		}
		u.allow(r, a.Operations)
	}
	var out strings.Builder
	for _, principal := range slices.Sorted(maps.Keys(users)) {
		u := users[principal]
		slices.SortFunc(u.Spec.Authorization.ACLs, func(a, b acl) int {
			return cmp.Or(cmp.Compare(a.Resource.Type, b.Resource.Type), cmp.Compare(a.Resource.Name, b.Resource.Name))
		})
		data, err := yaml.Marshal(u)
		if err != nil {
			return nil, nil, fmt.Errorf("marshal KafkaUser %s: %w", principal, err)
		}
		if out.Len() > 0 {
			out.WriteString("---\n")
		}
		out.Write(data)
	}
	return []byte(out.String()), tidy(notes), nil
}

// allow adds operations on a resource; clients of one principal are joined.
func (u *user) allow(r resource, operations []string) {
	list := &u.Spec.Authorization.ACLs
	for i := range *list {
		if (*list)[i].Resource == r {
			(*list)[i].Operations = sorted(append((*list)[i].Operations, operations...))
			return
		}
	}
	*list = append(*list, acl{Resource: r, Operations: slices.Clone(operations), Host: "*"})
}

// Commands renders lines for a shell that give the same with kafka-acls. Names are
// quoted, whatever is in them; bootstrap is the broker's address.
func Commands(accesses []Access, bootstrap string, name Principal) ([]byte, []Note) {
	var out strings.Builder
	var notes []Note
	lines := map[string]bool{}
	for _, a := range accesses {
		principal, ok := name(a.Client)
		if !ok {
			notes = append(notes, Note{a.Client, "it is no workload of the cluster: name its principal by hand"})
			continue
		}
		raw, why := plain(a.Resource)
		if why != "" {
			notes = append(notes, Note{a.Client, why})
			continue
		}
		words := []string{"kafka-acls.sh", "--bootstrap-server", quote(bootstrap), "--add", "--allow-principal", quote("User:" + principal)}
		for _, o := range a.Operations {
			words = append(words, "--operation", o)
		}
		if a.Resource.Kind == Cluster {
			words = append(words, "--cluster")
		} else {
			words = append(words, "--"+string(a.Resource.Kind), quote(raw), "--resource-pattern-type", "literal")
		}
		lines[strings.Join(words, " ")+"\n"] = true
	}
	for _, l := range slices.Sorted(maps.Keys(lines)) {
		out.WriteString(l)
	}
	return []byte(out.String()), tidy(notes)
}

// plain gives a resource's name as Kafka has it. A name that Kafka would not take is
// no resource; * stands for all in an ACL, and was asked for literally by nobody.
func plain(r Resource) (raw, why string) {
	raw, err := behavior.Unescape(r.Name)
	if err != nil {
		return "", fmt.Sprintf("%s %s is no name", r.Kind, behavior.Escape(r.Name))
	}
	if raw == "*" || raw == "" {
		return "", fmt.Sprintf("%s %q would stand for all: left out", r.Kind, raw)
	}
	if r.Kind != Topic {
		if strings.ContainsFunc(raw, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd }) {
			return "", fmt.Sprintf("%s %s has a character that no command or file should: left out", r.Kind, r.Name)
		}
		return raw, ""
	}
	// org.apache.kafka.common.internals.Topic: at most 249 of these.
	bad := func(c rune) bool {
		return c != '.' && c != '_' && c != '-' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9')
	}
	if len(raw) > 249 || raw == "." || raw == ".." || strings.ContainsFunc(raw, bad) {
		return "", fmt.Sprintf("topic %s is no name that Kafka takes: left out", r.Name)
	}
	return raw, ""
}

// quote makes one word of a POSIX shell of whatever it is.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func tidy(notes []Note) []Note {
	slices.SortFunc(notes, func(a, b Note) int { return cmp.Or(compareClients(a.Client, b.Client), cmp.Compare(a.Text, b.Text)) })
	return slices.Compact(notes)
}
