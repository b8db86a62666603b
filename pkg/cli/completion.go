package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// completionShim is what kubectl looks for on PATH, by this name, to complete
// the arguments of a plugin.
const (
	completionShim     = "kubectl_complete-autopolicy"
	completionShimText = "#!/bin/sh\n# Completion for kubectl autopolicy, called by kubectl's own completion.\nexec kubectl autopolicy __complete \"$@\"\n"
)

func (a *app) completion() *cobra.Command {
	c := &cobra.Command{
		Use:       "completion bash|zsh|fish|powershell|install",
		Short:     "Print a completion script, or install completion for 'kubectl autopolicy'",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell", "install"},
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && slices.Contains(c.ValidArgs, args[0]) {
				return nil
			}
			given := strings.Join(append([]string{c.Name()}, args...), " ")
			return fmt.Errorf("%s: want one of %s", given, strings.Join(c.ValidArgs, ", "))
		},
		Long: `Print a completion script for a shell, or install completion for
'kubectl autopolicy'.

 kubectl completes a plugin's arguments by a program named ` + completionShim + `
on PATH. 'completion install' writes it into --dir.`,
		Example: `  # Let kubectl complete autopolicy's commands and flags
  kubectl autopolicy completion install --dir ~/.local/bin`,
	}
	dir := c.Flags().String("dir", "", "folder on PATH to install into")
	c.RunE = func(c *cobra.Command, args []string) error {
		switch args[0] {
		case "bash":
			return c.Root().GenBashCompletionV2(a.Out, true)
		case "zsh":
			return c.Root().GenZshCompletion(a.Out)
		case "fish":
			return c.Root().GenFishCompletion(a.Out, true)
		case "powershell":
			return c.Root().GenPowerShellCompletionWithDesc(a.Out)
		}
		return a.installCompletion(*dir)
	}
	return c
}

func (a *app) installCompletion(dir string) error {
	if runtime.GOOS == "windows" {
		return errors.New("completion install: kubectl does not complete plugins by a shell script on Windows; use 'completion powershell'")
	}
	if dir == "" {
		return hinted(errors.New("completion install: no folder named"), "give --dir with a folder on your PATH")
	}
	name := filepath.Join(dir, completionShim)
	if err := os.WriteFile(name, []byte(completionShimText), 0o755); err != nil {
		return hinted(fmt.Errorf("install completion: %w", err), "give --dir with a folder that exists and that you may write to")
	}
	fmt.Fprintf(a.ErrOut, "wrote %s\n", name)
	return nil
}
