package behavior

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheNewestSpecificationHolds(t *testing.T) {
	at := func(minute int, hostPID bool) Coverage {
		return Coverage{Spec: &SeenSpec{Made: time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC), Pod: PodSpec{HostPID: hostPID}}}
	}
	all := []Coverage{{}, at(1, true), at(2, false), at(2, true)}
	want := MergeCoverage(all[2], all[3]).Spec
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}, {1, 3, 3, 2}} {
		var c Coverage
		for _, i := range order {
			c = MergeCoverage(c, all[i])
		}
		if c.Spec != want {
			t.Errorf("in order %v: %+v, want %+v", order, c.Spec, want)
		}
	}
	if !SameSpec(at(1, true).Spec, at(5, true).Spec) || SameSpec(at(1, true).Spec, at(1, false).Spec) || SameSpec(nil, at(1, true).Spec) || !SameSpec(nil, nil) {
		t.Error("two specifications are the same when they say the same, whenever it was")
	}
}

func TestASpecificationIsBoundedAndEscaped(t *testing.T) {
	p := PodSpec{Containers: []ContainerSpec{{Name: "web", Mounts: []VolumeMount{{Name: "a", Path: "/\x1b[2J"}}}}}
	if whole := p.Bound(); !whole || p.Containers[0].Mounts[0].Path != `/\x1b[2J` {
		t.Errorf("whole %t, path %q", whole, p.Containers[0].Mounts[0].Path)
	}
	long := PodSpec{Volumes: slices.Repeat([]Volume{{Name: "v", Kind: "hostPath", HostPath: strings.Repeat("x", 9999)}}, 999)}
	if whole := long.Bound(); whole || len(long.Volumes) != maxSpecParts || len(long.Volumes[0].HostPath) != maxSpecText {
		t.Errorf("whole %t, %d volumes with paths of %d", whole, len(long.Volumes), len(long.Volumes[0].HostPath))
	}
}

// A string that is forgotten in Bound would reach terminals and files as it is.
func TestBoundLooksAtEveryString(t *testing.T) {
	var p PodSpec
	fill(reflect.ValueOf(&p).Elem())
	p.Bound()
	var check func(v reflect.Value, at string)
	check = func(v reflect.Value, at string) {
		switch v.Kind() {
		case reflect.String:
			if !IsEscaped(v.String()) {
				t.Errorf("%s is not escaped", at)
			}
		case reflect.Pointer:
			check(v.Elem(), at)
		case reflect.Slice:
			check(v.Index(0), at)
		case reflect.Struct:
			for i := range v.NumField() {
				check(v.Field(i), at+"."+v.Type().Field(i).Name)
			}
		}
	}
	check(reflect.ValueOf(p), "PodSpec")
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("\x1b")
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
}
