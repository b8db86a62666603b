package cli

import (
	"os"
	"testing"
)

func TestAnOutputTellsWhenItsReaderWentAway(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	gone := 0
	o := output{w, func() { gone++ }}
	if _, err := o.Write([]byte("read\n")); err != nil || gone != 0 {
		t.Fatalf("%v, gone %d times", err, gone)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Write([]byte("not read\n")); err == nil || gone != 1 {
		t.Errorf("%v, gone %d times", err, gone)
	}
	if isTerminal(o) {
		t.Error("a pipe is taken for a terminal")
	}
}
