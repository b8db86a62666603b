package rollout_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

func TestDiff(t *testing.T) {
	old := overlay.Tree{"a.yaml": []byte("1\n2\n3\n4\n5\n6\n7\n8\n9\n"), "gone.yaml": []byte("x\n"), "same.yaml": []byte("x\n")}
	plan := rollout.Plan{Files: map[string][]byte{
		"a.yaml":    []byte("1\n2\n3\n4\nfive\n6\n7\n8\n9"),
		"gone.yaml": nil,
		"new.yaml":  []byte("a\x1b[31m\u202e\n"),
	}}
	paint := func(k rollout.LineKind, s string) string { return fmt.Sprintf("%d|%s", k, s) }
	want := `1|diff --git a/a.yaml b/a.yaml
1|--- a/a.yaml
1|+++ b/a.yaml
2|@@ -2,8 +2,8 @@
0| 2
0| 3
0| 4
4|-5
3|+five
0| 6
0| 7
0| 8
4|-9
3|+9
0|\ No newline at end of file
1|diff --git a/gone.yaml b/gone.yaml
1|deleted file mode 100644
1|--- a/gone.yaml
1|+++ /dev/null
2|@@ -1 +0,0 @@
4|-x
1|diff --git a/new.yaml b/new.yaml
1|new file mode 100644
1|--- /dev/null
1|+++ b/new.yaml
2|@@ -0,0 +1 @@
3|+a\u001b[31m\u202e
`
	if got := plan.Diff(old, paint); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := plan.Diff(old, nil); strings.Contains(got, "\x1b") {
		t.Errorf("a control character reaches the terminal: %q", got)
	}
}

// What is shown is what happens: git applies the diff and gets the same bytes.
func TestGitAppliesTheDiff(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIPPED: git is not installed, so no diff is applied")
	}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		text := func(was string) string {
			var lines []string
			if was != "" {
				lines = strings.SplitAfter(strings.TrimSuffix(was, "\n"), "\n")
				lines[len(lines)-1] += "\n"
			}
			for range r.IntN(8) + 1 {
				i := 0
				if len(lines) > 0 {
					i = r.IntN(len(lines))
				}
				switch {
				case len(lines) < 4 || r.IntN(2) == 0:
					lines = append(lines[:i:i], append([]string{fmt.Sprintf("line %d\n", r.IntN(9))}, lines[i:]...)...)
				case r.IntN(2) == 0:
					lines = append(lines[:i:i], lines[i+1:]...)
				default:
					lines[i] = fmt.Sprintf("other %d\n", r.IntN(9))
				}
			}
			all := strings.Join(lines, "")
			if r.IntN(4) == 0 {
				all = strings.TrimSuffix(all, "\n")
			}
			return all
		}
		old, plan := overlay.Tree{}, rollout.Plan{Files: map[string][]byte{}}
		for i := range 6 {
			was, p := "", fmt.Sprintf("d/%d.yaml", i)
			for range 4 {
				was = text(was)
			}
			if i > 0 {
				old[p] = []byte(was)
			}
			if plan.Files[p] = []byte(text(was)); i == 5 {
				plan.Files[p] = nil
			}
		}
		dir := t.TempDir()
		for p, data := range old {
			if err := os.MkdirAll(filepath.Join(dir, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, p), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		diff := plan.Diff(old, nil)
		cmd := exec.Command("git", "apply", "--whitespace=nowarn", "-")
		cmd.Dir, cmd.Stdin, cmd.Env = dir, strings.NewReader(diff), append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("seed %d: git apply: %v: %s\n%s", seed, err, out, diff)
		}
		mustEqual(t, load(t, dir), old.With(plan.Files))
	}
}
