package rollout

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/sergi/go-diff/diffmatchpatch"

	"github.com/autopolicy/kubectl-autopolicy/pkg/overlay"
)

// LineKind is what a line of a diff is, for those who colour it.
type LineKind int

// Kinds of lines.
const (
	ContextLine LineKind = iota
	HeaderLine           // diff --git, file names, modes
	HunkLine             // @@ -1,2 +3,4 @@
	AddedLine
	RemovedLine
)

// Painter gives a line, without its end, the form in which it is shown. It is
// the only thing that may put escape sequences into a diff.
type Painter func(LineKind, string) string

// Diff shows a plan's changes of a tree file by file, in order of path, as git
// diff does. Control characters in the files are shown as escapes. A nil painter
// leaves lines as they are.
func (p Plan) Diff(old overlay.Tree, paint Painter) string {
	if paint == nil {
		paint = func(_ LineKind, s string) string { return s }
	}
	w := diffWriter{paint: paint}
	paths := make([]string, 0, len(p.Files))
	for path := range p.Files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		was, existed := old[path]
		w.file(path, was, p.Files[path], existed)
	}
	return w.b.String()
}

type diffWriter struct {
	b     strings.Builder
	paint Painter
}

func (w *diffWriter) line(kind LineKind, text string) {
	w.b.WriteString(w.paint(kind, visible(text)) + "\n")
}

func (w *diffWriter) file(path string, old, now []byte, existed bool) {
	w.line(HeaderLine, fmt.Sprintf("diff --git a/%[1]s b/%[1]s", path))
	from, to := "a/"+path, "b/"+path
	if !existed {
		w.line(HeaderLine, "new file mode 100644")
		from = "/dev/null"
	}
	if now == nil {
		w.line(HeaderLine, "deleted file mode 100644")
		to = "/dev/null"
	}
	lines := compare(string(old), string(now))
	if len(lines) == 0 {
		return // an empty file comes or goes
	}
	w.line(HeaderLine, "--- "+from)
	w.line(HeaderLine, "+++ "+to)
	for _, h := range hunks(lines) {
		w.hunk(lines, h)
	}
}

// diffLine is one line of both files together. Before tells how many lines of
// the old and the new file come before it.
type diffLine struct {
	kind         LineKind
	text         string // with its line end, if it has one
	oldAt, newAt int
}

// compare lines up two texts. It takes as long as it takes: a time limit would
// give other results on another machine.
func compare(old, now string) []diffLine {
	dmp := diffmatchpatch.New()
	dmp.DiffTimeout = 0
	a, b, texts := dmp.DiffLinesToRunes(old, now)
	var lines []diffLine
	oldAt, newAt := 0, 0
	for _, d := range dmp.DiffCharsToLines(dmp.DiffMainRunes(a, b, false), texts) {
		for text := range strings.Lines(d.Text) {
			l := diffLine{text: text, oldAt: oldAt, newAt: newAt}
			switch d.Type {
			case diffmatchpatch.DiffInsert:
				l.kind = AddedLine
				newAt++
			case diffmatchpatch.DiffDelete:
				l.kind = RemovedLine
				oldAt++
			default:
				oldAt++
				newAt++
			}
			lines = append(lines, l)
		}
	}
	return lines
}

// around is how many equal lines are shown around a change.
const around = 3

// hunks gives the ranges of lines to show: first, and one past the last.
func hunks(lines []diffLine) [][2]int {
	var list [][2]int
	for i, l := range lines {
		if l.kind == ContextLine {
			continue
		}
		first, past := max(i-around, 0), min(i+around+1, len(lines))
		if n := len(list); n > 0 && first <= list[n-1][1] {
			list[n-1][1] = past
		} else {
			list = append(list, [2]int{first, past})
		}
	}
	return list
}

func (w *diffWriter) hunk(lines []diffLine, h [2]int) {
	var olds, news int
	for _, l := range lines[h[0]:h[1]] {
		if l.kind != AddedLine {
			olds++
		}
		if l.kind != RemovedLine {
			news++
		}
	}
	first := lines[h[0]]
	w.line(HunkLine, fmt.Sprintf("@@ -%s +%s @@", span(first.oldAt, olds), span(first.newAt, news)))
	for _, l := range lines[h[0]:h[1]] {
		text, ended := strings.CutSuffix(l.text, "\n")
		w.line(l.kind, map[LineKind]string{ContextLine: " ", AddedLine: "+", RemovedLine: "-"}[l.kind]+text)
		if !ended {
			w.line(ContextLine, `\ No newline at end of file`)
		}
	}
}

// span is a range of lines as git writes it.
func span(before, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", before)
	case 1:
		return fmt.Sprint(before + 1)
	}
	return fmt.Sprintf("%d,%d", before+1, n)
}

// visible keeps what a file holds from moving the cursor of a terminal.
func visible(s string) string {
	if !strings.ContainsFunc(s, hidden) && strings.ToValidUTF8(s, "") == s {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) || r == unicode.ReplacementChar {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func hidden(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }
