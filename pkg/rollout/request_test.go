package rollout_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
	"github.com/autopolicy/kubectl-autopolicy/pkg/policy"
	"github.com/autopolicy/kubectl-autopolicy/pkg/rollout"
)

var wide = rollout.Room{Body: 65_000, Graph: 5_000, Fold: true}

func request(t *testing.T, tree overlay.Tree, opts rollout.PromoteOptions, list ...behavior.Profile) rollout.Request {
	t.Helper()
	plan, verdicts, err := rollout.Promote(input(tree, list...), opts)
	if err != nil {
		t.Fatal(err)
	}
	return rollout.Request{Plan: plan, Before: tree, After: tree.With(plan.Files), Verdicts: &verdicts}
}

func body(t *testing.T, r rollout.Request, room rollout.Room) string {
	t.Helper()
	text, err := r.Body(room)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestABodySaysWhatIsDeniedOnWhatEvidenceAndHowToGoBack(t *testing.T) {
	tree := discover(t, nil, profile("web"), profile("api"))
	r := request(t, tree, rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-web"}}, profile("web"), profile("api"))
	text := body(t, r, wide)
	for _, want := range []string{
		"1 workload of namespace `shop` may only do what the policies here allow. Everything else is refused.",
		"- `deployment-web`: audit → **deny**, promoted", "- on the evidence of ", "none would be refused",
		"```mermaid\nflowchart LR", `w0["deployment-web"] -- audit --> s0([deny])`,
		"<details><summary>Diff</summary>", "-- workloads/deployment-web/audit", "+- workloads/deployment-web/deny",
		"kubectl autopolicy rollback -n shop",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the body lacks %q:\n%s", want, text)
		}
	}
	if r.Title() != "Promote shop to deny: deployment/web" {
		t.Errorf("title %q", r.Title())
	}
	if strings.Contains(text, "`deployment-api`") {
		t.Error("the body speaks of a workload that it is not about")
	}
	simple := body(t, r, rollout.Room{Body: 32_000})
	if strings.Contains(simple, "<details>") || strings.Contains(simple, "mermaid") || !strings.Contains(simple, "### Diff") {
		t.Errorf("a forge without HTML and graphs gets\n%s", simple)
	}
}

func TestABodyNamesWhatAForcedPromotionWouldBreak(t *testing.T) {
	tree := discover(t, nil, profile("web"))
	strange := profile("web", reads("/bin/strange", "/etc/shadow"))
	r := request(t, tree, rollout.PromoteOptions{To: policy.Deny, Force: "the boss said so"}, strange)
	text := body(t, r, wide)
	for _, want := range []string{"would be refused or cannot be judged", "/etc/shadow", "denied by `kubearmor KubeArmorPolicy/autopolicy-deployment-web`", "`forced: the boss said so`"} {
		if !strings.Contains(text, want) {
			t.Errorf("the body lacks %q:\n%s", want, text)
		}
	}
}

func TestABodyTellsOfWhatTheBranchHadBefore(t *testing.T) {
	tree := discover(t, nil, profile("web"), profile("api"))
	first := request(t, tree, rollout.PromoteOptions{To: policy.Deny, Workloads: []string{"deployment-api"}}, profile("web"), profile("api"))
	second := request(t, first.After, rollout.PromoteOptions{To: policy.Deny}, profile("web"), profile("api"))
	second.Before = tree
	text := body(t, second, wide)
	for _, want := range []string{"2 workloads of namespace", "`deployment-api`: audit → **deny** (by an earlier commit of this branch)", "`deployment-web`: audit → **deny**, promoted"} {
		if !strings.Contains(text, want) {
			t.Errorf("the body lacks %q:\n%s", want, text)
		}
	}
	back := rollout.Request{Plan: rollout.Plan{Namespace: "shop"}, Before: first.After, After: tree}
	if text := body(t, back, wide); !strings.Contains(text, "1 workload of namespace `shop` is refused less than now") {
		t.Errorf("a way back reads\n%s", text)
	}
}

func TestABodyFitsItsRoom(t *testing.T) {
	facts := []behavior.Fact{}
	for i := range 400 {
		facts = append(facts, reads("/bin/x", "/data/ü"+strings.Repeat("y", 100)+string(rune('a'+i%26))+strings.Repeat("z", i)))
	}
	tree := discover(t, nil, profile("web"))
	r := request(t, tree, rollout.PromoteOptions{To: policy.Deny, Force: strings.Repeat("because ", 500)}, profile("web", facts...))
	for _, size := range []int{2_000, 5_000, 32_000, 65_000} {
		text := body(t, r, rollout.Room{Body: size, Graph: 5_000, Fold: true})
		if n := utf8.RuneCountInString(text); n > size {
			t.Errorf("%d characters in a room of %d", n, size)
		}
		if !strings.Contains(text, "rollback -n shop") {
			t.Errorf("a room of %d has no way back", size)
		}
		if problem := markup(text); problem != nil {
			t.Errorf("a room of %d: %v", size, problem)
		}
	}
}

func TestABodyOfABrokenFolderIsAnError(t *testing.T) {
	broken := overlay.Tree{"kustomization.yaml": []byte("resources: [")}
	var invalid *overlay.InvalidError
	if _, err := (rollout.Request{After: broken}).Body(wide); !errors.As(err, &invalid) {
		t.Errorf("%v", err)
	}
}

// markup parses a body as the forges do, and returns an error where it has a
// link, HTML that is not ours, or a text outside of code that a forge would look
// for mentions, references and addresses in.
func markup(source string) error {
	data := []byte(source)
	doc := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(data))
	return ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.CodeSpan, *ast.FencedCodeBlock:
			return ast.WalkSkipChildren, nil
		case *ast.Link, *ast.AutoLink, *ast.Image, *ast.RawHTML, *ast.CodeBlock:
			return ast.WalkStop, errors.New("has a " + n.Kind().String())
		case *ast.HTMLBlock:
			for i := range n.Lines().Len() {
				line := n.Lines().At(i)
				if s := strings.TrimSpace(string(line.Value(data))); s != "<details><summary>Diff</summary>" && s != "</details>" {
					return ast.WalkStop, errors.New("has the HTML " + s)
				}
			}
		case *ast.Text:
			if s := string(n.Segment.Value(data)); strings.ContainsAny(s, "@#<>") || strings.Contains(s, "://") || strings.Contains(s, "www.") {
				return ast.WalkStop, errors.New("has outside of code: " + s)
			}
		}
		return ast.WalkContinue, nil
	})
}

// Whatever a pod names its files, a reviewer reads it as a name.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		"@everyone", "``` \n</details><img src=x onerror=alert(1)>", "`code`", "[click](javascript:alert(1))", "![](https://example.com/x.png)",
		"https://example.com", "#1", "\n# Approved\n", "~~~\n", "a\u202eb", "$(id)", "|x|", "````````````", "<!-- -->", "&lt;", "\\`x", "` ", " `",
	} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, path, reason string) {
		tree := discover(t, nil, profile("web"))
		hostile := behavior.Escape("/data/" + path)
		in := input(tree, profile("web", reads("/bin/x", hostile)))
		plan, verdicts, err := rollout.Promote(in, rollout.PromoteOptions{To: policy.Deny, Force: "x" + reason})
		if err != nil {
			return // YAML does not take every reason
		}
		r := rollout.Request{Plan: plan, Before: tree, After: tree.With(plan.Files), Verdicts: &verdicts}
		r.After = r.After.With(map[string][]byte{"custom/x.yaml": []byte(path + "\n" + reason + "\n")})
		if err := markup(body(t, r, wide)); err != nil {
			t.Errorf("%v:\n%s", err, body(t, r, wide))
		}
	})
}
