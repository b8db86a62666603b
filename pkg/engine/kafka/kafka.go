// Package kafka says who produces to and consumes from which topic, and renders the
// least that Kafka's own authorisation has to allow for it: Strimzi KafkaUser objects
// and kafka-acls commands. Network policies end at the broker's port, and Cilium 1.20
// has no Kafka rules any more.
//
// It enforces nothing and judges nothing: brokers do, and it is not known here
// whether their authoriser is on.
package kafka

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// Access is what one client does with one topic, group or the cluster.
type Access struct {
	Client   Client
	Resource Resource
	// Operations are Kafka's ACL operations that it needs, sorted.
	Operations []string
	// APIs are the requests that were seen, sorted; Count is how often, at least,
	// and Evidence that of all of them.
	APIs     []string
	Evidence behavior.Evidence
}

// Client is who asks: a workload, or an address outside.
type Client struct {
	Namespace string
	Workload  string // slug; empty outside the cluster
	Address   string // outside
	ID        string // the client id that it gives; escaped
}

// String names the client for people.
func (c Client) String() string {
	if c.Workload == "" {
		return c.Address
	}
	return c.Namespace + "/" + c.Workload
}

// Kind is the type of a resource as Kafka's ACLs have it.
type Kind string

// Kinds of resources.
const (
	Topic   Kind = "topic"
	Group   Kind = "group"
	Cluster Kind = "cluster"
)

// Resource is what an ACL is about.
type Resource struct {
	Kind Kind
	Name string // escaped; kafka-cluster for the cluster
}

// clusterName is the only name that a cluster resource has in Kafka.
const clusterName = "kafka-cluster"

// needs gives, for a request, the ACL operations on its topic, its consumer group
// and the cluster. They are those of the table in the section "Authorization and
// ACLs" of Apache Kafka's documentation (4.0); Describe is left out beside what implies
// it. ok is false for a request that is not known.
func needs(api string) (topic, group, cluster []string, ok bool) {
	switch api {
	case "produce":
		return []string{"Write"}, nil, nil, true
	case "fetch", "describe-producers":
		return []string{"Read"}, nil, nil, true
	case "list-offsets", "metadata", "offset-for-leader-epoch", "describe-topic-partitions":
		return []string{"Describe"}, nil, nil, true
	case "join-group", "sync-group", "heartbeat", "leave-group":
		return nil, []string{"Read"}, nil, true
	case "consumer-group-heartbeat":
		return []string{"Describe"}, []string{"Read"}, nil, true
	case "offset-commit":
		return []string{"Read"}, []string{"Read"}, nil, true
	case "offset-fetch":
		return []string{"Describe"}, []string{"Describe"}, nil, true
	case "describe-groups", "consumer-group-describe", "find-coordinator":
		return nil, []string{"Describe"}, nil, true
	case "delete-groups":
		return nil, []string{"Delete"}, nil, true
	case "offset-delete":
		return []string{"Read"}, []string{"Delete"}, nil, true
	case "init-producer-id":
		return nil, nil, []string{"IdempotentWrite"}, true
	case "create-topics":
		return []string{"Create"}, nil, nil, true
	case "delete-topics", "delete-records":
		return []string{"Delete"}, nil, nil, true
	case "create-partitions":
		return []string{"Alter"}, nil, nil, true
	case "describe-configs":
		return []string{"DescribeConfigs"}, nil, nil, true
	case "alter-configs", "incremental-alter-configs":
		return []string{"AlterConfigs"}, nil, nil, true
	case "api-versions", "sasl-handshake", "sasl-authenticate":
		return nil, nil, nil, true
	}
	return nil, nil, nil, false
}

// Note is a request of which no ACL can be made.
type Note struct {
	Client Client
	Text   string // escaped, one sentence
}

