package cli

import (
	"strings"
	"testing"
)

func TestACurveIsDrawnWithSignsThatTheTerminalHas(t *testing.T) {
	for name, c := range map[string]struct {
		env    map[string]string
		counts []int
		want   string
	}{
		"ASCII where nothing is said":          {nil, []int{100, 50, 1, 0}, "#=._"},
		"blocks where the locale is UTF-8":     {map[string]string{"LANG": "de_DE.UTF-8"}, []int{100, 50, 1, 0}, "█▅▂▁"},
		"ASCII where LC_ALL says otherwise":    {map[string]string{"LANG": "C.UTF-8", "LC_ALL": "POSIX"}, []int{1, 0}, "._"},
		"a curve of nothing":                   {nil, nil, "-"},
		"a curve in which nothing came":        {nil, []int{0, 0}, "__"},
		"each count but nothing is to be seen": {nil, []int{1_000_000, 1}, "#."},
		"the most of one is its highest, too":  {nil, []int{7, 7}, "##"},
	} {
		t.Run(name, func(t *testing.T) {
			got := drawn(c.counts, signs(func(name string) string { return c.env[name] }))
			if got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if strings.ContainsAny(got, "\x1b\t\n") {
				t.Errorf("%q breaks a table", got)
			}
		})
	}
}
