//go:build linux && amd64

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/autopolicy/kubectl-autopolicy/pkg/behavior"
	"github.com/autopolicy/kubectl-autopolicy/tests/node"
)

// attempt is what came of an attack in a container.
type attempt struct {
	Attack string `json:"attack"`
	Error  string `json:"error,omitempty"` // empty: it worked
	// Unknown: it could not be tried.
	Unknown bool `json:"unknown,omitempty"`
}

// Who attacks: somebody who took over the service as it runs, or as root.
const (
	asUser = "user"
	asRoot = "root"
)

func assailants() []string { return []string{asUser, asRoot} }

func assault(who string) string { return "attack-" + who }

// attack records a run in which the service starts, is taken over and used for every
// attack.
func (l *lab) attack(ctx context.Context, p program, who string, confine *confinement, run string) error {
	l.say("%s: %s", p.name, run)
	p, uid := p.as(who)
	s, err := l.begin(ctx, p, run, confine)
	if s == nil {
		return err
	}
	var attempts []attempt
	if err == nil {
		attempts, err = s.assault(ctx, uid)
	}
	view := s.view()
	if err := errors.Join(err, s.end()); err != nil {
		return fmt.Errorf("%s: %w", run, err)
	}
	profile, err := s.pull(ctx, view)
	if err != nil {
		return err
	}
	return errors.Join(l.options.keep(p, run, profile), l.options.keepAttempts(p, run, attempts))
}

// as gives the program with a process of the user that attacks, and that user. A
// service that has no process of root's is started as root; one that refuses to run
// so is replaced by its entrypoint's shell.
func (p program) as(who string) (program, int) {
	if who == asUser {
		return p, p.serving()
	}
	if p.uid != 0 {
		p.uid = 0
		if len(p.asRoot) > 0 {
			p.args, p.ready, p.probe = p.asRoot, "true", nil
		}
	}
	return p, 0
}

// serving is the user under which requests are served.
func (p program) serving() int {
	if p.uid == 0 {
		return p.worker
	}
	return p.uid
}

// assault tries all attacks, each in a child of its own of a process of the user.
func (s *scene) assault(ctx context.Context, uid int) ([]attempt, error) {
	p := s.pods[0]
	var pid int
	err := node.Within(ctx, 10*time.Second, fmt.Sprintf("no process of user %d", uid), func() (ok bool, err error) {
		pid, ok, err = p.process(ctx, uid)
		return ok, err
	})
	if err != nil {
		return nil, err
	}
	visit := func(port int) error {
		_, err := s.lab.client(ctx, s.netns, fmt.Sprintf("echo hello | nc -N -w 2 $POD %d", port), s.env()...)
		return err
	}
	var list []attempt
	for _, a := range attacks() {
		err := within(pid, visit, a.do)
		t := attempt{Attack: a.name}
		var refused unix.Errno
		switch {
		case err == nil:
		case errors.As(err, &refused):
			t.Error = unix.ErrnoName(refused)
			if errors.Is(err, errNoChild) {
				t.Error += " (no child process)"
			}
		default:
			t.Error, t.Unknown = err.Error(), true
			// The process may have been replaced.
			if again, ok, err := p.process(ctx, uid); err == nil && ok {
				pid = again
			}
		}
		list = append(list, t)
	}
	return list, nil
}

// fate is what becomes of an attack by the policies.
type fate struct {
	attack string
	who    string
	how    string // denied, set aside, refused, missed or untried
	worked bool   // without any policy
	by     string // the engine, the class of the suspicion, the error, or why it was missed
}

// Fates.
const (
	fateDenied   = "denied"
	fateAside    = "set aside"
	fateRefused  = "refused" // by the container as it is: there is nothing that a policy could see
	fateMissed   = "missed"
	fateUntried  = "untried"
	fateExpected = "the service does it itself"
)

// fates judges the attacks that were recorded.
func (o options) fates(p program, c court, trained []behavior.Profile) ([]fate, error) {
	known := joined(trained...).Facts
	var list []fate
	for _, who := range assailants() {
		attempts, ok, err := o.attempts(p, assault(who))
		if err != nil || !ok {
			return list, err
		}
		profile, ok, err := o.recorded(p, assault(who))
		if err != nil || !ok {
			return list, err
		}
		verdicts, err := c.judge(profile)
		if err != nil {
			return list, err
		}
		stopped := denied(verdicts)
		aside, err := suspected(append(slices.Clone(trained), profile))
		if err != nil {
			return list, err
		}
		for _, a := range attacks() {
			i := slices.IndexFunc(attempts, func(t attempt) bool { return t.Attack == a.name })
			if i < 0 {
				continue
			}
			f := judgeAttack(a, attempts[i], profile.Facts, known, stopped, aside)
			f.attack, f.who, f.worked = a.name, who, attempts[i].Error == ""
			list = append(list, f)
		}
	}
	return list, nil
}

func judgeAttack(a attack, t attempt, facts, known behavior.Facts, stopped hits, aside map[behavior.Fact]string) fate {
	var seen, usual bool
	suspicion := ""
	for f := range facts.Keys() {
		if !a.is(f) {
			continue
		}
		if stopped[f] != "" {
			return fate{how: fateDenied, by: stopped[f]}
		}
		_, before := known.Get(f)
		seen, usual = true, usual || before
		suspicion = cmp.Or(suspicion, aside[f])
	}
	switch {
	case t.Unknown:
		return fate{how: fateUntried, by: t.Error}
	case suspicion != "":
		return fate{how: fateAside, by: suspicion}
	case t.Error != "":
		return fate{how: fateRefused, by: t.Error}
	case usual:
		return fate{how: fateMissed, by: fateExpected}
	case seen:
		return fate{how: fateMissed, by: "a rule is wide enough for it"}
	}
	return fate{how: fateMissed, by: "nothing of it was recorded"}
}

// suspected are the facts that learning would set aside, with the class of why.
func suspected(profiles []behavior.Profile) (map[behavior.Fact]string, error) {
	set, err := learner(profiles, nil)
	facts := map[behavior.Fact]string{}
	for _, s := range set.Suspicions {
		for _, o := range s.Facts {
			facts[o.Fact] = s.Class
		}
	}
	return facts, err
}

func (o options) attemptsFile(p program, run string) string {
	return filepath.Join(o.runs, p.name, run+".json")
}

func (o options) keepAttempts(p program, run string, list []attempt) error {
	data, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.attemptsFile(p, run), data, 0o644)
}

func (o options) attempts(p program, run string) ([]attempt, bool, error) {
	data, err := os.ReadFile(o.attemptsFile(p, run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var list []attempt
	err = json.Unmarshal(data, &list)
	return list, true, err
}
