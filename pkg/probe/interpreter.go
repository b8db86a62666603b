package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// ErrELF is returned for a file that is not an ELF executable, or a malformed one.
var ErrELF = errors.New("not a well-formed ELF file")

const (
	maxProgramHeaders = 512  // a linker makes a dozen
	maxInterpreter    = 4096 // PATH_MAX: the kernel takes no longer one
	typeInterpreter   = 3    // PT_INTERP
)

// Interpreter reads the dynamic linker's path out of an ELF executable, as it
// stands there: raw bytes, links not resolved. It is empty for a static one. The
// file may be hostile: what is read is bounded, and an error is ErrELF or comes
// from r.
func Interpreter(r io.ReaderAt) (string, error) {
	var head [64]byte
	if n, err := r.ReadAt(head[:], 0); n < 52 {
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return "", fmt.Errorf("%w: %d bytes", ErrELF, n)
	}
	if !bytes.HasPrefix(head[:], []byte("\x7fELF")) {
		return "", fmt.Errorf("%w: no magic", ErrELF)
	}
	var order binary.ByteOrder
	switch head[5] {
	case 1:
		order = binary.LittleEndian
	case 2:
		order = binary.BigEndian
	default:
		return "", fmt.Errorf("%w: byte order %d", ErrELF, head[5])
	}
	var table uint64
	var size, count, want uint16
	switch head[4] {
	case 1:
		table, size, count, want = uint64(order.Uint32(head[28:])), order.Uint16(head[42:]), order.Uint16(head[44:]), 32
	case 2:
		table, size, count, want = order.Uint64(head[32:]), order.Uint16(head[54:]), order.Uint16(head[56:]), 56
	default:
		return "", fmt.Errorf("%w: class %d", ErrELF, head[4])
	}
	if count == 0 {
		return "", nil
	}
	if size != want || count > maxProgramHeaders || table > 1<<62 {
		return "", fmt.Errorf("%w: %d program headers of %d bytes", ErrELF, count, size)
	}
	headers := make([]byte, int(size)*int(count))
	if err := readFull(r, headers, table); err != nil {
		return "", err
	}
	for h := headers; len(h) > 0; h = h[size:] {
		if order.Uint32(h) != typeInterpreter {
			continue
		}
		offset, length := uint64(order.Uint32(h[4:])), uint64(order.Uint32(h[16:]))
		if head[4] == 2 {
			offset, length = order.Uint64(h[8:]), order.Uint64(h[32:])
		}
		return readInterpreter(r, offset, length)
	}
	return "", nil
}

func readInterpreter(r io.ReaderAt, offset, length uint64) (string, error) {
	if length < 2 || length > maxInterpreter || offset > 1<<62 {
		return "", fmt.Errorf("%w: interpreter of %d bytes", ErrELF, length)
	}
	path := make([]byte, length)
	if err := readFull(r, path, offset); err != nil {
		return "", err
	}
	path, _, terminated := bytes.Cut(path, []byte{0})
	if !terminated || len(path) == 0 {
		return "", fmt.Errorf("%w: interpreter is no string", ErrELF)
	}
	return string(path), nil
}

func readFull(r io.ReaderAt, b []byte, offset uint64) error {
	if n, err := r.ReadAt(b, int64(offset)); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: cut short", ErrELF)
		}
		return err
	}
	return nil
}
