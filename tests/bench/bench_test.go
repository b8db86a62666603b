package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRatioIsOfMedians(t *testing.T) {
	ms := func(values ...int) (d []time.Duration) {
		for _, v := range values {
			d = append(d, time.Duration(v)*time.Millisecond)
		}
		return d
	}
	r := &result{plugin: ms(9, 10, 500), kubectl: ms(1, 40, 41)}
	start := r.measures()[2]
	if !start.Measured || start.Value != 0.25 {
		t.Errorf("start = %+v", start)
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
