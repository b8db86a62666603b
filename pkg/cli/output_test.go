package cli

import (
	"strings"
	"testing"
)

func TestWhatIsTrueOfSeveralIsSaidOnce(t *testing.T) {
	var g gathered
	for _, about := range []string{"a", "b", "a", "c", "d", "e", "f"} {
		g.add(about, "node-1: \x1b[31mfull")
	}
	g.add("a", "gone")
	var b strings.Builder
	g.print(&b, "lost")
	if want := "lost: a, b, c, d and 2 more: node-1: \\x1b[31mfull\nlost: a: gone\n"; b.String() != want {
		t.Errorf("got  %q\nwant %q", b.String(), want)
	}
}