// Accesses tells who does what, from the facts of clients and of brokers. What both
// ends saw is one access. The result is in order of client and resource, whatever
// the order of the profiles.
func Accesses(profiles []behavior.Profile) ([]Access, []Note) {
	type key struct {
		client   Client
		resource Resource
	}
	found := map[key]*Access{}
	notes := map[Note]bool{}
	for _, p := range profiles {
		for f, e := range p.Facts.All() {
			if f.Kind != behavior.Kafka || !f.Own() {
				continue
			}
			client, ok := clientOf(p.Subject, f)
			if !ok {
				notes[Note{client, fmt.Sprintf("%s: who that is could not be found out", f)}] = true
				continue
			}
			topic, group, cluster, known := needs(f.Type)
			if !known {
				notes[Note{client, fmt.Sprintf("request %s has no entry in the table of what it needs", f.Type)}] = true
				continue
			}
			add := func(r Resource, operations []string) {
				if len(operations) == 0 {
					return
				}
				k := key{client, r}
				if found[k] == nil {
					found[k] = &Access{Client: client, Resource: r, Evidence: e}
				}
				a := found[k]
				a.Operations = append(a.Operations, operations...)
				a.APIs = append(a.APIs, f.Type)
				a.Evidence = behavior.MergeEvidence(a.Evidence, e)
			}
			if f.Name != "" {
				add(Resource{Topic, f.Name}, topic)
			}
			if f.Arguments != "" {
				add(Resource{Group, f.Arguments}, group)
			} else if len(group) > 0 {
				notes[Note{client, fmt.Sprintf("request %s was seen without its consumer group", f.Type)}] = true
			}
			add(Resource{Cluster, clusterName}, cluster)
		}
	}
	all := make([]Access, 0, len(found))
	for _, a := range found {
		a.Operations = sorted(a.Operations)
		a.APIs = sorted(a.APIs)
		all = append(all, *a)
	}
	slices.SortFunc(all, func(a, b Access) int {
		return cmp.Or(compareClients(a.Client, b.Client), cmp.Compare(a.Resource.Kind, b.Resource.Kind), cmp.Compare(a.Resource.Name, b.Resource.Name))
	})
	return all, slices.SortedFunc(maps.Keys(notes), func(a, b Note) int {
		return cmp.Or(compareClients(a.Client, b.Client), cmp.Compare(a.Text, b.Text))
	})
}

func compareClients(a, b Client) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Address, b.Address), cmp.Compare(a.ID, b.ID))
}

// clientOf tells who asked: the container itself on the way out, its peer on the way
// in.
func clientOf(s behavior.Subject, f behavior.Fact) (Client, bool) {
	if f.Direction == behavior.Egress {
		return Client{Namespace: s.Workload.Namespace, Workload: s.Workload.Slug(), ID: f.Target}, true
	}
	switch f.Peer.Kind {
	case behavior.PeerWorkload:
		return Client{Namespace: f.Peer.Namespace, Workload: f.Peer.Workload, ID: f.Target}, f.Peer.Workload != ""
	case behavior.PeerSelf:
		return Client{Namespace: s.Workload.Namespace, Workload: s.Workload.Slug(), ID: f.Target}, true
	}
	return Client{Address: f.Peer.Address.Unmap().String(), ID: f.Target}, f.Peer.Address.IsValid()
}

// Does says in a word or two what an access is for people: produces, consumes,
// manages or looks.
func (a Access) Does() string {
	var does []string
	for _, d := range []struct {
		word       string
		operations []string
	}{
		{"produces", []string{"Write", "IdempotentWrite"}},
		{"consumes", []string{"Read"}},
		{"manages", []string{"Create", "Delete", "Alter", "AlterConfigs"}},
	} {
		if slices.ContainsFunc(d.operations, func(o string) bool { return slices.Contains(a.Operations, o) }) {
			does = append(does, d.word)
		}
	}
	if len(does) == 0 {
		return "looks"
	}
	return strings.Join(does, ", ")
}

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
