package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/kafka"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

// Formats of kafka beside those of every command.
const (
	formatStrimzi = "strimzi"
	formatACLs    = "acls"
)

type kafkaOptions struct {
	*app
	repository repositoryFlags
	decision   decisionFlags
	output     outputFlag
	topics     []string
	cluster    string
	namespace  string
	bootstrap  string
}

func (a *app) kafka() *cobra.Command {
	o := &kafkaOptions{app: a}
	c := &cobra.Command{
		Use:   "kafka",
		Short: "Show who produces to and consumes from which topic, and the ACLs for that",
		Long: `Show which workload produces to and consumes from which Kafka topic, how often and
since when, as far as the repository's evidence has it, and write the least that
Kafka's own authorisation has to allow: KafkaUser objects of Strimzi (-o strimzi)
or kafka-acls commands (-o acls). Principals are named NAMESPACE.KIND-NAME after
the workload.

 Requests to Kafka are in the evidence where a source saw them: Hubble with
Layer 7 visibility. It needs the repository only, no cluster.

 Exit codes: 0 done, 2 an error.`,
		Example: `  # Who does what with Kafka, by the evidence of namespace shop
  kubectl autopolicy kafka -n shop

  # Only topic payments
  kubectl autopolicy kafka -n shop --topic payments

  # KafkaUser objects for the Strimzi cluster prod in namespace kafka
  kubectl autopolicy kafka -n shop -o strimzi --kafka-cluster prod --kafka-namespace kafka

  # The same as commands
  kubectl autopolicy kafka -n shop -o acls --bootstrap-server broker.kafka:9092`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context()) },
	}
	flags := c.Flags()
	o.repository.add(flags)
	o.output.add(c, "wide", "json", "yaml", formatStrimzi, formatACLs)
	flags.StringSliceVar(&o.topics, "topic", nil, "only what is about these topics")
	flags.StringVar(&o.cluster, "kafka-cluster", "", "name of the Strimzi Kafka cluster that the users are for")
	flags.StringVar(&o.namespace, "kafka-namespace", "", "namespace of the users (default: none is written)")
	flags.StringVar(&o.bootstrap, "bootstrap-server", "localhost:9092", "broker that the commands talk to")
	return c
}

func (o *kafkaOptions) run(ctx context.Context) error {
	s, err := o.setup(nil, &o.decision, &o.output)
	if err != nil {
		return err
	}
	if o.output.format == formatStrimzi && o.cluster == "" {
		return hinted(errors.New("no Kafka cluster is named"), "a KafkaUser belongs to one: name it with --kafka-cluster")
	}
	if err := o.repository.merge(s.config); err != nil {
		return err
	}
	f, err := o.open(ctx, o.repository, s.namespace, false)
	if err != nil {
		return err
	}
	defer f.close()
	if err := f.learned(s); err != nil {
		return err
	}
	profiles, err := rollout.Evidence(s.input(f.tree, nil, f))
	if err != nil {
		return f.blame(err)
	}
	accesses, notes := kafka.Accesses(profiles)
	if len(o.topics) > 0 {
		accesses = slices.DeleteFunc(accesses, func(a kafka.Access) bool {
			return a.Resource.Kind != kafka.Topic || !slices.Contains(o.topics, a.Resource.Name)
		})
	}
	if len(accesses) == 0 {
		o.empty(s, f)
	}
	switch o.output.format {
	case formatStrimzi:
		data, more, err := kafka.Users(accesses, o.namespace, o.cluster, principal)
		if err != nil {
			return err
		}
		fmt.Fprint(o.Out, string(data))
		notes = append(notes, more...)
	case formatACLs:
		data, more := kafka.Commands(accesses, o.bootstrap, principal)
		fmt.Fprint(o.Out, string(data))
		notes = append(notes, more...)
	case "json", "yaml":
		return o.output.write(o.Out, kafkaReports(accesses, notes))
	default:
		if err := o.print(accesses); err != nil {
			return err
		}
	}
	for _, n := range notes {
		fmt.Fprintln(o.ErrOut, "note: "+printable(n.Client.String()+": "+n.Text))
	}
	return nil
}

// empty says why there is nothing to show.
func (o *kafkaOptions) empty(s *setup, f *folder) {
	text := fmt.Sprintf("the evidence of namespace %s in %s has no request to Kafka", s.namespace, f.where())
	if len(o.topics) > 0 {
		text += " about " + strings.Join(o.topics, ", ")
	}
	fmt.Fprintln(o.ErrOut, printable(text))
}

// principal names a client after its workload; one outside the cluster has no name.
func principal(c kafka.Client) (string, bool) {
	return c.Namespace + "." + c.Workload, c.Workload != ""
}

type kafkaReport struct {
	Accesses []accessReport `json:"accesses"`
	Notes    []string       `json:"notes,omitempty"`
}

type accessReport struct {
	Client     string     `json:"client"`
	ClientID   string     `json:"clientID,omitempty"`
	Does       string     `json:"does"`
	Kind       kafka.Kind `json:"kind"`
	Name       string     `json:"name"`
	Operations []string   `json:"operations"`
	Requests   []string   `json:"requests"`
	Count      uint64     `json:"count"`
	First      time.Time  `json:"first"`
	Last       time.Time  `json:"last"`
}

func kafkaReports(accesses []kafka.Access, notes []kafka.Note) kafkaReport {
	r := kafkaReport{Accesses: []accessReport{}}
	for _, a := range accesses {
		r.Accesses = append(r.Accesses, accessReport{a.Client.String(), a.Client.ID, a.Does(), a.Resource.Kind, a.Resource.Name,
			a.Operations, a.APIs, a.Evidence.Count(), a.Evidence.First, a.Evidence.Last})
	}
	for _, n := range notes {
		r.Notes = append(r.Notes, n.Client.String()+": "+n.Text)
	}
	return r
}

func (o *kafkaOptions) print(accesses []kafka.Access) error {
	if len(accesses) == 0 {
		return nil
	}
	headings := []string{"CLIENT", "CLIENT ID", "DOES", "KIND", "NAME", "SEEN", "FIRST", "LAST"}
	if o.output.format == "wide" {
		headings = append(headings, "OPERATIONS", "REQUESTS")
	}
	var rows [][]string
	for _, a := range accesses {
		row := []string{a.Client.String(), a.Client.ID, a.Does(), string(a.Resource.Kind), a.Resource.Name,
			fmt.Sprint(a.Evidence.Count()), stamp(a.Evidence.First), stamp(a.Evidence.Last)}
		if o.output.format == "wide" {
			row = append(row, strings.Join(a.Operations, ","), strings.Join(a.APIs, ","))
		} else {
			row[1], row[4] = fitted(row[1]), fitted(row[4])
		}
		rows = append(rows, row)
	}
	return table(o.Out, headings, rows)
}
