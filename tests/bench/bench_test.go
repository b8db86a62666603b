package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadingIsHeldToItsBound(t *testing.T) {
	for name, c := range map[string]struct {
		reading reading
		want    string
	}{
		"below the bound":      {reading{"start", 0.2, "of-kubectl", 0.33, true}, "measure\tstart\t0.2\tof-kubectl\t<=0.33\tok"},
		"at the bound":         {reading{"size", 70, "MB", 70, true}, "measure\tsize\t70\tMB\t<=70\tok"},
		"above the bound":      {reading{"size", 70.2, "MB", 70, true}, "measure\tsize\t70.2\tMB\t<=70\tshort"},
		"what nobody measured": {reading{"start", 0, "of-kubectl", 0.33, false}, "measure\tstart\t-\tof-kubectl\t<=0.33\tunmeasured"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.reading.line(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRatioIsOfMedians(t *testing.T) {
	ms := func(values ...int) (d []time.Duration) {
		for _, v := range values {
			d = append(d, time.Duration(v)*time.Millisecond)
		}
		return d
	}
	r := &result{plugin: ms(9, 10, 500), kubectl: ms(1, 40, 41)}
	start := r.measures()[2]
	if !start.measured || start.value != 0.25 {
		t.Errorf("start = %+v", start)
	}
}

func TestPageKeepsWhatPeopleWrote(t *testing.T) {
	page := "# Title\n\n" + begin + "old\n" + end + "\nAfter.\n"
	once, err := between(page, "| new |\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Title\n\n" + begin + "\n| new |\n\n" + end + "\nAfter.\n"; once != want {
		t.Errorf("got %q", once)
	}
	if twice, err := between(once, "| new |\n"); err != nil || twice != once {
		t.Errorf("the second time differs: %q, %v", twice, err)
	}
	for _, bad := range []string{"", begin, end + begin} {
		if got, err := between(bad, "x"); err == nil {
			t.Errorf("page without markers %q became %q", bad, got)
		}
	}
}

// Shell scripts stand for the two programs: what counts is how they are run.
func TestMeasuresRealPrograms(t *testing.T) {
	dir := t.TempDir()
	plugin, kubectl := filepath.Join(dir, "plugin"), filepath.Join(dir, "kubectl")
	script(t, plugin, "#!/bin/sh\n[ \"$1\" = version ]\n")
	script(t, kubectl, "#!/bin/sh\n[ \"$1 $2\" = 'version --client' ]\n")
	r, err := measure(t.Context(), plugin, kubectl, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.plugin) != 3 || len(r.kubectl) != 3 || r.plugin[0] <= 0 || r.size <= 0 {
		t.Errorf("measured %+v", r)
	}
	if table := r.table(); !strings.Contains(table, "plugin-start") || !strings.Contains(table, "3 runs") {
		t.Errorf("table:\n%s", table)
	}
	script(t, plugin, "#!/bin/sh\necho broken; exit 3\n")
	if _, err := measure(t.Context(), plugin, kubectl, 1); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a program that fails was measured: %v", err)
	}
}

func script(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}
