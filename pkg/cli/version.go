package cli

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// versions is what version prints.
type versions struct {
	Plugin string `json:"plugin"`
	Schema string `json:"schema"` // of the files in the repository
	Go     string `json:"go"`
	OS     string `json:"platform"`
}

func (a *app) versionCommand() *cobra.Command {
	var output outputFlag
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the version of the plugin and of the files it writes",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := output.validate(); err != nil {
				return err
			}
			v := versions{Plugin: a.version, Schema: configVersion, Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
			if output.data() {
				return output.write(a.Out, v)
			}
			fmt.Fprintf(a.Out, "plugin: %s\nschema: %s\nplatform: %s, %s\n", v.Plugin, v.Schema, v.OS, v.Go)
			return nil
		},
	}
	output.add(c, "json", "yaml")
	return c
}
