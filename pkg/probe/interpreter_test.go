package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// elf64 makes a little-endian ELF file with one program header.
func elf64(kind uint32, interpreter string, length uint64) []byte {
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[54:], 56)
	binary.LittleEndian.PutUint16(b[56:], 1)
	binary.LittleEndian.PutUint32(b[64:], kind)
	binary.LittleEndian.PutUint64(b[64+8:], uint64(len(b)))
	binary.LittleEndian.PutUint64(b[64+32:], length)
	return append(b, interpreter...)
}

func elf32(order binary.ByteOrder, data byte, interpreter string) []byte {
	b := make([]byte, 52+32)
	copy(b, "\x7fELF\x01")
	b[5] = data
	order.PutUint32(b[28:], 52)
	order.PutUint16(b[42:], 32)
	order.PutUint16(b[44:], 1)
	order.PutUint32(b[52:], 3)
	order.PutUint32(b[52+4:], uint32(len(b)))
	order.PutUint32(b[52+16:], uint32(len(interpreter)))
	return append(b, interpreter...)
}

func TestInterpreter(t *testing.T) {
	const ld = "/lib64/ld-linux-x86-64.so.2"
	cases := []struct {
		name    string
		file    []byte
		want    string
		refused bool
	}{
		{"a dynamic executable of 64 bits", elf64(3, ld+"\x00", uint64(len(ld)+1)), ld, false},
		{"a dynamic executable of 32 bits", elf32(binary.LittleEndian, 1, "/lib/ld-linux.so.2\x00"), "/lib/ld-linux.so.2", false},
		{"a dynamic executable of the other byte order", elf32(binary.BigEndian, 2, "/lib/ld.so.1\x00"), "/lib/ld.so.1", false},
		{"a static executable", elf64(1, "", 0), "", false},
		{"a script", []byte("#!/bin/sh\n" + strings.Repeat("x", 100)), "", true},
		{"an empty file", nil, "", true},
		{"an interpreter beyond the end of the file", elf64(3, "/lib", 100), "", true},
		{"an interpreter of exabytes", elf64(3, "/lib", 1<<62), "", true},
		{"an interpreter without an end", elf64(3, "/lib", 4), "", true},
		{"an empty interpreter", elf64(3, "\x00\x00", 2), "", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Interpreter(bytes.NewReader(c.file))
			if got != c.want || errors.Is(err, ErrELF) != c.refused {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzInterpreter(f *testing.F) {
	f.Add(elf64(3, "/lib/ld.so\x00", 11))
	f.Add(elf32(binary.BigEndian, 2, "/lib/ld.so\x00"))
	f.Fuzz(func(t *testing.T, file []byte) {
		path, err := Interpreter(bytes.NewReader(file))
		if err != nil && !errors.Is(err, ErrELF) {
			t.Errorf("error is not ErrELF: %v", err)
		}
		if len(path) >= maxInterpreter || strings.Contains(path, "\x00") {
			t.Errorf("path %q", path)
		}
	})
}

func TestNames(t *testing.T) {
	cases := []struct{ name, got, want string }{
		{"a system call is named by its table", SyscallName("amd64", 257), "openat"},
		{"the same number means another call elsewhere", SyscallName("386", 257), "remap_file_pages"},
		{"every table has its own openat", SyscallName("arm64", 56) + " " + SyscallName("arm", 322) + " " + SyscallName("386", 295), "openat openat openat"},
		{"an unknown system call keeps its number", SyscallName("amd64", 511), "sys_511"},
		{"an unknown architecture keeps the number", SyscallName("vax", 1), "sys_1"},
		{"a capability has no prefix", CapabilityName(13), "NET_RAW"},
		{"the newest capability", CapabilityName(40), "CHECKPOINT_RESTORE"},
		{"a capability of the future keeps its number", CapabilityName(63), "CAP_63"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.got != c.want {
				t.Errorf("got %q, want %q", c.got, c.want)
			}
		})
	}
}
