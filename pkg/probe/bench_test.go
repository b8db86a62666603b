//go:build linux

package probe

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"
)

// What an observed container pays for a call: nothing loaded, loaded but the
// container ignored, observed. The container measures itself.
func BenchmarkContainer(b *testing.B) {
	for _, what := range []string{"getpid", "open"} {
		for _, mode := range []string{"without", "ignored", "observed"} {
			b.Run(what+"/"+mode, func(b *testing.B) {
				c := newContainer(b, "bench", what, strconv.Itoa(b.N))
				if mode != "without" {
					p := requireProbe(b, Options{})
					if mode == "ignored" {
						if err := p.Ignore(c.mntns); err != nil {
							b.Fatal(err)
						}
					}
				}
				var ns float64
				if _, err := fmt.Fprintln(c.stdin, "go"); err != nil {
					b.Fatal(err)
				}
				if _, err := fmt.Fscanln(c.stdout, &ns); err != nil {
					b.Fatal(err, c.output.String())
				}
				b.ReportMetric(ns, "ns/call")
			})
		}
	}
}

func BenchmarkOpenAndClose(b *testing.B) {
	for b.Loop() {
		p := requireProbe(b, Options{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		if err := p.Run(ctx, func(Record) {}); err != nil {
			b.Fatal(err)
		}
		cancel()
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
