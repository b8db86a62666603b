//go:build linux

package collector

import (
	"debug/elf"
	"encoding/binary"
	"math"
)

// headerTable is where an ELF file keeps its program headers.
type headerTable struct {
	order  binary.ByteOrder
	wide   bool // 64 bit
	offset int64
	size   uint16 // of one
	count  uint16
}

// programHeaders reads an ELF header of 52 bytes or more; ok is false for what
// the kernel would not run.
func programHeaders(h []byte) (t headerTable, ok bool) {
	t.order = binary.LittleEndian
	if elf.Data(h[elf.EI_DATA]) == elf.ELFDATA2MSB {
		t.order = binary.BigEndian
	}
	var smallest uint16
	var offset uint64
	switch elf.Class(h[elf.EI_CLASS]) {
	case elf.ELFCLASS64:
		t.wide, smallest = true, 56
		offset, t.size, t.count = t.order.Uint64(h[32:]), t.order.Uint16(h[54:]), t.order.Uint16(h[56:])
	case elf.ELFCLASS32:
		smallest = 32
		offset, t.size, t.count = uint64(t.order.Uint32(h[28:])), t.order.Uint16(h[42:]), t.order.Uint16(h[44:])
	default:
		return t, false
	}
	if offset > math.MaxInt64/2 || t.size < smallest || t.size > 256 || t.count > maxProgramHeaders {
		return t, false
	}
	t.offset = int64(offset)
	return t, true
}

// segment reads one program header. A size or offset beyond what a file can have
// comes out as 0 or negative.
func (t headerTable) segment(h []byte) (kind uint32, offset int64, size uint64) {
	kind = t.order.Uint32(h)
	if t.wide {
		return kind, int64(t.order.Uint64(h[8:])), t.order.Uint64(h[32:])
	}
	return kind, int64(t.order.Uint32(h[4:])), uint64(t.order.Uint32(h[16:]))
}
