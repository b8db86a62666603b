package gitops_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/gitops"
)

// BenchmarkCommit commits 50 files to a worktree that has 10,000 others.
func BenchmarkCommit(b *testing.B) {
	dir := b.TempDir()
	var in strings.Builder
	in.WriteString("commit refs/heads/main\ncommitter A <a@b> 1772597167 +0000\ndata 1\nx\n")
	for i := range 10_000 {
		fmt.Fprintf(&in, "M 100644 inline %d/%d\ndata 2\nx\n\n", i%100, i)
	}
	for _, c := range []*exec.Cmd{
		exec.Command("git", "init", "-q", "-b", "main", dir),
		exec.Command("git", "-C", dir, "fast-import", "--quiet"),
		exec.Command("git", "-C", dir, "reset", "-q", "--hard"),
	} {
		if c.Args[3] == "fast-import" {
			c.Stdin = strings.NewReader(in.String())
		}
		if out, err := c.CombinedOutput(); err != nil {
			b.Skipf("SKIPPED: git cannot make the repository: %v %s", err, out)
		}
	}
	r, err := gitops.Open(context.Background(), gitops.Options{URL: filepath.Clean(dir), Author: author})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		base, err := r.Head()
		if err != nil {
			b.Fatal(err)
		}
		c := gitops.Change{Dir: "autopolicy", Base: base, Files: map[string][]byte{}, Message: "m", When: when}
		for k := range 50 {
			c.Files[fmt.Sprintf("ns-%d/file-%d.yaml", k%5, k)] = fmt.Appendf(nil, "%d %d", i, k)
		}
		if _, err := r.Commit(context.Background(), c, nil); err != nil {
			b.Fatal(err)
		}
	}
}
