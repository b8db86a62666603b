package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestOneReadingMeasuresWhatItSays(t *testing.T) {
	in, err := read(world{facts: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	shuffled, err := read(world{facts: 20_000, shuffle: 7})
	if err != nil {
		t.Fatal(err)
	}
	if in.Facts != 20_000 || in.Rules == 0 || in.Rules > 400 || in.Peak == 0 || in.Merge <= 0 || in.Learn <= 0 {
		t.Errorf("measured %+v", in)
	}
	if shuffled.Digest != in.Digest {
		t.Errorf("shuffled facts give %s, want %s", shuffled.Digest, in.Digest)
	}
}

func TestReadingsAreJudgedByTheirMedian(t *testing.T) {
	r := result{
		small: []reading{{Merge: 100 * time.Millisecond}, {Merge: time.Hour}, {Learn: 100 * time.Millisecond}},
		large: []reading{{Facts: 1, Merge: time.Second, Peak: 400_000}, {Merge: time.Second, Peak: 400_000}, {Learn: time.Second, Peak: 900_000}},
	}
	for _, m := range r.measures() {
		if m.Verdict() != "ok" {
			t.Errorf("%s is %s", m.Line(), m.Verdict())
		}
	}
	if r.different = 1; !strings.Contains(r.measures()[3].Line(), "short") {
		t.Error("shuffled facts that make a difference are no shortfall")
	}
}

func TestTooFewFactsAreRefused(t *testing.T) {
	if err := run(t.Context(), []string{"-facts", "9"}, &bytes.Buffer{}); err == nil {
		t.Error("nine facts were taken")
	}
}
