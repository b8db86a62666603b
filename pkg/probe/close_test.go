//go:build linux

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// objects are the identifiers of everything a probe has in the kernel, each with
// a way to tell whether it is still there.
func objects(t *testing.T, p *Probe) map[string]func() error {
	t.Helper()
	alive := map[string]func() error{}
	for name, program := range p.collection.Programs {
		info, err := program.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		alive["program "+name] = func() error {
			p, err := ebpf.NewProgramFromID(id)
			return errors.Join(err, p.Close())
		}
	}
	for name, m := range p.collection.Maps {
		info, err := m.Info()
		if err != nil {
			t.Fatal(err)
		}
		id, _ := info.ID()
		alive["map "+name] = func() error {
			m, err := ebpf.NewMapFromID(id)
			return errors.Join(err, m.Close())
		}
	}
	for _, l := range p.links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		alive[fmt.Sprintf("link %d", info.ID)] = func() error {
			l, err := link.NewFromID(info.ID)
			if err == nil {
				err = l.Close()
			}
			return err
		}
	}
	return alive
}

func TestCloseLeavesNothingInTheKernel(t *testing.T) {
	p := requireProbe(t, Options{})
	alive := objects(t, p)
	if len(alive) < 15 {
		t.Fatalf("only %d objects: %v", len(alive), alive)
	}
	for name, look := range alive {
		if err := look(); err != nil {
			t.Fatalf("%s is not there: %v", name, err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	// The kernel frees them after a grace period.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for name, look := range alive {
		for err := look(); !errors.Is(err, os.ErrNotExist); err = look() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s is left: %v", name, err)
			}
		}
	}
}

func TestRunEnds(t *testing.T) {
	t.Run("with its context, and may be called again", func(t *testing.T) {
		p := requireProbe(t, Options{})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for range 3 {
			if err := p.Run(ctx, func(Record) {}); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("when the probe is closed", func(t *testing.T) {
		p := requireProbe(t, Options{})
		done := make(chan error)
		go func() { done <- p.Run(context.Background(), func(Record) {}) }()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Run: %v, want ErrClosed", err)
		}
	})
}
