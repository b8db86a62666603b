package page_test

import (
	"testing"

	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

func TestReadingIsHeldToItsBound(t *testing.T) {
	for name, c := range map[string]struct {
		reading page.Reading
		want    string
	}{
		"below the bound":      {page.Reading{Name: "start", Value: 0.2, Unit: "of-kubectl", Bound: 0.33, Measured: true}, "measure\tstart\t0.2\tof-kubectl\t<=0.33\tok"},
		"at the bound":         {page.Reading{Name: "size", Value: 70, Unit: "MB", Bound: 70, Measured: true}, "measure\tsize\t70\tMB\t<=70\tok"},
		"above the bound":      {page.Reading{Name: "size", Value: 70.2, Unit: "MB", Bound: 70, Measured: true}, "measure\tsize\t70.2\tMB\t<=70\tshort"},
		"above a least":        {page.Reading{Name: "rate", Value: 0.99, Unit: "of-before", Bound: 0.98, AtLeast: true, Measured: true}, "measure\trate\t0.99\tof-before\t>=0.98\tok"},
		"below a least":        {page.Reading{Name: "rate", Value: 0.97, Unit: "of-before", Bound: 0.98, AtLeast: true, Measured: true}, "measure\trate\t0.97\tof-before\t>=0.98\tshort"},
		"what nobody measured": {page.Reading{Name: "start", Value: 0, Unit: "of-kubectl", Bound: 0.33, Measured: false}, "measure\tstart\t-\tof-kubectl\t<=0.33\tunmeasured"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.reading.Line(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestPageKeepsWhatPeopleWrote(t *testing.T) {
	const begin, end = "<!-- begin: make bench -->\n", "<!-- end: make bench -->\n"
	text := "# Title\n\n" + begin + "old\n" + end + "\nAfter.\n"
	once, err := page.Between(text, "make bench", "| new |\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := "# Title\n\n" + begin + "\n| new |\n\n" + end + "\nAfter.\n"; once != want {
		t.Errorf("got %q", once)
	}
	if twice, err := page.Between(once, "make bench", "| new |\n"); err != nil || twice != once {
		t.Errorf("the second time differs: %q, %v", twice, err)
	}
	for _, bad := range []string{"", begin, end + begin} {
		if got, err := page.Between(bad, "make bench", "x"); err == nil {
			t.Errorf("page without markers %q became %q", bad, got)
		}
	}
}
