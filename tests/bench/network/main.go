// Command network measures what it takes to make policies of flows: beside
// Inspektor Gadget's network policy advisor on the same flows, in one run and in
// turns. Each is given the bytes that its own source hands it: Hubble's protobuf
// messages, and lines of the gadget's JSON. It must not compare runs of different
// times, or with a rival that does less.
//
// It is a module of its own, so that the product's does not know the gadget's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/inspektor-gadget/inspektor-gadget/pkg/gadgets/advise/networkpolicy/advisor"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/pkg/engine/netpol"
	"github.com/autopolicy/kubectl-autopolicy/pkg/learn"
	"github.com/autopolicy/kubectl-autopolicy/pkg/source/hubble"
	"github.com/autopolicy/kubectl-autopolicy/tests/bench/page"
)

// What is held to.
const (
	fasterBound  = 10.0      // times the advisor's flows a second
	fewerBound   = 1.0 / 20  // of the advisor's allocations
	decodedBound = 300_000.0 // flows a second on one core
	scalingBound = 12.0      // times the time for 10 times the flows
	memoryBound  = 1.1       // of the memory of a tenth of the flows
	rival        = "v0.41.0"
	small, large = 10_000, 100_000
	more         = 10 * large
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "network:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("network", flag.ContinueOnError)
	file := flags.String("write", "", "page to write the table into, between its markers")
	rounds := flags.Int("rounds", 5, "turns of each; the median counts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 {
		return errors.New("at least one round is needed")
	}
	runtime.GOMAXPROCS(1)
	r, err := measure(*rounds)
	if err != nil {
		return err
	}
	table := r.table()
	fmt.Fprintln(out, table)
	if *file != "" {
		if err := page.Write(*file, "make bench-network", table); err != nil {
			return err
		}
	}
	for _, m := range r.readings() {
		fmt.Fprintln(out, m.Line())
	}
	return nil
}

// cost is what one turn took.
type cost struct {
	time      time.Duration
	mallocs   float64
	bytesHeld float64 // of what it kept
	policies  int
}

// spend measures one turn; keep is what the turn leaves, held until it is weighed.
func spend(do func() (keep any, policies int, err error)) (cost, error) {
	var before, after, held runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := processor()
	keep, policies, err := do()
	c := cost{time: processor() - begin, policies: policies}
	runtime.ReadMemStats(&after)
	runtime.GC()
	runtime.ReadMemStats(&held)
	runtime.KeepAlive(keep)
	c.mallocs = float64(after.Mallocs - before.Mallocs)
	c.bytesHeld = float64(held.HeapAlloc) - float64(before.HeapAlloc)
	return c, err
}

// processor is the processor's time that this program took, the garbage collector's
// included: what else runs on the machine does not count.
func processor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // it has no way to fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ours makes NetworkPolicies of Hubble's messages.
func ours(messages [][]byte) (any, int, error) {
	book := hubble.NewBook(namespace)
	for _, m := range messages {
		if err := book.Add(m); err != nil {
			return nil, 0, err
		}
	}
	profiles := book.Result(cluster()).Profiles
	engine, policies := netpol.New(), 0
	for _, s := range profiles.Subjects() {
		set, err := learn.Rules([]behavior.Profile{profiles[s]}, learn.Options{})
		if err != nil {
			return nil, 0, err
		}
		rendered, err := engine.Render(set)
		if err != nil {
			return nil, 0, err
		}
		if len(rendered.Base) > 0 || len(rendered.Stage) > 0 {
			policies++
		}
	}
	return profiles, policies, nil
}

// theirs makes NetworkPolicies of the gadget's lines.
func theirs(lines []byte) (any, int, error) {
	a := advisor.NewAdvisor()
	if err := a.LoadBuffer(lines); err != nil {
		return nil, 0, err
	}
	a.GeneratePolicies()
	if a.FormatPolicies() == "" {
		return nil, 0, errors.New("the advisor made nothing")
	}
	return a.Policies, len(a.Policies), nil
}

// decode reads, resolves and merges messages again and again, until there were so
// many.
func decode(messages [][]byte, flows int) (any, int, error) {
	book := hubble.NewBook(namespace)
	for i := range flows {
		if err := book.Add(messages[i%len(messages)]); err != nil {
			return nil, 0, err
		}
	}
	r := book.Result(cluster())
	if int(book.Flows()) != flows || book.Lost() > 0 {
		return nil, 0, fmt.Errorf("%d of %d flows were taken, %d lost", book.Flows(), flows, book.Lost())
	}
	return book, len(r.Profiles), nil
}

// result are the medians of all turns.
type result struct {
	ours, theirs, generated map[int]cost // by flows; generated: the advisor without reading
	decoded, tenth, whole   cost
	rounds                  int
}

func measure(rounds int) (*result, error) {
	r := &result{ours: map[int]cost{}, theirs: map[int]cost{}, generated: map[int]cost{}, rounds: rounds}
	for _, n := range []int{small, large} {
		messages, lines := flows(n)
		loaded := advisor.NewAdvisor()
		if err := loaded.LoadBuffer(lines); err != nil {
			return nil, err
		}
		all, err := turns(rounds, func() (any, int, error) { return ours(messages) }, func() (any, int, error) { return theirs(lines) },
			func() (any, int, error) {
				a := advisor.NewAdvisor()
				a.Events = loaded.Events
				a.GeneratePolicies()
				return a.FormatPolicies(), len(a.Policies), nil
			})
		if err != nil {
			return nil, err
		}
		r.ours[n], r.theirs[n], r.generated[n] = all[0], all[1], all[2]
		if r.ours[n].policies != r.theirs[n].policies {
			return nil, fmt.Errorf("we made %d policies of the same flows, and they %d", r.ours[n].policies, r.theirs[n].policies)
		}
	}
	messages, _ := flows(large)
	all, err := turns(rounds, func() (any, int, error) { return decode(messages, large) }, func() (any, int, error) { return decode(messages, more) })
	if err != nil {
		return nil, err
	}
	r.tenth, r.whole = all[0], all[1]
	r.decoded = r.whole
	return r, nil
}

// turns lets each do its turn, rounds times, and gives the medians.
func turns(rounds int, each ...func() (any, int, error)) ([]cost, error) {
	spent := make([][]cost, len(each))
	for range rounds {
		for i, do := range each {
			c, err := spend(do)
			if err != nil {
				return nil, err
			}
			spent[i] = append(spent[i], c)
		}
	}
	medians := make([]cost, len(each))
	for i, list := range spent {
		slices.SortFunc(list, func(a, b cost) int { return int(a.time - b.time) })
		medians[i] = list[len(list)/2]
	}
	return medians, nil
}
