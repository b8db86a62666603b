//go:build linux

package collector

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// fleet fills a collector with 200 containers, ten replicas of each of twenty
// workloads, of 300 facts each.
func fleet(b *testing.B) *Collector {
	c := &Collector{
		store: newStore(DefaultLimits()), probe: newFakeProbe(), pods: newPods(), now: time.Now, steady: time.Now,
		lost: map[string]loss{}, problems: map[string]string{}, options: Options{Node: "node-1", Epoch: "e"},
	}
	c.keeper.path = filepath.Join(b.TempDir(), "profile")
	for i := range 200 {
		k, _ := c.store.container(containerInfo{id: fmt.Sprint(i), uid: fmt.Sprint(i), namespace: "shop", pod: fmt.Sprint("web-", i), name: "web"}, time.Now())
		for f := range 300 {
			fact := reads(fmt.Sprintf("/usr/lib/application-%d/some/folder/file-%d", i/10, f))
			c.store.add(k, sighting{fact: fact, id: uint64(i*300 + f + 1), at: time.Now(), parent: "/bin/sh", hasParent: true})
		}
	}
	return c
}

func BenchmarkMemoryOf200Containers(b *testing.B) {
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := fleet(b)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
		runtime.KeepAlive(c)
	}
}

func BenchmarkWriteAllOf200Containers(b *testing.B) {
	c := fleet(b)
	b.ReportAllocs()
	for b.Loop() {
		c.keeper.close()
		if err := c.save(true); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(c.keeper.size)/(1<<20), "MiB")
}

func BenchmarkWriteNothingNewOf200Containers(b *testing.B) {
	c := fleet(b)
	if err := c.save(true); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := c.save(false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAKnownFact(b *testing.B) {
	c := fleet(b)
	k := c.store.containers["7"]
	o := sighting{fact: reads("/usr/lib/application-0/some/folder/file-7"), at: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		c.store.add(k, o)
	}
}
