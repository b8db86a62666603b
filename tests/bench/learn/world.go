package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
)

// pods is how many replicas the facts come from.
const pods = 20

// world makes the facts of one workload, all distinct, as they come from its pods:
// what they share (programs, libraries, configuration) and what each does by
// itself (sessions, spools, databases, logs, processes, uploads).
type world struct {
	facts   int // of all pods
	shuffle uint64
}

// workload is whose facts they are.
func workload() behavior.Workload {
	return behavior.Workload{Namespace: "shop", Kind: "Deployment", Name: "web"}
}

// profile makes what was seen of one pod. Its share of all facts is its own.
func (w world) profile(pod int) behavior.Profile {
	name := fmt.Sprintf("web-5d8c7b9f4-%05d", pod)
	from := time.Date(2026, 3, 1, 12, 0, pod, 0, time.UTC)
	p := behavior.Profile{Subject: behavior.Subject{Workload: workload(), Container: "web"}, Labels: "app=web"}
	p.Coverage = behavior.Coverage{Replicas: pods, Pods: map[string]behavior.PodCoverage{name: {Node: "n1", Image: "web@sha256:1", From: from, To: from.Add(time.Hour), Start: true}}}
	share := w.facts / pods
	order := make([]int, share)
	for i := range order {
		order[i] = i
	}
	if w.shuffle != 0 {
		rand.New(rand.NewPCG(w.shuffle, uint64(pod))).Shuffle(share, func(i, j int) { order[i], order[j] = order[j], order[i] })
	}
	for _, i := range order {
		at := from.Add(time.Duration(i%3600) * time.Second)
		p.Add(fact(pod*share+i, pod), behavior.Evidence{First: at, Last: at.Add(time.Minute), Pods: map[string]uint64{name: uint64(1 + i%7)}})
	}
	return p
}

// fact makes the fact with a number. Nothing in it is drawn by chance: every
// number gives another one.
func fact(n, pod int) behavior.Fact {
	f := behavior.Fact{Kind: behavior.File, Exe: "/usr/sbin/server", Access: behavior.Read}
	scrambled := uint64(n)*0x9e3779b97f4a7c15 ^ 0xdeadbeef
	switch n % 20 {
	case 0:
		f.Exe, f.Path = "/usr/bin/python3.11", fmt.Sprintf("/usr/lib/python3.11/site-packages/pkg%d/mod%d.py", n%977, n)
	case 1:
		f.Path = fmt.Sprintf("/usr/lib/x86_64-linux-gnu/lib%x.so", scrambled)
	case 2:
		f.Path = fmt.Sprintf("/app/node_modules/m%d/lib/i%d.js", n%4999, n)
	case 3, 4, 5:
		f.Exe, f.Path, f.Access = "/usr/lib/postgresql/15/bin/postgres", fmt.Sprintf("/var/lib/postgresql/15/main/base/%d/%d", 16384+n%211, n), behavior.Read|behavior.Write
	case 6, 7:
		f.Path, f.Access = fmt.Sprintf("/var/lib/php/sessions/sess_%016x%08x", scrambled, n), behavior.Read|behavior.Write|behavior.Create
	case 8, 9:
		f.Path, f.Access = fmt.Sprintf("/tmp/tmp%011x", n), behavior.Write|behavior.Create
	case 10:
		f.Path, f.Access, f.Operation = fmt.Sprintf("/tmp/tmp%011x", n), behavior.Write, behavior.OpUnlink
	case 11:
		f.Path = fmt.Sprintf("/proc/%d/stat", n)
	case 12, 13:
		f.Path = fmt.Sprintf("/srv/uploads/%08x-0000-4000-8000-%012x/original.jpg", n, scrambled&0xffffffffffff)
	case 14:
		f.Path, f.Access = fmt.Sprintf("/var/spool/web/%02x/%02x/%016x", scrambled&255, scrambled>>8&255, scrambled), behavior.Write|behavior.Create
	case 15:
		f.Path, f.Access = fmt.Sprintf("/var/log/web/access-%d.log", 1772366400+n), behavior.Write
	case 16:
		f.Path = fmt.Sprintf("/srv/www/pages/%s-%s.html", word(n), word(n/1000))
	case 17:
		f.Exe, f.Path = "/usr/bin/perl", fmt.Sprintf("/usr/share/perl/5.36.0/%s/%s%d.pm", word(n), word(n/17), n)
	case 18:
		f.Path, f.Access = fmt.Sprintf("/var/cache/web/web-5d8c7b9f4-%05d/%s/%d", pod, word(n%300), n), behavior.Write|behavior.Create
	case 19:
		f.Path = fmt.Sprintf("/srv/www/assets/%s/app.%016x.js", word(n%500), scrambled)
	}
	return f
}

// word spells a number with letters.
func word(n int) string {
	b := []byte{'a'}
	for n = max(n, 0); n > 0; n /= 20 {
		b = append(b, "bcdfghjklmnpqrstvwxz"[n%20], "aeiou"[n%5])
	}
	return string(b)
}
