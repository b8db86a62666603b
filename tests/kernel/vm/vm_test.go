package vm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestInitialFileSystemHoldsThePrograms(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("seven b"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initial")
	if err := Initial(path, map[string]string{"init": program, "other": program}); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for len(archive) > 0 {
		if !bytes.HasPrefix(archive, []byte("070701")) {
			t.Fatalf("no header at %.20q", archive)
		}
		number := func(i int) int {
			n, err := strconv.ParseUint(string(archive[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		name, size := number(11), number(6)
		content := (110 + name + 3) &^ 3
		got[string(archive[110:110+name-1])] = string(archive[content : content+size])
		archive = archive[(content+size+3)&^3:]
	}
	if len(got) != 4 || got["init"] != "seven b" || got["other"] != "seven b" || got["dev"] != "" {
		t.Errorf("holds %q", got)
	}
}

// fakeQEMU is a program of the emulator's name that runs a script.
func fakeQEMU(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, Needs("amd64")), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestAMachineThatDoesNotEndIsStopped(t *testing.T) {
	fakeQEMU(t, "trap 'echo stopped; exit 3' INT\necho booted\nwhile :; do sleep 0.05; done\n")
	var console strings.Builder
	err := Machine{Arch: "amd64", Timeout: time.Second}.Boot(context.Background(), &console)
	if err == nil || !strings.Contains(err.Error(), "longer than 1s") {
		t.Errorf("ended with %v", err)
	}
	if !strings.Contains(console.String(), "booted\nstopped") {
		t.Errorf("console shows %q", console.String())
	}
}

func TestAMachineIsStoppedWithItsContext(t *testing.T) {
	fakeQEMU(t, "trap 'exit 3' INT\nwhile :; do sleep 0.05; done\n")
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("enough")
	cancel(why)
	if err := (Machine{Arch: "amd64", Timeout: time.Hour}).Boot(ctx, &strings.Builder{}); !errors.Is(err, why) {
		t.Errorf("ended with %v", err)
	}
}

func TestACachedKernelIsNotFetched(t *testing.T) {
	t.Setenv("PATH", "") // no apt
	cache := t.TempDir()
	want := filepath.Join(cache, "trixie-amd64/root/boot/vmlinuz-6.12")
	if err := os.MkdirAll(filepath.Dir(want), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	k := Kernel{"6.12", "trixie", "amd64"}
	if got, err := k.Fetch(context.Background(), cache, &strings.Builder{}); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := (Kernel{"6.1", "bookworm", "amd64"}).Fetch(context.Background(), cache, &strings.Builder{}); err == nil {
		t.Error("another kernel came from the cache")
	}
}
