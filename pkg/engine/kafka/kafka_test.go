package kafka

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

func asked(api, topic, group string, direction behavior.Direction, peer behavior.Peer) behavior.Fact {
	return behavior.Fact{Kind: behavior.Kafka, Exe: "/usr/bin/java", Direction: direction, Protocol: "tcp", Port: 9092, Peer: peer,
		Name: topic, Type: api, Target: "client-1", Arguments: group}
}

func of(name string, facts ...behavior.Fact) behavior.Profile {
	p := behavior.Profile{Subject: behavior.Subject{Workload: behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: name}, Container: name}}
	for _, f := range facts {
		p.Add(f, behavior.Evidence{Pods: map[string]uint64{name + "-1": 3}})
	}
	return p
}

var broker = behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "kafka", Workload: "statefulset-broker", Labels: "app=broker"}

func workload(name string) behavior.Peer {
	return behavior.Peer{Kind: behavior.PeerWorkload, Namespace: "shop", Workload: "deployment-" + name, Labels: "app=" + name}
}

func bySlug(c Client) (string, bool) { return c.Namespace + "." + c.Workload, c.Workload != "" }

// shop is an orders service that produces, a billing service that consumes, and
// somebody outside, as both ends saw them.
func shop() []behavior.Profile {
	return []behavior.Profile{
		of("orders", asked("produce", "orders", "", behavior.Egress, broker), asked("init-producer-id", "", "", behavior.Egress, broker),
			asked("metadata", "orders", "", behavior.Egress, broker), asked("api-versions", "", "", behavior.Egress, broker)),
		of("billing", asked("fetch", "orders", "", behavior.Egress, broker), asked("join-group", "", "billing", behavior.Egress, broker),
			asked("offset-commit", "orders", "billing", behavior.Egress, broker)),
		of("broker", asked("produce", "orders", "", behavior.Ingress, workload("orders")),
			asked("fetch", "orders", "", behavior.Ingress, behavior.Peer{Kind: behavior.PeerOutside, Address: netip.MustParseAddr("203.0.113.9")}),
			asked("made-up", "orders", "", behavior.Ingress, workload("orders"))),
	}
}

func TestAccessesAreOfWhoAskedWhicheverEndSawIt(t *testing.T) {
	accesses, notes := Accesses(shop())
	var got []string
	for _, a := range accesses {
		got = append(got, a.Client.String()+" "+a.Does()+" "+string(a.Resource.Kind)+" "+a.Resource.Name+": "+strings.Join(a.Operations, ","))
	}
	want := []string{
		"203.0.113.9 consumes topic orders: Read",
		"shop/deployment-billing consumes group billing: Read",
		"shop/deployment-billing consumes topic orders: Read",
		"shop/deployment-orders produces cluster kafka-cluster: IdempotentWrite",
		"shop/deployment-orders produces topic orders: Describe,Write",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(notes) != 1 || !strings.Contains(notes[0].Text, "made-up") {
		t.Errorf("notes: %v", notes)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	render := func(profiles []behavior.Profile) string {
		accesses, _ := Accesses(profiles)
		users, _, err := Users(accesses, "kafka", "prod", bySlug)
		if err != nil {
			t.Fatal(err)
		}
		commands, _ := Commands(accesses, "broker:9092", bySlug)
		return string(users) + string(commands)
	}
	want := render(shop())
	for seed := range uint64(20) {
		profiles := shop()
		rand.New(rand.NewPCG(seed, 1)).Shuffle(len(profiles), func(i, j int) { profiles[i], profiles[j] = profiles[j], profiles[i] })
		if got := render(profiles); got != want {
			t.Fatalf("seed %d:\n%s\nwant\n%s", seed, got, want)
		}
	}
}

func TestUsersAreWhatTheOperatorReads(t *testing.T) {
	accesses, _ := Accesses(shop())
	data, notes, err := Users(accesses, "kafka", "prod", bySlug)
	if err != nil {
		t.Fatal(err)
	}
	docs := strings.Split(string(data), "---\n")
	if len(docs) != 2 || len(notes) != 1 || notes[0].Client.Address == "" {
		t.Fatalf("%d users, notes %v", len(docs), notes)
	}
	var u user
	if err := yaml.UnmarshalStrict([]byte(docs[1]), &u); err != nil {
		t.Fatal(err)
	}
	if u.Metadata.Name != "shop.deployment-orders" || u.Metadata.Labels["strimzi.io/cluster"] != "prod" || len(u.Spec.Authorization.ACLs) != 2 {
		t.Errorf("%+v", u)
	}
	for _, a := range u.Spec.Authorization.ACLs {
		if a.Resource.Type == "cluster" && (a.Resource.Name != "" || a.Resource.PatternType != "") {
			t.Errorf("a cluster has no name: %+v", a)
		}
	}
}

// Names come from whoever speaks to the broker. A real shell must see one word.
func TestNamesOfPodsCannotLeaveTheirWord(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "kafka-acls.sh"), []byte("#!/bin/sh\nprintf '%s\\n' \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"a; touch /tmp/x", "$(id)", "`id`", `it's`, `"`, `\`, "*", "-rf", "--x"} {
		accesses, _ := Accesses([]behavior.Profile{of("x", asked("join-group", "", behavior.Escape(group), behavior.Egress, broker))})
		commands, notes := Commands(accesses, "broker:9092", bySlug)
		if group == "*" {
			if len(commands) > 0 || len(notes) != 1 {
				t.Errorf("%q: %s %v", group, commands, notes)
			}
			continue
		}
		out, err := exec.Command("sh", "-c", "PATH="+bin+":$PATH\n"+string(commands)).Output()
		if err != nil {
			t.Fatalf("%q: %v: %s", group, err, commands)
		}
		words := strings.Split(string(out), "\n")
		if i := slices.Index(words, "--group"); i < 0 || words[i+1] != group {
			t.Errorf("%q became %q", group, words)
		}
	}
	for _, topic := range []string{"*", "a b", "a/b", "..", "ä", strings.Repeat("x", 250)} {
		accesses, _ := Accesses([]behavior.Profile{of("x", asked("fetch", behavior.Escape(topic), "", behavior.Egress, broker))})
		data, notes, err := Users(accesses, "kafka", "prod", bySlug)
		if err != nil || len(data) > 0 || len(notes) != 1 {
			t.Errorf("topic %q: %s, %v, %v", topic, data, notes, err)
		}
	}
}
