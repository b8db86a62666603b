package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"
)

// outputFlag is -o, the same for every command that lists something.
type outputFlag struct {
	format  string
	formats []string
}

func (f *outputFlag) add(c *cobra.Command, formats ...string) {
	f.formats = formats
	c.Flags().StringVarP(&f.format, "output", "o", "", "output format: "+strings.Join(formats, ", ")+" (default a table)")
	// The error is that the flag does not exist, and it was made just now.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func (f *outputFlag) validate() error {
	if f.format != "" && !slices.Contains(f.formats, f.format) {
		return fmt.Errorf("--output %q: want one of %s", f.format, strings.Join(f.formats, ", "))
	}
	return nil
}

// data tells whether the output is for a program, not for a person.
func (f *outputFlag) data() bool { return f.format == "json" || f.format == "yaml" }

// write gives the result to a program.
func (f *outputFlag) write(w io.Writer, result any) error {
	data, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	if f.format == "yaml" {
		if data, err = yaml.JSONToYAML(data); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	_, err = fmt.Fprintln(w, strings.TrimSpace(string(data)))
	return err
}

// table prints rows below headings, as kubectl does.
func table(w io.Writer, headings []string, rows [][]string) error {
	tw := printers.GetNewTabWriter(w)
	fmt.Fprintln(tw, strings.Join(headings, "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = strings.NewReplacer("\n", " ", "\t", " ").Replace(printable(row[i]))
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// fittedWidth is how many characters a cell of a table has that -o wide does not
// bound: the names in it are a pod's, and may be as long as a path can be.
const fittedWidth = 120

// fitted shortens a cell in its middle, so that what it begins and ends with can
// be read and one long name does not widen all rows.
func fitted(text string) string {
	runes := []rune(text)
	if len(runes) <= fittedWidth {
		return text
	}
	half := (fittedWidth - len("...")) / 2
	return string(runes[:half]) + "..." + string(runes[len(runes)-half:])
}

// coloured tells whether w is a terminal whose user has not asked for no colour.
func coloured(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == ""
}

// number gives a count with its noun: 1 fact, 2 facts.
func number(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if plural, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprint(n, " ", plural, "ies")
	}
	return fmt.Sprint(n, " ", noun, "s")
}

// gathered are things that are true of several, each said once: what a node lost
// is missing from every workload that runs there.
type gathered struct {
	texts  []string
	abouts map[string][]string
}

// add says a text about something.
func (g *gathered) add(about, text string) {
	if g.abouts == nil {
		g.abouts = map[string][]string{}
	}
	if _, ok := g.abouts[text]; !ok {
		g.texts = append(g.texts, text)
	}
	if !slices.Contains(g.abouts[text], about) {
		g.abouts[text] = append(g.abouts[text], about)
	}
}

// gatheredNames is how many are named before the others are only counted.
const gatheredNames = 4

// print writes a line for each text, in the order in which they came first.
func (g *gathered) print(w io.Writer, label string) {
	for _, text := range g.texts {
		names := g.abouts[text]
		about := strings.Join(names[:min(len(names), gatheredNames)], ", ")
		if n := len(names) - gatheredNames; n > 0 {
			about += fmt.Sprintf(" and %d more", n)
		}
		fmt.Fprintln(w, printable(label+": "+about+": "+text))
	}
}
